# SPDX-License-Identifier: Apache-2.0
"""Command chaining: the parts are held until the whole can be judged.

Source: ISO/IEC 7816-4:2013, 5.3.3. Nothing of a chain reaches the card before its last command has
come and the whole is allowed, so the card sees no part of another. A command that does not continue
the chain takes its place.
"""

from dataclasses import replace

from ccid_protocol.apdu import MAX_EXTENDED_NC, CommandAPDU


class Chain:
    """The chain that a guest has begun, if any."""

    def __init__(self) -> None:
        self._parts: list[CommandAPDU] = []
        self._size = 0

    @property
    def first(self) -> CommandAPDU | None:
        """The command that it began with; None without a chain."""
        return self._parts[0] if self._parts else None

    def drop(self) -> None:
        """Forgets it."""
        self._parts = []
        self._size = 0

    def add(self, command: CommandAPDU) -> bool:
        """Takes a command that others follow.

        Returns:
            False if there is too much of it, and it is forgotten.
        """
        self._take(command)
        if self._size > MAX_EXTENDED_NC:
            self.drop()
        return bool(self._parts)

    def end(self, command: CommandAPDU) -> tuple[CommandAPDU, list[CommandAPDU]]:
        """Takes a command that none follows.

        Returns:
            The whole command, and all parts as the card is to get them.
        """
        self._take(command)
        parts = self._parts
        self.drop()
        return replace(command, data=b"".join(part.data for part in parts)), parts

    def _take(self, command: CommandAPDU) -> None:
        """Adds a command to the parts before it, if it does not begin anew."""
        if self._parts and _header(self._parts[-1]) != _header(command):
            self.drop()
        self._parts.append(command)
        self._size += len(command.data)


def _header(command: CommandAPDU) -> tuple[int, int, int, int]:
    """What all commands of a chain have in common; the bit for chaining is not."""
    return command.cla & ~0x10, command.ins, command.p1, command.p2
