# SPDX-License-Identifier: Apache-2.0
"""The readers of vscclient, of which the guest sees one: QEMU's usb-ccid has a single slot.

vscclient tells QEMU of each of its readers, and QEMU gives all of them the number 0: the card that
was put in last is seen, and the first reader gets its commands. Here the readers have numbers of
their own, and the guest sees the selected one. Until one is selected, that is the first with a card
in it, for as long as that card is there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from ccidd.reader.slot import Insertion, Slot


@dataclass(slots=True)
class Reader:
    """A reader.

    Attributes:
        describe: gives its name.
        slot: where its card comes and goes.
        is_ejected: whether the card was taken out by command, and is there still.
    """

    describe: Callable[[], str]
    slot: Slot
    is_ejected: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return self.describe()

    @property
    def insertion(self) -> Insertion | None:
        """The card that can be seen in it."""
        return None if self.is_ejected else self.slot.insertion


class Readers:
    """The readers, by their numbers.

    Args:
        readers: the readers; the first has the number 0.
        guest: the slot that the guest sees.
    """

    def __init__(self, readers: Sequence[Reader], guest: Slot) -> None:
        self._readers = readers
        self._guest = guest
        self._current = 0
        self._is_selected = False
        self._shown: Insertion | None = None
        self._show()

    @property
    def current(self) -> int:
        """The number of the reader that the guest sees."""
        return self._current

    def __len__(self) -> int:
        return len(self._readers)

    def __getitem__(self, number: int) -> Reader:
        return self._readers[number]

    def select(self, number: int) -> None:
        """Shows a reader to the guest, and no other until another is selected."""
        self._current, self._is_selected = number, True
        self._show()

    def insert(self, number: int) -> bool:
        """Puts a card back that was taken out; False if there is none, or it is in already."""
        reader = self._readers[number]
        if not reader.is_ejected:
            return False
        reader.is_ejected = False
        self._show()
        return True

    def remove(self, number: int) -> bool:
        """Takes a card out; False if there is none."""
        reader = self._readers[number]
        if reader.insertion is None:
            return False
        reader.is_ejected = True
        self._show()
        return True

    async def run(self) -> None:
        """Follows the cards that come and go, until it is cancelled."""
        async with trio.open_nursery() as nursery:
            for reader in self._readers:
                nursery.start_soon(self._follow, reader)

    async def _follow(self, reader: Reader) -> None:
        while True:
            insertion = reader.slot.insertion
            if insertion is None:
                # What was taken out by command is there no more, and what comes is another card.
                reader.is_ejected = False
            self._show()
            await reader.slot.wait_until_not(insertion)

    def _show(self) -> None:
        if not self._is_selected and self._readers[self._current].slot.insertion is None:
            occupied = (n for n, each in enumerate(self._readers) if each.slot.insertion)
            self._current = next(occupied, self._current)
        insertion = self._readers[self._current].insertion
        if insertion is self._shown:
            return
        self._shown = insertion
        if insertion is None:
            self._guest.remove()
        else:
            self._guest.insert(insertion.card)
