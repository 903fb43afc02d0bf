# SPDX-License-Identifier: Apache-2.0
"""Which card the guest sees, when cards come and go and readers are selected."""

import trio
import trio.testing

from ccid_protocol.atr import ATR
from ccidd.card.card import Card
from ccidd.reader.slot import Slot
from ccidd.service.vscclient.readers import Reader, Readers


class NamedCard(Card):
    """A card that does nothing."""

    async def power_on(self) -> ATR:
        raise NotImplementedError

    async def power_off(self) -> None:
        raise NotImplementedError

    async def transmit(self, command: bytes) -> bytes:
        raise NotImplementedError


ONE, TWO, OTHER = NamedCard(), NamedCard(), NamedCard()


class Desk:
    """Some readers, and what the guest sees of them."""

    def __init__(self, *cards: Card | None) -> None:
        self.slots = [Slot(card) for card in cards]
        self._guest = Slot()
        self.readers = Readers([Reader(str, slot) for slot in self.slots], self._guest)

    def seen(self) -> Card | None:
        insertion = self._guest.insertion
        return insertion.card if insertion else None

    async def settles(self) -> None:
        await trio.testing.wait_all_tasks_blocked()


async def test_the_first_card_there_is_is_seen_until_it_goes(nursery: trio.Nursery) -> None:
    desk = Desk(None, None, None)
    nursery.start_soon(desk.readers.run)
    await desk.settles()
    assert desk.seen() is None
    desk.slots[1].insert(ONE)
    await desk.settles()
    assert (desk.seen(), desk.readers.current) == (ONE, 1)
    desk.slots[0].insert(TWO)
    await desk.settles()
    assert (desk.seen(), desk.readers.current) == (ONE, 1)
    desk.slots[1].remove()
    await desk.settles()
    assert (desk.seen(), desk.readers.current) == (TWO, 0)
    desk.slots[0].remove()
    await desk.settles()
    assert desk.seen() is None
    nursery.cancel_scope.cancel()


async def test_a_selected_reader_is_seen_whether_a_card_is_in_it(nursery: trio.Nursery) -> None:
    desk = Desk(ONE, TWO, None)
    nursery.start_soon(desk.readers.run)
    assert desk.seen() is ONE
    desk.readers.select(2)
    assert desk.seen() is None
    desk.slots[2].insert(OTHER)
    await desk.settles()
    assert desk.seen() is OTHER
    desk.slots[2].remove()
    await desk.settles()
    assert desk.seen() is None
    desk.readers.select(1)
    assert desk.seen() is TWO
    nursery.cancel_scope.cancel()


async def test_a_card_that_was_taken_out_by_command_comes_back_by_command(
    nursery: trio.Nursery,
) -> None:
    desk = Desk(ONE, TWO)
    nursery.start_soon(desk.readers.run)
    assert not desk.readers.insert(0)
    assert desk.readers.remove(0)
    assert not desk.readers.remove(0)
    # No other takes its place.
    assert (desk.seen(), desk.readers.current) == (None, 0)
    assert desk.readers.insert(0)
    assert desk.seen() is ONE
    # Of a reader that is not seen, the guest sees nothing.
    assert desk.readers.remove(1)
    assert desk.seen() is ONE
    desk.readers.select(1)
    assert desk.seen() is None
    nursery.cancel_scope.cancel()


async def test_a_card_that_has_gone_meanwhile_is_not_taken_out_any_more(
    nursery: trio.Nursery,
) -> None:
    desk = Desk(ONE)
    nursery.start_soon(desk.readers.run)
    await desk.settles()
    assert desk.readers.remove(0)
    # Somebody else has reset it: it is the same, and still out.
    desk.slots[0].insert(ONE)
    await desk.settles()
    assert desk.seen() is None
    desk.slots[0].remove()
    await desk.settles()
    assert not desk.readers.insert(0)
    assert not desk.readers.remove(0)
    desk.slots[0].insert(TWO)
    await desk.settles()
    assert desk.seen() is TWO
    nursery.cancel_scope.cancel()


async def test_a_card_that_was_reset_is_inserted_anew(nursery: trio.Nursery) -> None:
    desk = Desk(ONE)
    nursery.start_soon(desk.readers.run)
    await desk.settles()
    before = desk._guest.insertion
    desk.slots[0].insert(ONE)
    await desk.settles()
    assert desk.seen() is ONE
    assert desk._guest.insertion is not before
    nursery.cancel_scope.cancel()
