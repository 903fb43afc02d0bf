# SPDX-License-Identifier: Apache-2.0
"""A slot of a reader: the card in it, and who wants to know when that changes."""

from dataclasses import dataclass
from typing import Final

import trio

from ccidd.card.card import Card


@dataclass(frozen=True, slots=True, eq=False)
class Insertion:
    """One stay of a card in a slot: the same card, put in again, makes another."""

    card: Card


class Slot:
    """One slot.

    Args:
        card: what is in it from the start.
        name: what to call it before people.
    """

    def __init__(self, card: Card | None = None, name: str = "slot") -> None:
        self.name: Final = name
        self._insertion = None if card is None else Insertion(card)
        self._unplugged = False
        self._changed = trio.Event()

    @property
    def insertion(self) -> Insertion | None:
        """What is in the slot; nothing once the reader is unplugged."""
        return None if self._unplugged else self._insertion

    @property
    def unplugged(self) -> bool:
        """Whether the whole reader has gone."""
        return self._unplugged

    def insert(self, card: Card) -> None:
        """Puts a card into the slot, in the place of one that may be there."""
        self._insertion = Insertion(card)
        self._announce()

    def remove(self) -> None:
        """Takes the card out, if there is one."""
        self._insertion = None
        self._announce()

    def unplug(self) -> None:
        """Unplugs the reader: its card and then itself vanish for the host, for good."""
        self._unplugged = True
        self._announce()

    async def wait_until_not(self, insertion: Insertion | None) -> None:
        """Waits until the slot holds something else than the given, or the reader goes."""
        while self.insertion is insertion and not self._unplugged:
            await self._changed.wait()

    async def wait_until_unplugged(self) -> None:
        """Waits until the reader has gone."""
        while not self._unplugged:
            await self._changed.wait()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
