# SPDX-License-Identifier: Apache-2.0
"""A slot of a reader: the card in it, and who wants to know when that changes."""

from collections.abc import Sequence
from typing import Final
from weakref import WeakValueDictionary

import trio

from ccid_protocol.atr import ATR
from ccidd.card.card import Card
from ccidd.reader.observer import SlotObserver


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

    @property
    def has_power(self) -> bool:
        """Whether the card has power that was not cut."""
        return self._has_power and not self._power_is_cut

    def cut_power(self) -> bool:
        """Has the card powered off before all that comes next.

        Returns:
            Whether `settle` is yet to be called for it, to do it soon.
        """
        is_news = self.has_power
        self._power_is_cut = self._has_power
        return is_news

    async def settle(self) -> None:
        """Powers the card off if its power was cut."""
        async with self._free:
            await self._settle()

    async def rest(self) -> None:
        """Waits until no call is under way."""
        async with self._free:
            pass

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


class Insertion(Card):
    """One stay of a card in a slot: the same card, put in again, makes another.

    Whoever observes the slot sees what the reader does with the card.

    Args:
        slot: the slot.
        contacts: the way to the card.
    """

    def __init__(self, slot: "Slot", contacts: Contacts) -> None:
        self._slot = slot
        self._contacts = contacts

    @property
    def card(self) -> Card:
        """The card itself."""
        return self._contacts.card

    async def power_on(self) -> ATR:
        """See `Card.power_on`."""
        try:
            atr = await self._contacts.power_on()
        except Exception as error:
            self._tell_failure(error)
            raise
        for observer in self._slot.observers:
            observer.powered_on(self._slot, atr.encode())
        return atr

    async def power_off(self) -> None:
        """See `Card.power_off`."""
        self._tell_power_off()
        await self._contacts.power_off()

    async def transmit(self, command: bytes) -> bytes:
        """See `Card.transmit`."""
        begin = trio.current_time()
        try:
            response = await self._contacts.transmit(command)
        except Exception as error:
            self._tell_failure(error)
            raise
        seconds = trio.current_time() - begin
        for observer in self._slot.observers:
            observer.transmitted(self._slot, command, response, seconds)
        return response

    def cut_power(self) -> bool:
        """See `Contacts.cut_power`."""
        if self._contacts.has_power:
            self._tell_power_off()
        return self._contacts.cut_power()

    async def settle(self) -> None:
        """See `Contacts.settle`."""
        await self._contacts.settle()

    async def rest(self) -> None:
        """See `Contacts.rest`."""
        await self._contacts.rest()

    def _tell_power_off(self) -> None:
        for observer in self._slot.observers:
            observer.powered_off(self._slot)

    def _tell_failure(self, error: Exception) -> None:
        for observer in self._slot.observers:
            observer.failed(self._slot, error)


class Slot:
    """One slot.

    Args:
        card: what is in it from the start.
        index: its number in the reader (bSlot).
    """

    def __init__(self, card: Card | None = None, index: int = 0) -> None:
        self.index: Final = index
        self._insertion: Insertion | None = None
        self._unplugged = False
        self._observers: list[SlotObserver] = []
        self._changed = trio.Event()
        if card is not None:
            self.insert(card)

    @property
    def name(self) -> str:
        """What to call it before people."""
        return f"slot {self.index}"

    @property
    def observers(self) -> Sequence[SlotObserver]:
        """Those who look on."""
        return self._observers

    def observe(self, observer: SlotObserver) -> None:
        """Has somebody look on, who is told at once of a card that is there already."""
        self._observers.append(observer)
        if self._insertion is not None:
            observer.inserted(self)

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
        self._tell_removal()
        self._insertion = Insertion(self, contacts_of(card))
        for observer in self._observers:
            observer.inserted(self)
        self._announce()

    def remove(self) -> None:
        """Takes the card out, if there is one."""
        self._tell_removal()
        self._insertion = None
        self._announce()

    async def withdraw(self) -> None:
        """Takes the card out, and waits for the end of a call that it is at work for."""
        insertion = self._insertion
        self.remove()
        if insertion is not None:
            await insertion.rest()

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

    def _tell_removal(self) -> None:
        if self._insertion is not None:
            for observer in self._observers:
                observer.removed(self)

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
