# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

import structlog
import trio
import trio.testing

from cards import echo_card
from ccidd.reader.slot import Slot
from ccidd.service.supply import RETRY_DELAY, CardSupply, Filling, FixedCard, fill


class Hardware(CardSupply):
    """Two slots, one of which has a card, until something breaks."""

    @property
    def slot_count(self) -> int:
        return 2

    def __init__(self) -> None:
        self.broken = trio.Event()
        self.runs = 0

    async def run(self, slots: Sequence[Slot]) -> None:
        self.runs += 1
        slots[1].insert(echo_card())
        await self.broken.wait()
        raise ZeroDivisionError


def test_slots_are_filled_in_order_and_the_rest_stays_empty() -> None:
    first, last = echo_card(), echo_card()
    slots, fillings = fill([FixedCard(first), Hardware(), FixedCard(last)], 6)
    cards = [None if slot.insertion is None else slot.insertion.card for slot in slots]
    assert cards == [first, None, None, last, None, None]
    assert [[slot.name for slot in filling.slots] for filling in fillings] == [
        ["slot 0"],
        ["slot 1", "slot 2"],
        ["slot 3"],
    ]


async def test_a_supply_that_fails_leaves_its_slots_empty_and_begins_anew(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hardware = Hardware()
    slots = [Slot(index=0), Slot(index=1)]
    nursery.start_soon(Filling(hardware, slots).run)
    await trio.testing.wait_all_tasks_blocked()
    assert slots[1].insertion is not None
    with structlog.testing.capture_logs() as logs:
        hardware.broken.set()
        await trio.testing.wait_all_tasks_blocked()
    assert [(each["event"], each["slots"]) for each in logs] == [
        ("card_supply_fault", ["slot 0", "slot 1"])
    ]
    assert [slot.insertion for slot in slots] == [None, None]
    hardware.broken = trio.Event()
    await trio.sleep(RETRY_DELAY)
    await trio.testing.wait_all_tasks_blocked()
    assert hardware.runs == 2
    assert slots[1].insertion is not None
