# SPDX-License-Identifier: Apache-2.0
"""A slot of a reader: the card in it, and who wants to know when that changes."""

import trio

from ccidd.card.card import Card


class Slot:
    """One slot.

    Args:
        card: what is in it from the start.
    """

    def __init__(self, card: Card | None = None) -> None:
        self._card = card
        self._unplugged = False
        self._changed = trio.Event()

    @property
    def card(self) -> Card | None:
        """The card in the slot; none once the reader is unplugged."""
        return None if self._unplugged else self._card

    @property
    def unplugged(self) -> bool:
        """Whether the whole reader has gone."""
        return self._unplugged

    def insert(self, card: Card) -> None:
        """Puts a card into the slot, in the place of one that may be there."""
        self._card = card
        self._announce()

    def remove(self) -> None:
        """Takes the card out, if there is one."""
        self._card = None
        self._announce()

    def unplug(self) -> None:
        """Unplugs the reader: its card and then itself vanish for the host, for good."""
        self._unplugged = True
        self._announce()

    async def wait_until_not(self, card: Card | None) -> None:
        """Waits until the card in the slot is another than the given one, or the reader goes."""
        while self.card is card and not self._unplugged:
            await self._changed.wait()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
