# SPDX-License-Identifier: Apache-2.0
"""This machine's clients provision and use cards of ccidd's over a serial line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from card_users import use_with_opensc, use_with_openssl, use_with_ssh
from clients import AFTER_RESET, Secrets, Shell
from pcscd import Pcscd, pcscd
from programs import CCIDD, started
from provisioning import (
    change_pins_with_opensc,
    empty_card,
    provision_with_piv_tool,
    provision_with_yubico_piv_tool,
    reset_with_yubico_piv_tool,
)


class HostShell(Shell):
    """Runs clients beside a pcscd of this machine."""

    def __init__(self, host: Pcscd, directory: Path) -> None:
        self._host = host
        self._directory = directory

    async def run(self, *command: str, given: bytes = b"", status: int | None = 0) -> str:
        """See `Shell.run`."""
        return await self._host.run(*command, directory=self._directory, given=given, status=status)

    async def write(self, name: str, content: bytes) -> None:
        """See `Shell.write`."""
        (self._directory / name).write_bytes(content)

    async def read(self, name: str) -> bytes:
        """See `Shell.read`."""
        return (self._directory / name).read_bytes()


@asynccontextmanager
async def served(directory: Path, *options: str) -> AsyncIterator[tuple[Shell, Secrets]]:
    """Serves an empty card; gives where its clients run, and what opens it."""
    state, link = directory / "state", directory / "reader"
    secrets = empty_card(state, "3DES")
    card = ",".join(("--card=piv,card=alice", *options))
    door = ("--transport=serial", f"--socket-path={link}")
    with started([*CCIDD, card, *door, f"--state-dir={state}"], log=directory / "ccidd.log"):
        with trio.fail_after(30):
            while not link.is_symlink():  # noqa: ASYNC110 (it is made by another process)
                await trio.sleep(0.05)
        async with pcscd(link, "GemPCTwin") as host:
            yield HostShell(host, directory), secrets


async def test_a_card_is_provisioned_with_yubico_piv_tool_used_and_reset(tmp_path: Path) -> None:
    async with served(tmp_path, "vendor-extensions=on") as (shell, secrets):
        changed, certificates = await provision_with_yubico_piv_tool(shell, secrets)
        await use_with_opensc(shell, changed.pin, certificates)
        pin = f"--pin={changed.pin}"
        assert "No errors" in await shell.run("pkcs11-tool", "--test", "--login", pin)
        await use_with_openssl(shell, changed.pin, certificates)
        await use_with_ssh(shell, changed.pin, log_in=False)
        await reset_with_yubico_piv_tool(shell, changed)
        await provision_with_piv_tool(shell, AFTER_RESET)


async def test_a_card_without_the_extensions_is_provisioned_with_piv_tool_and_its_pins_changed(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (shell, secrets):
        certificates = await provision_with_piv_tool(shell, secrets)
        changed = await change_pins_with_opensc(shell, secrets)
        await use_with_opensc(shell, changed.pin, certificates)
