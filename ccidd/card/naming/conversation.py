# SPDX-License-Identifier: Apache-2.0
"""What a host and a card say to each other, as far as one must know it to understand the rest.

The guard's means conclude which application is selected and what chains make. Whoever looks on at
each APDU pays for little more than its first bytes; the rest is worked out when it is asked for.
"""

from dataclasses import replace
from functools import cache, cached_property
from typing import Final

from ccid_protocol.apdu import CommandAPDU, Instruction, ResponseAPDU
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.guard.chain import Chain
from ccidd.card.guard.command_class import CommandClass
from ccidd.card.guard.judge import MANAGE_CHANNEL
from ccidd.card.guard.operations import Judgement
from ccidd.card.guard.selection import Kind, Selected, Selection
from ccidd.card.naming.describe import (
    describe,
    describe_broken,
    describe_response,
    understand,
)

_CHANGE_SELECTION: Final = frozenset({Instruction.SELECT, Instruction.GET_RESPONSE, MANAGE_CHANNEL})

_class_of: Final = cache(CommandClass.of)


class Exchange:
    """A command and its response.

    Args:
        command: the command APDU.
        response: the response APDU.
        selected: the application that was selected on its channel before it.
        part: what `command` is to give of a command that belongs to a chain.
        more_follows: whether other commands of its chain follow.

    Attributes:
        ins: the instruction byte; None of a command without one.
        sw: the status word; None of a response without one.
        more_follows: whether other commands of its chain follow.
    """

    def __init__(
        self,
        command: bytes,
        response: bytes,
        selected: Selected,
        part: CommandAPDU | None = None,
        *,
        more_follows: bool = False,
    ) -> None:
        self._command = command
        self._response = response
        self._selected = selected
        self._part = part
        self.more_follows: Final = more_follows
        self.ins: Final = command[1] if len(command) > 1 else None
        self.sw: Final = int.from_bytes(response[-2:]) if len(response) > 1 else None

    @cached_property
    def command(self) -> CommandAPDU | None:
        """The command: the last of a chain has the data of all, the others those of the first.

        None if it is broken.
        """
        return self._part or _decode(self._command)

    @property
    def kind(self) -> Kind:
        """The application that the command is for, by a guess if need be."""
        return self._understood[0].kind

    @property
    def judgement(self) -> Judgement:
        """What the command does to the application; nothing if it is broken."""
        return self._understood[1]

    @property
    def text(self) -> str:
        """The command and its response in a line without secrets."""
        command = self.command
        if command is None:
            said = describe_broken(self._command)
        else:
            said = describe(command, self._selected)
        return f"{said} → {describe_response(self._response)}"

    @cached_property
    def _understood(self) -> tuple[Selected, Judgement]:
        if self.command is None:
            return self._selected, Judgement("broken command")
        return understand(self.command, self._selected)


class Conversation:
    """What was said since the card got power."""

    def __init__(self) -> None:
        self._chain = Chain()
        self._selection = Selection()

    def forget(self) -> None:
        """Knows nothing any more: the card was reset, or another is there."""
        self._chain.drop()
        self._selection.forget()

    def take(self, command: bytes, response: bytes) -> Exchange:
        """Takes the next command APDU with its response APDU."""
        command_class = _class_of(command[0] if command else 0)
        selected = self._selection.on(command_class.channel)
        part = None
        if command_class.chained or self._chain.first is not None:
            part = self._part(command, more_follows=command_class.chained)
        exchange = Exchange(command, response, selected, part, more_follows=command_class.chained)
        if exchange.ins in _CHANGE_SELECTION and not exchange.more_follows:
            self._note(command_class.channel, exchange, response)
        return exchange

    def _part(self, command: bytes, *, more_follows: bool) -> CommandAPDU | None:
        """Gives what is known of a chain's command with this part of it."""
        decoded = _decode(command)
        if decoded is None:
            self._chain.drop()
            return None
        if not more_follows:
            whole, _parts = self._chain.end(decoded)
            return whole
        if not self._chain.add(decoded) or self._chain.first is None:
            return decoded
        return replace(decoded, data=self._chain.first.data)

    def _note(self, channel: int, exchange: Exchange, response: bytes) -> None:
        """Concludes what is selected now."""
        if exchange.ins == MANAGE_CHANNEL:
            self._selection.forget_others()
        elif exchange.command is not None and exchange.sw is not None:
            self._selection.note(channel, exchange.command, ResponseAPDU.decode(response))


def _decode(command: bytes) -> CommandAPDU | None:
    try:
        return CommandAPDU.decode(command)
    except RemoteProtocolError:
        return None
