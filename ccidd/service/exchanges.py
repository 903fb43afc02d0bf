# SPDX-License-Identifier: Apache-2.0
"""What commands mean, and what came of them, for observers that want to know."""

import enum
from abc import abstractmethod
from dataclasses import dataclass
from typing import Final

from ccid_protocol.apdu import StatusWord
from ccidd.card.guard.guard import Guard, Refusal
from ccidd.card.guard.judge import PIN_INSTRUCTIONS
from ccidd.card.guard.retries import Counter, counted, counter_of
from ccidd.card.guard.selection import Kind
from ccidd.card.naming import Conversation, Exchange
from ccidd.reader.observer import SlotObserver
from ccidd.reader.slot import Slot

_SUCCESSES: Final = frozenset({0x90, 0x61})
"""SW1 of commands that were carried out without a warning."""

_WRONG: Final = 0x6300
"""The status word of a comparison that failed on cards that do not count in it."""


class ExchangeObserver(SlotObserver):
    """Sees each command in its context, and for the rest what any observer sees."""

    @abstractmethod
    def exchanged(self, slot: Slot, exchange: Exchange, seconds: float) -> None:
        """Sees a command and its response; see `SlotObserver.transmitted`."""


class Exchanges(SlotObserver):
    """Follows what is said in each slot, which application is selected and what chains make.

    It is done once for all who want to know, as each command pays for it.

    Args:
        observers: those who want to know.
    """

    def __init__(self, *observers: ExchangeObserver) -> None:
        self._observers = observers
        self._conversations: dict[int, Conversation] = {}

    def inserted(self, slot: Slot) -> None:
        """See `SlotObserver.inserted`."""
        for observer in self._observers:
            observer.inserted(slot)

    def removed(self, slot: Slot) -> None:
        """See `SlotObserver.removed`."""
        self._conversations.pop(slot.index, None)
        for observer in self._observers:
            observer.removed(slot)

    def powered_on(self, slot: Slot, atr: bytes) -> None:
        """See `SlotObserver.powered_on`."""
        self._conversations.pop(slot.index, None)
        for observer in self._observers:
            observer.powered_on(slot, atr)

    def powered_off(self, slot: Slot) -> None:
        """See `SlotObserver.powered_off`."""
        for observer in self._observers:
            observer.powered_off(slot)

    def transmitted(self, slot: Slot, command: bytes, response: bytes, seconds: float) -> None:
        """See `SlotObserver.transmitted`."""
        conversation = self._conversations.get(slot.index)
        if conversation is None:
            conversation = self._conversations[slot.index] = Conversation()
        exchange = conversation.take(command, response)
        for observer in self._observers:
            observer.exchanged(slot, exchange, seconds)

    def failed(self, slot: Slot, error: Exception) -> None:
        """See `SlotObserver.failed`."""
        self._conversations.pop(slot.index, None)
        for observer in self._observers:
            observer.failed(slot, error)


def refusal_of(slot: Slot) -> Refusal | None:
    """Gives why the card's guard has not let the last command through, if that is so."""
    insertion = slot.insertion
    card = None if insertion is None else insertion.card
    return card.refusal if isinstance(card, Guard) else None


class PinOutcome(enum.Enum):
    """What came of a command with a PIN."""

    RIGHT = enum.auto()
    WRONG = enum.auto()
    BLOCKED = enum.auto()
    """It was not compared, as no try was left."""


@dataclass(frozen=True, slots=True)
class PinTry:
    """A command with a PIN or code for the card to compare, which it has answered.

    Attributes:
        counter: which counter of the card counts such tries.
        outcome: what came of it.
        tries_left: how many tries are left, as the guest was told; None if it was not.
    """

    counter: Counter
    outcome: PinOutcome
    tries_left: int | None = None


def pin_try(exchange: Exchange) -> PinTry | None:
    """Tells what came of a command with a PIN; None if it was none, or nothing was compared."""
    if exchange.ins not in PIN_INSTRUCTIONS or exchange.more_follows:
        return None
    command, sw = exchange.command, exchange.sw
    counter = None if command is None else counter_of(command, exchange.kind)
    if counter is None or sw is None:
        return None
    left = counted(sw)
    if sw == StatusWord.AUTHENTICATION_METHOD_BLOCKED:
        return PinTry(counter, PinOutcome.BLOCKED, left)
    # An OpenPGP card says of a wrong PIN what others say where one is due.
    is_wrong = sw == _WRONG or (
        counter.kind is Kind.OPENPGP and sw == StatusWord.SECURITY_STATUS_NOT_SATISFIED
    )
    if left is not None or is_wrong:
        return PinTry(counter, PinOutcome.WRONG, left)
    return PinTry(counter, PinOutcome.RIGHT) if sw >> 8 in _SUCCESSES else None
