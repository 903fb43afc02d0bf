# SPDX-License-Identifier: Apache-2.0
"""Events of what guests do with cards: PINs that are wrong, and what a guard refuses.

Commands and their status words tell of PINs, so it is the same for all kinds of cards. How many
tries are left is what the guest was told: the tries that a guard keeps from it are not among them.
"""

from typing import Final

import structlog

from ccidd.card.guard.guard import Refusal
from ccidd.card.guard.guest import Guest
from ccidd.card.guard.retries import Counter
from ccidd.card.naming import Exchange
from ccidd.reader.slot import Slot
from ccidd.service.events import Events
from ccidd.service.exchanges import ExchangeObserver, PinOutcome, pin_try, refusal_of

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class CardEvents(ExchangeObserver):
    """Makes events of what happens in the slots of a reader.

    Args:
        reader: the reader's name.
        guest: who is connected.
        events: where they go.
    """

    def __init__(self, reader: str, guest: Guest, events: Events) -> None:
        self._reader: Final = reader
        self._guest = guest
        self._events = events
        self._blocked = set[tuple[int, Counter]]()

    def inserted(self, slot: Slot) -> None:
        """See `SlotObserver.inserted`."""
        self._events.emit("CARD_INSERTED", reader=self._reader, slot=slot.index)

    def removed(self, slot: Slot) -> None:
        """See `SlotObserver.removed`."""
        self._blocked = {each for each in self._blocked if each[0] != slot.index}
        self._events.emit("CARD_REMOVED", reader=self._reader, slot=slot.index)

    def exchanged(self, slot: Slot, exchange: Exchange, seconds: float) -> None:  # noqa: ARG002 (for others)
        """See `ExchangeObserver.exchanged`."""
        refusal = refusal_of(slot)
        if refusal is not None:
            self._tell_refusal(slot, refusal)
        else:
            self._tell_pin(slot, exchange)

    def _tell_refusal(self, slot: Slot, refusal: Refusal) -> None:
        judgement = refusal.judgement
        reference = {} if judgement.reference is None else {"key": judgement.reference}
        self._emit(
            "GUARD_REFUSED",
            slot,
            instruction=judgement.instruction,
            reason=refusal.reason,
            **reference,
        )

    def _tell_pin(self, slot: Slot, exchange: Exchange) -> None:
        tried = pin_try(exchange)
        if tried is None:
            return
        place = slot.index, tried.counter
        card, reference = tried.counter.kind.value, tried.counter.name
        if tried.outcome is PinOutcome.WRONG:
            log.info("pin_failed", slot=slot.index, pin=reference, tries_left=tried.tries_left)
            left = {} if tried.tries_left is None else {"tries_left": tried.tries_left}
            self._emit("PIN_FAILED", slot, card=card, pin=reference, **left)
        if tried.outcome is PinOutcome.BLOCKED or tried.tries_left == 0:
            # A guest that goes on trying has nothing new to tell.
            if place not in self._blocked:
                log.warning("pin_blocked", slot=slot.index, pin=reference)
                self._emit("PIN_BLOCKED", slot, card=card, pin=reference)
            self._blocked.add(place)
        else:
            self._blocked.discard(place)

    def _emit(self, name: str, slot: Slot, **data: str | int) -> None:
        self._events.emit(
            name, reader=self._reader, slot=slot.index, guest=self._guest.name, **data
        )
