# SPDX-License-Identifier: Apache-2.0
"""The retry floor: a guest's wrong tries stop while the host's user has some left.

Source: ISO/IEC 7816-4:2013, 11.5.6 to 11.5.10 (63CX, VERIFY without data); SP 800-73-4, part 2,
3.2.1 to 3.2.3; OpenPGP card 3.4, 4.3.1 (PW status bytes); Yubico's GET METADATA.

The card is asked how many tries are left just before each, as others use it, too. What would wait
for the guest on the card (the rest of a response) ends with its own command anyway, and no chain is
ever begun there (`chain`); VERIFY without data opens and closes nothing.

========================  ============================================================
PIN of PIV, CAC, others   VERIFY without data: 63CX; 9000 if it is verified, which a wrong
                          try would have ended, so that all tries are there
PUK of PIV                GET METADATA, where the card has it
OpenPGP                   GET DATA 00C4
========================  ============================================================

Of a counter that cannot be read, the least that it can be is known: what the card said after the
last wrong try through this guard, less those since; `DEFAULT_TRIES` where it never said a number.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ccid_protocol import tlv
from ccid_protocol.apdu import (
    MAX_SHORT_NE,
    CommandAPDU,
    Instruction,
    ResponseAPDU,
    StatusWord,
    tries_left,
)
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.guard.command_class import CommandClass, Form
from ccidd.card.guard.judge import PIN_INSTRUCTIONS
from ccidd.card.guard.selection import Kind
from ccidd.card.piv.extensions import ExtensionInstruction
from ccidd.card.piv.references import PinReference

DEFAULT_TRIES: Final = 3
"""Wrong tries that a PIN stands, where nobody says how many: as many as most cards have."""

_SECRET_CODE: Final = -1
"""In the place of a reference: the code for RESET RETRY COUNTER, where it has none of its own."""

_PW1: Final = 0x81
_PW1_FOR_OTHERS: Final = 0x82
_PW3: Final = 0x83
_PW_STATUS: Final = 0xC4
_PW_STATUS_SIZE: Final = 7
# Where the PW status bytes have the counters of PW1, the resetting code and PW3.
_PW_COUNTERS: Final = {_PW1: 4, _SECRET_CODE: 5, _PW3: 6}
_BY_ADMINISTRATOR: Final = 0x02
"""P1 of RESET RETRY COUNTER without a code (OpenPGP card 3.4, 7.2.4)."""

_METADATA_RETRIES: Final = 0x06

_COUNTED: Final = 0x63C0
_MORE_DATA: Final = 0x61
_NOT_COMPARED: Final = {0x67, 0x68, 0x6A, 0x6B, 0x6C, 0x6D, 0x6E}
"""SW1 of commands that were refused before anything was compared."""

Send: TypeAlias = Callable[[CommandAPDU], Awaitable[ResponseAPDU]]
"""Sends a command to the card."""


@dataclass(frozen=True, slots=True)
class Counter:
    """A retry counter of a card.

    Attributes:
        kind: the application that it belongs to.
        reference: the reference of its PIN, or `_SECRET_CODE`.
    """

    kind: Kind
    reference: int

    @property
    def name(self) -> str:
        """The PIN's reference, as its specification numbers it; `code` where it has none."""
        return "code" if self.reference == _SECRET_CODE else f"{self.reference:02X}"


@dataclass(slots=True)
class Counts:
    """What is known of retry counters without asking the card; it outlives the card's power.

    Attributes:
        left: how many tries are left at least, after a wrong one.
        most: the most that the card has ever said.
    """

    left: dict[Counter, int] = field(default_factory=dict)
    most: dict[Counter, int] = field(default_factory=dict)

    def take(self, counter: Counter, left: int) -> int:
        """Takes a number that the card has said, and gives it."""
        self.left[counter] = left
        self.most[counter] = max(left, self.most.get(counter, 0))
        return left


def counter_of(command: CommandAPDU, kind: Kind) -> Counter | None:
    """Gives the counter that a command would change if its PIN or code were wrong.

    Returns:
        None if it has neither.
    """
    if not compares(command):
        return None
    reference: int = command.p2
    if command.ins in {0x2C, 0x2D}:
        reference = _SECRET_CODE
        if kind is Kind.PIV:
            reference = PinReference.PUK
        elif kind is Kind.OPENPGP and command.p1 == _BY_ADMINISTRATOR:
            return None
    elif kind is Kind.OPENPGP and reference == _PW1_FOR_OTHERS:
        reference = _PW1
    return Counter(kind, reference)


def compares(command: CommandAPDU) -> bool:
    """Whether a command has a PIN or code for the card to compare.

    Over T=0, P3 alone does not tell whether it is Lc or Le, so an Le that is not "all" is one.
    """
    return concerns_pin(command) and (bool(command.data) or command.ne not in {0, MAX_SHORT_NE})


def concerns_pin(command: CommandAPDU) -> bool:
    """Whether a command is one for PINs, with or without one.

    It is so in any class: cards are known that do not care.
    """
    return command.ins in PIN_INSTRUCTIONS


class RetryFloor:
    """Counts the tries of one card's PINs.

    Args:
        floor: how many tries are kept from the guest; 0 keeps none.
        counts: what is known of the card's counters.
    """

    def __init__(self, floor: int, counts: Counts) -> None:
        self._floor = floor
        self._counts = counts

    async def begin(self, command: CommandAPDU, counter: Counter, send: Send) -> int:
        """Begins a try, which counts as a wrong one until `note`.

        Args:
            command: the command.
            counter: its counter.
            send: asks the card.

        Returns:
            How many tries are left for the guest, this one included; with none, it must not be.
        """
        left = await self._left(command, counter, send)
        if left > self._floor:
            self._counts.left[counter] = left - 1
        return max(0, left - self._floor)

    def note(self, counter: Counter, sw: int) -> None:
        """Learns from the status word of a try that `begin` has allowed."""
        if sw == StatusWord.SUCCESS or sw >> 8 == _MORE_DATA:
            self._counts.left.pop(counter, None)
        elif sw & 0xFFF0 == _COUNTED:
            self._counts.take(counter, sw & 0x0F)
        elif sw == StatusWord.AUTHENTICATION_METHOD_BLOCKED:
            self._counts.left[counter] = 0
        elif sw >> 8 in _NOT_COMPARED and counter in self._counts.left:
            self._counts.left[counter] += 1

    def shown(self, command: CommandAPDU, sw: int) -> int:
        """Gives the status word of a command for PINs as the guest is to see it."""
        if sw & 0xFFF0 != _COUNTED:
            return sw
        left = max(0, (sw & 0x0F) - self._floor)
        if left or command.data:
            return tries_left(left)
        return StatusWord.AUTHENTICATION_METHOD_BLOCKED

    async def _left(self, command: CommandAPDU, counter: Counter, send: Send) -> int:
        """Gives how many tries are left, as far as that can be known."""
        if not CommandClass.of(command.cla).secured:
            # In clear, a question would end the secure messaging that the host has begun.
            said = await self._ask(command, counter, send)
            if said is not None:
                return self._counts.take(counter, said)
        return self._counts.left.get(counter, self._most(counter))

    def _most(self, counter: Counter) -> int:
        return self._counts.most.get(counter, DEFAULT_TRIES)

    async def _ask(self, command: CommandAPDU, counter: Counter, send: Send) -> int | None:
        """Asks the card for a counter; None if it does not say."""
        is_puk = counter == Counter(Kind.PIV, PinReference.PUK)
        left, verified = None, False
        if counter.kind is Kind.OPENPGP:
            left = await _ask_openpgp(command, counter, send)
        if left is None and counter.reference != _SECRET_CODE and not is_puk:
            question = CommandAPDU(_class(command), Instruction.VERIFY, 0, counter.reference)
            sw = (await send(question)).sw
            left, verified = counted(sw), sw == StatusWord.SUCCESS
        if counter.kind is Kind.PIV and (is_puk or verified):
            left = await _ask_metadata(command, counter, send)
        return left


def _class(command: CommandAPDU) -> int:
    """Gives the class of a question: that of the command, for its channel, or else 00."""
    return command.cla if CommandClass.of(command.cla).form is Form.INTERINDUSTRY else 0x00


def counted(sw: int) -> int | None:
    """Gives the tries left that a status word tells of."""
    if sw == StatusWord.AUTHENTICATION_METHOD_BLOCKED:
        return 0
    return sw & 0x0F if sw & 0xFFF0 == _COUNTED else None


async def _ask_openpgp(command: CommandAPDU, counter: Counter, send: Send) -> int | None:
    question = CommandAPDU(_class(command), Instruction.GET_DATA_CA, 0, _PW_STATUS, ne=MAX_SHORT_NE)
    response = await send(question)
    position = _PW_COUNTERS.get(counter.reference)
    is_told = response.sw == StatusWord.SUCCESS and len(response.data) >= _PW_STATUS_SIZE
    return response.data[position] if is_told and position is not None else None


async def _ask_metadata(command: CommandAPDU, counter: Counter, send: Send) -> int | None:
    question = CommandAPDU(
        _class(command), ExtensionInstruction.GET_METADATA, 0, counter.reference, ne=MAX_SHORT_NE
    )
    response = await send(question)
    if response.sw != StatusWord.SUCCESS:
        return None
    try:
        _most, left = tlv.decode_to_dict(response.data)[_METADATA_RETRIES]
    except (RemoteProtocolError, KeyError, ValueError):
        return None
    return left
