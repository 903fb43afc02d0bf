# SPDX-License-Identifier: Apache-2.0
"""What puts cards into the slots of a reader, and takes them out again.

An emulated card is in its slot from the start, and stays. A hardware card or token comes and goes,
and its supply follows it for as long as ccidd serves, whether a guest is connected or not.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog
import trio

from ccidd.card.card import Card
from ccidd.reader.slot import Slot

log: structlog.stdlib.BoundLogger = structlog.get_logger()

RETRY_DELAY: Final = 5.0
"""Seconds after which a supply that failed begins anew."""

Protect: TypeAlias = Callable[[Card], Card]
"""Puts before a card whatever protects it from the guest."""


class Protection:
    """What protects cards from the guest: by default nothing does.

    Attributes:
        retry_floor: how many tries of each PIN guests leave.
    """

    retry_floor: int = 0

    def protect(self, card: Card) -> Card:
        """Gives what a guest has in the place of a card."""
        return card


UNPROTECTED: Final = Protection()


class CardSupply(ABC):
    """Where the cards of one or more slots come from."""

    @property
    def slot_count(self) -> int:
        """How many slots it fills."""
        return 1

    def prepare(self, slots: Sequence[Slot]) -> None:  # noqa: B027 (most have no card yet)
        """Puts in what is there from the start, before a host can look.

        Args:
            slots: its slots, `slot_count` of them.
        """

    @abstractmethod
    async def run(self, slots: Sequence[Slot]) -> None:
        """Puts cards in and takes them out, until it is cancelled.

        A card that was reset by somebody else is inserted anew, so that the guest learns of it.
        What hardware does wrong is no exception here, but a slot without a card.

        Args:
            slots: its slots, the same as before.
        """


class FixedCard(CardSupply):
    """A card that stays where it is.

    Args:
        card: the card.
    """

    def __init__(self, card: Card) -> None:
        self._card = card

    def prepare(self, slots: Sequence[Slot]) -> None:
        """See `CardSupply.prepare`."""
        slots[0].insert(self._card)

    async def run(self, slots: Sequence[Slot]) -> None:  # noqa: ARG002 (nothing changes in them)
        """See `CardSupply.run`."""
        await trio.sleep_forever()


@dataclass(frozen=True, slots=True)
class Filling:
    """A supply, and the slots that it fills."""

    supply: CardSupply
    slots: Sequence[Slot]

    def prepare(self) -> None:
        """See `CardSupply.prepare`."""
        self.supply.prepare(self.slots)

    async def withdraw(self) -> None:
        """Takes the cards out, and waits until none is at work any more."""
        async with trio.open_nursery() as nursery:
            for slot in self.slots:
                nursery.start_soon(slot.withdraw)

    async def run(self) -> None:
        """Has the supply run, and run again should it fail, until this is cancelled."""
        while True:
            try:
                await self.supply.run(self.slots)
            except Exception:
                # A fault of ours costs its own slots their cards, and no others.
                log.exception("card_supply_fault", slots=[slot.name for slot in self.slots])
            for slot in self.slots:
                slot.remove()
            await trio.sleep(RETRY_DELAY)


def fill(supplies: Sequence[CardSupply], slot_count: int) -> tuple[list[Slot], list[Filling]]:
    """Makes the slots of a reader, with the cards that are there from the start.

    Args:
        supplies: what fills the slots, in their order.
        slot_count: how many slots the reader has; those that are left stay empty.
    """
    slots = [Slot(index=index) for index in range(slot_count)]
    fillings = []
    first = 0
    for supply in supplies:
        filling = Filling(supply, slots[first : first + supply.slot_count])
        first += supply.slot_count
        filling.prepare()
        fillings.append(filling)
    return slots, fillings
