# SPDX-License-Identifier: Apache-2.0
"""GnuPG in a guest: its scdaemon has a CCID driver of its own, and can do with pcscd as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.agent import Completed
    from harness.guest import Guest

_SCDAEMON: Final = "/usr/lib/gnupg/scdaemon"
_CONFIGURATION: Final = """\
verbose
debug-ccid-driver
debug-ccid-driver
log-file /dev/virtio-ports/org.ccidd.pcscd
"""
"""Given twice, the option shows T=1 too. The log takes the place of pcscd's, so that a test which
fails shows its end."""

_PINENTRY: Final = """\
#!/bin/sh
echo OK
while read -r command rest; do
    [ "$command" = GETPIN ] && echo 'D %s'
    echo OK
    [ "$command" = BYE ] && exit
done
"""
"""A pinentry program that knows the PIN."""


class ScdaemonError(HarnessError):
    """scdaemon answered a command with an error."""


@dataclass(frozen=True)
class Reply:
    """What scdaemon answered to one command.

    Attributes:
        result: The line that ends it, which begins with OK or ERR.
        data: The data.
        status: The status lines, without the `S`.
    """

    result: str
    data: bytes
    status: tuple[str, ...]

    @property
    def is_ok(self) -> bool:
        return self.result.startswith("OK")


class GnuPG:
    """Runs GnuPG's programs in a guest.

    Args:
        guest: Where.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    async def take_reader(self) -> None:
        """Leave the reader to scdaemon: pcscd, which had it, is stopped."""
        await self._guest.run("pcscd-control", "stop")
        await self._configure(_CONFIGURATION)

    async def use_pcscd(self) -> None:
        """Have scdaemon use the reader by way of pcscd: its own driver wants T=1."""
        await self._configure("disable-ccid\n")

    async def _configure(self, scdaemon: str) -> None:
        await self._guest.run("mkdir", "--mode=700", "/root/.gnupg")
        await self._guest.write_file("/root/.gnupg/scdaemon.conf", scdaemon.encode())

    async def enter_pin(self, pin: str) -> None:
        """Have the agent find a person who enters the PIN wherever it asks for one."""
        await self._guest.write_file("/root/.gnupg/pinentry", (_PINENTRY % pin).encode())
        await self._guest.run("chmod", "+x", "/root/.gnupg/pinentry")
        configuration = b"pinentry-program /root/.gnupg/pinentry\n"
        await self._guest.write_file("/root/.gnupg/gpg-agent.conf", configuration)

    async def card_status(self, *, check: bool = True) -> Completed:
        """Show what a user sees of the card. The agent that this starts keeps the reader."""
        return await self._guest.run("gpg", "--card-status", check=check)

    async def scd(self, *commands: str, check: bool = True) -> list[Reply]:
        """Give commands to a scdaemon that is run for them alone; the agent must not have one.

        Args:
            commands: Each perhaps with the lines after it that answer its inquiries.
            check: Whether an error of scdaemon is one here.

        Raises:
            ScdaemonError: A command failed.
        """
        script = "".join(f"{command}\n" for command in commands)
        ran = await self._guest.run(_SCDAEMON, "--server", input=script.encode())
        _greeting, *replies = _replies(ran.stdout)
        wrong = [
            f"{command.splitlines()[0]}: {reply.result}"
            for command, reply in zip(commands, replies, strict=True)
            if check and not reply.is_ok
        ]
        if wrong:
            raise ScdaemonError("\n".join(wrong))
        return replies

    async def transmit(self, *commands: bytes) -> list[bytes]:
        """Send APDUs to a card that scdaemon need not know; return the responses.

        Args:
            commands: Command APDUs of at most 480 bytes each. What 61XX announces is fetched.
        """
        lines = [f"APDU --more --exlen=65536 {command.hex()}" for command in commands]
        _selected, *replies = await self.scd("SERIALNO undefined", *lines)
        return [reply.data for reply in replies]


def _replies(output: bytes) -> Sequence[Reply]:
    """Read the server's side of a conversation in Assuan, libassuan's protocol."""
    replies = []
    data, status = b"", []
    for line in output.splitlines():
        keyword, _, rest = line.partition(b" ")
        match keyword:
            case b"D":
                data += unquote_to_bytes(rest)
            case b"S":
                status.append(rest.decode())
            case b"OK" | b"ERR":
                replies.append(Reply(line.decode(), data, tuple(status)))
                data, status = b"", []
    return replies
