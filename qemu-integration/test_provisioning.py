# SPDX-License-Identifier: Apache-2.0
"""A guest's clients provision an empty card, use it, and reset it, through both front doors."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final

import pytest

from card_users import use_with_opensc, use_with_openssl, use_with_ssh
from clients import AFTER_RESET, Shell
from harness.ccidd import Transport, guest_with_card
from harness.gnupg import GnuPG
from harness.opensc import OpenSC
from provisioning import (
    change_pins_with_opensc,
    empty_card,
    provision_with_a_newer_yubico_piv_tool,
    provision_with_piv_tool,
    provision_with_yubico_piv_tool,
    reset_with_yubico_piv_tool,
)

if TYPE_CHECKING:
    from pathlib import Path

    from harness.guest import Guest
    from harness.image import Image
    from harness.qemu import Qemu

CARD: Final = "--card=piv,card=alice,vendor-extensions=on"


class GuestShell(Shell):
    """Runs clients in a guest."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    async def run(self, *command: str, given: bytes = b"", status: int | None = 0) -> str:
        """See `Shell.run`."""
        there = ("sh", "-c", 'cd /root && exec "$@" 2>&1', "sh")

        ran = await self._guest.run(*there, *command, input=given, check=False)
        assert status in {None, ran.status}, f"{command[0]}: status {ran.status}\n{ran.text}"
        return ran.text

    async def write(self, name: str, content: bytes) -> None:
        """See `Shell.write`."""
        await self._guest.write_file(f"/root/{name}", content)

    async def read(self, name: str) -> bytes:
        """See `Shell.read`."""
        return await self._guest.read_file(f"/root/{name}")


@pytest.mark.parametrize("transport", ["usbredir", "vscard"])
async def test_a_card_is_provisioned_used_and_reset(
    transport: Transport, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    secrets = empty_card(tmp_path / "state", "3DES")
    async with guest_with_card(
        CARD, image=image, qemu=qemu, workdir=tmp_path, transport=transport
    ) as pair:
        shell = GuestShell(pair.guest)
        await OpenSC(pair.guest).wait_for_card()
        if transport == "vscard":
            # QEMU's reader says that it has a PIN pad, which OpenSC then uses for ssh, and to
            # unblock a PIN.
            configuration = b"app default { reader_driver pcsc { enable_pinpad = false; } }\n"
            await pair.guest.write_file("/etc/opensc/opensc.conf", configuration)
        # Version 2.2.0 of yubico-piv-tool wants T=1, which QEMU's reader does not have.
        if transport == "vscard" and image.release == "bookworm":
            certificates = await provision_with_piv_tool(shell, secrets)
        else:
            secrets, certificates = await provision_with_yubico_piv_tool(shell, secrets)
        await use_with_opensc(shell, secrets.pin, certificates)
        await use_with_openssl(shell, secrets.pin, certificates)
        await use_with_ssh(shell, secrets.pin, log_in=True)
        secrets = await change_pins_with_opensc(shell, secrets)
        if transport == "vscard" and image.release == "bookworm":
            return
        await reset_with_yubico_piv_tool(shell, secrets)
        certificates = await provision_with_piv_tool(shell, AFTER_RESET)
        await use_with_opensc(shell, AFTER_RESET.pin, certificates)
        if image.release != "bookworm":
            secrets = await provision_with_a_newer_yubico_piv_tool(shell, AFTER_RESET)
            gnupg = GnuPG(pair.guest)
            await (gnupg.take_reader() if transport == "usbredir" else gnupg.use_pcscd())
            await gnupg.enter_pin(secrets.pin)
            await provision_and_use_with_gnupg(shell, secrets.management_key)


async def provision_and_use_with_gnupg(shell: Shell, management_key: str) -> None:
    """Make keys with gpg-card and an OpenPGP key of them, and use that."""
    commands = [["authenticate", management_key]]
    for key, algorithm in (("9A", "nistp256"), ("9C", "rsa2048"), ("9D", "rsa2048")):
        commands.append(f"generate --force --algo={algorithm} PIV.{key}".split())
    await shell.run("gpg-card", *itertools.chain(*[[*command, "--"] for command in commands]))
    # It wants gpgsm as well, and fails in the end where that is not installed.
    listed = await shell.run("gpg-card", "list", status=None)
    assert re.findall(r"keyref \.*: (PIV\.\w+)  \((.*)\)", listed) == [
        ("PIV.9A", "auth"),
        ("PIV.9E", "auth"),
        ("PIV.9C", "sign,cert"),
        ("PIV.9D", "encr"),
    ]
    await shell.run("gpg", "--batch", "--quick-gen-key", "alice", "card")
    await shell.write("message", b"signed by a card\n")
    await shell.run("gpg", "--local-user=alice", "--output=message.gpg", "--sign", "message")
    assert 'Good signature from "alice"' in await shell.run("gpg", "--verify", "message.gpg")
    to_alice = ("--recipient=alice", "--output=secret.gpg", "--encrypt")
    await shell.run("gpg", *to_alice, "message")
    assert "signed by a card" in await shell.run("gpg", "--decrypt", "secret.gpg")
