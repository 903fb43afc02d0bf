# SPDX-License-Identifier: Apache-2.0
"""OpenSC in a guest: what a user does with a card there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cryptography import x509

if TYPE_CHECKING:
    from harness.agent import Completed
    from harness.guest import Guest

PIV_NAME: Final = "Personal Identity Verification Card"
CAC_NAME: Final = "Common Access Card (CAC)"

_INPUT = "/run/input"
_OUTPUT = "/run/output"


class OpenSC:
    """Runs OpenSC's programs in a guest, each as a user would type it.

    OpenSC numbers the PIV keys 9A, 9C, 9D and 9E as 01, 02, 03 and 04, and those of a CAC as 0001
    and so on.

    Args:
        guest: Where.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    async def wait_for_card(self) -> str:
        """Wait until a reader with a card in it is there, and return the reader's name."""
        shown = await self._guest.run_until("opensc-tool", "--list-readers", shows=" Yes ")
        (line,) = re.findall(r"^0 +Yes +(?:PIN pad)? *(.*)$", shown.text, re.MULTILINE)
        return str(line)

    async def wait_until_no_card(self) -> None:
        """Wait until the reader, which QEMU leaves there, is empty."""
        await self._guest.run_until("opensc-tool", "--list-readers", shows=" No ")

    async def card_name(self) -> str:
        """Return which card OpenSC takes it for."""
        return (await self._guest.run("opensc-tool", "--name")).text.strip()

    async def certificates(self) -> dict[str, x509.Certificate]:
        """Return the certificates that PKCS#11 finds on the card, by their numbers."""
        listed = await self._guest.run("pkcs11-tool", "--list-objects", "--type", "cert")
        found = {}
        for number in re.findall(r"^ +ID: +(\w+)$", listed.text, re.MULTILINE):
            read = ["--read-object", "--type", "cert", "--id", number, "--output-file", _OUTPUT]
            await self._guest.run("pkcs11-tool", *read)
            found[number] = x509.load_der_x509_certificate(await self._guest.read_file(_OUTPUT))
        return found

    async def verify_pin(self, pin: str, *, check: bool = True) -> Completed:
        """Show the card its PIN, as `opensc-tool` has no login and PKCS#11 tries it twice."""
        verify = ["--verify-pin", "--auth-id", "01", "--pin", pin]
        return await self._guest.run("pkcs15-tool", *verify, check=check)

    async def sign(self, key: str, mechanism: str, data: bytes, pin: str | None = None) -> bytes:
        """Sign data with a key of the card, hashed as the mechanism's name says.

        Without a PIN, the reader has to ask for it.
        """
        return await self._use("--sign", key, mechanism, data, pin)

    async def decrypt(self, key: str, mechanism: str, data: bytes, pin: str) -> bytes:
        """Decrypt data with a key of the card."""
        return await self._use("--decrypt", key, mechanism, data, pin)

    async def self_test(self, pin: str) -> str:
        """Have pkcs11-tool try all that it knows on the card, and return what it says."""
        return (await self._guest.run("pkcs11-tool", "--test", "--login", "--pin", pin)).text

    async def _use(
        self, what: str, key: str, mechanism: str, data: bytes, pin: str | None
    ) -> bytes:
        await self._guest.write_file(_INPUT, data)
        arguments = [what, "--id", key, "--mechanism", mechanism, "--login"]
        arguments += ["--pin", pin] if pin is not None else []
        if mechanism.startswith("ECDSA"):
            arguments += ["--signature-format", "openssl"]
        files = ["--input-file", _INPUT, "--output-file", _OUTPUT]
        await self._guest.run("pkcs11-tool", *arguments, *files)
        return await self._guest.read_file(_OUTPUT)
