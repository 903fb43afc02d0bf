# SPDX-License-Identifier: Apache-2.0
"""A slot of a reader: the card in it, and who wants to know when that changes."""

from typing import Final
from weakref import WeakValueDictionary

import trio

from ccid_protocol.atr import ATR
from ccidd.card.card import Card


class Contacts(Card):
    """A card as a reader touches it: one call at a time, each after the end of the one before.

    A call that is cancelled may go on for a while in a worker thread. The next waits for it, and
    nobody gets its result.

    Args:
        card: the card.
    """

    def __init__(self, card: Card) -> None:
        self.card: Final = card
        self._free = trio.Lock()
        self._has_power = False
        self._power_is_cut = False

    def cut_power(self) -> bool:
        """Has the card powered off before all that comes next.

        Returns:
            Whether `settle` is yet to be called for it, to do it soon.
        """
        is_news = self._has_power and not self._power_is_cut
        self._power_is_cut = self._has_power
        return is_news

    async def settle(self) -> None:
        """Powers the card off if its power was cut."""
        async with self._free:
            await self._settle()

    async def power_on(self) -> ATR:
        """See `Card.power_on`."""
        async with self._free:
            await self._settle()
            self._has_power = True
            atr = await self.card.power_on()
        await trio.lowlevel.checkpoint_if_cancelled()
        return atr

    async def power_off(self) -> None:
        """See `Card.power_off`."""
        async with self._free:
            await self._power_off()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def transmit(self, command: bytes) -> bytes:
        """See `Card.transmit`."""
        async with self._free:
            await self._settle()
            response = await self.card.transmit(command)
        await trio.lowlevel.checkpoint_if_cancelled()
        return response

    async def _settle(self) -> None:
        if self._power_is_cut:
            await self._power_off()

    async def _power_off(self) -> None:
        await self.card.power_off()
        self._has_power = self._power_is_cut = False


_CONTACTS: Final = WeakValueDictionary[int, Contacts]()
"""The contacts of each card that is in use, by the card's identity."""


def contacts_of(card: Card) -> Contacts:
    """Gives the contacts of a card, which may still be at work for its last stay in a slot."""
    contacts = _CONTACTS.get(id(card))
    if contacts is None:
        _CONTACTS[id(card)] = contacts = Contacts(card)
    return contacts


class Insertion:
    """One stay of a card in a slot: the same card, put in again, makes another.

    Args:
        contacts: the way to the card.
    """

    def __init__(self, contacts: Contacts) -> None:
        self.contacts: Final = contacts

    @property
    def card(self) -> Card:
        """The card itself."""
        return self.contacts.card


class Slot:
    """One slot.

    Args:
        card: what is in it from the start.
        name: what to call it before people.
    """

    def __init__(self, card: Card | None = None, name: str = "slot") -> None:
        self.name: Final = name
        self._insertion: Insertion | None = None
        self._unplugged = False
        self._changed = trio.Event()
        if card is not None:
            self.insert(card)

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
        self._insertion = Insertion(contacts_of(card))
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
