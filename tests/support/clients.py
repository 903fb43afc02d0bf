# SPDX-License-Identifier: Apache-2.0
"""The clients that provision and use cards, wherever they run: on this machine, or in a guest."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key

from ccid_protocol import tlv
from ccidd.keys.key import PublicKey

OPENSC_MODULE: Final = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"

_CURVES: Final[dict[int, ec.EllipticCurve]] = {0x11: ec.SECP256R1(), 0x14: ec.SECP384R1()}


class Shell(ABC):
    """Where clients run, in a directory for their files and without a terminal."""

    @abstractmethod
    async def run(self, *command: str, given: bytes = b"", status: int | None = 0) -> str:
        """Runs a command, which must end with a status, if not None; gives all that it says."""

    @abstractmethod
    async def write(self, name: str, content: bytes) -> None:
        """Writes a file."""

    @abstractmethod
    async def read(self, name: str) -> bytes:
        """Reads a file."""


@dataclass(frozen=True)
class Secrets:
    """What opens a card.

    Attributes:
        pin: the application PIN.
        puk: the PUK.
        management_key: the administration key, in hexadecimal digits.
        algorithm: its algorithm, as in a command for the card: 03 is 3DES.
    """

    pin: str = field(repr=False)
    puk: str = field(repr=False)
    management_key: str = field(repr=False)
    algorithm: str = "03"


AFTER_RESET: Final = Secrets("123456", "12345678", "0102030405060708" * 3)
"""What opens a card with the extensions that was reset."""


class YubicoPivTool:
    """yubico-piv-tool, with a card.

    Args:
        shell: where it runs.
        secrets: what opens the card now; whoever changes that says so by `secrets`.
    """

    def __init__(self, shell: Shell, secrets: Secrets) -> None:
        self._shell = shell
        self.secrets = secrets

    async def run(self, action: str, *arguments: str, given: bytes = b"", status: int = 0) -> str:
        """Runs an action, in whichever reader; by itself it wants one that is named YubiKey."""
        command = ("yubico-piv-tool", "--reader=", f"--action={action}")
        return await self._shell.run(*command, *arguments, given=given, status=status)

    async def as_administrator(self, action: str, *arguments: str, given: bytes = b"") -> str:
        """Runs an action after the administrator's authentication."""
        key = f"--key={self.secrets.management_key}"
        return await self.run(action, key, *arguments, given=given)

    async def as_cardholder(self, action: str, *arguments: str, given: bytes = b"") -> str:
        """Runs an action after the PIN."""
        pin = f"--pin={self.secrets.pin}"
        return await self.run("verify-pin", f"--action={action}", pin, *arguments, given=given)

    async def generate(self, slot: str, algorithm: str, *arguments: str) -> PublicKey:
        """Has the card make a key."""
        made = (f"--slot={slot}", f"--algorithm={algorithm}", "--output=public.pem")
        await self.as_administrator("generate", *made, *arguments)
        key = load_pem_public_key(await self._shell.read("public.pem"))
        assert isinstance(key, PublicKey)
        return key

    async def import_certificate(self, slot: str, certificate: x509.Certificate) -> None:
        """Puts a certificate on the card, and reads it back."""
        pem = certificate.public_bytes(Encoding.PEM)
        await self.as_administrator("import-certificate", f"--slot={slot}", given=pem)
        assert await self.certificate(slot) == certificate

    async def certificate(self, slot: str, action: str = "read-certificate") -> x509.Certificate:
        """Gives the certificate that the card has, or makes by attestation."""
        await self.run(action, f"--slot={slot}", "--output=read.pem")
        return x509.load_pem_x509_certificate(await self._shell.read("read.pem"))

    async def change(self, action: str, old: str, new: str, status: int = 0) -> str:
        """Changes PIN or PUK, or unblocks the PIN."""
        return await self.run(action, f"--pin={old}", f"--new-pin={new}", status=status)

    async def set_management_key(self, key: str, *arguments: str) -> None:
        """Changes the administration key."""
        await self.as_administrator("set-mgm-key", f"--new-key={key}", *arguments)
        self.secrets = replace(self.secrets, management_key=key)


class PivTool:
    """OpenSC's piv-tool, with a card.

    Args:
        shell: where it runs.
        secrets: what opens the card.
    """

    def __init__(self, shell: Shell, secrets: Secrets) -> None:
        self._shell = shell
        self._secrets = secrets

    async def run(self, *arguments: str) -> str:
        """Runs it."""
        return await self._shell.run("piv-tool", *arguments)

    async def as_administrator(self, *arguments: str) -> str:
        """Runs it after mutual authentication with the administration key.

        Its exit status says nothing: it is the number of bytes, or 1.
        """
        key = bytes.fromhex(self._secrets.management_key).hex(":")
        await self._shell.write("management-key", f"{key}\n".encode())
        command = ("piv-tool", f"--admin=M:9B:{self._secrets.algorithm}", *arguments)
        key_file = "PIV_EXT_AUTH_KEY=management-key"
        return await self._shell.run("env", key_file, *command, status=None)

    async def generate(self, reference: int, algorithm: int) -> PublicKey:
        """Has the card make an EC key, by the command itself.

        Version 0.23 makes keys, too, but fails to write what the card says of them.
        """
        command = bytes([0, 0x47, 0, reference, 5, 0xAC, 3, 0x80, 1, algorithm, 0])
        shown = await self.as_administrator(f"--send-apdu={command.hex(':')}")
        dump = re.findall(r"^((?:[0-9A-F]{2} )+)", shown.partition("SW1=0x90")[2], re.MULTILINE)
        (template,) = tlv.decode(bytes.fromhex("".join(dump)))
        (point,) = tlv.decode(template.value)
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[algorithm], point.value)

    async def import_certificate(self, reference: str, certificate: x509.Certificate) -> None:
        """Puts a certificate on the card."""
        await self._shell.write("certificate.pem", certificate.public_bytes(Encoding.PEM))
        put = (f"--cert={reference}", "--in=certificate.pem")
        await self.as_administrator(*put)

    async def put_object(self, container: str, content: bytes) -> None:
        """Puts a data object on the card."""
        await self._shell.write("object", content)
        await self.as_administrator(f"--object={container}", "--in=object")
