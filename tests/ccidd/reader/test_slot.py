# SPDX-License-Identifier: Apache-2.0
import pytest
import trio
import trio.testing

from cards import ScriptedCard, echo_card
from ccidd.reader.observer import SlotObserver
from ccidd.reader.slot import Slot


async def test_whoever_waits_sees_each_change(nursery: trio.Nursery) -> None:
    first, second = echo_card(), echo_card()
    slot = Slot()
    seen: list[object] = []

    async def follow() -> None:
        while not slot.unplugged:
            insertion = slot.insertion
            seen.append(insertion and insertion.card)
            await slot.wait_until_not(insertion)
        seen.append("unplugged")

    nursery.start_soon(follow)
    await trio.testing.wait_all_tasks_blocked()
    slot.insert(first)
    await trio.testing.wait_all_tasks_blocked()
    slot.insert(second)
    await trio.testing.wait_all_tasks_blocked()
    slot.remove()
    await trio.testing.wait_all_tasks_blocked()
    slot.unplug()
    await trio.testing.wait_all_tasks_blocked()
    assert seen == [None, first, second, None, "unplugged"]


async def test_there_is_no_card_in_a_reader_that_is_unplugged() -> None:
    slot = Slot(echo_card())
    slot.unplug()
    assert slot.insertion is None
    await slot.wait_until_not(None)


async def test_a_card_that_is_taken_out_and_put_back_counts_as_changed(
    nursery: trio.Nursery,
) -> None:
    card = echo_card()
    slot = Slot(card)
    done = trio.Event()

    async def wait() -> None:
        await slot.wait_until_not(slot.insertion)
        done.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    slot.remove()
    slot.insert(card)
    await done.wait()


class Notes(SlotObserver):
    """Notes all that it sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def inserted(self, slot: Slot) -> None:
        self.seen.append(("inserted", slot.index))

    def removed(self, slot: Slot) -> None:
        self.seen.append(("removed", slot.index))

    def powered_on(self, slot: Slot, atr: bytes) -> None:
        self.seen.append(("on", slot.index, atr))

    def powered_off(self, slot: Slot) -> None:
        self.seen.append(("off", slot.index))

    def transmitted(self, slot: Slot, command: bytes, response: bytes, seconds: float) -> None:
        self.seen.append(("apdu", slot.index, command, response, seconds))

    def failed(self, slot: Slot, error: Exception) -> None:
        self.seen.append(("failed", slot.index, str(error)))


async def test_observers_see_what_the_reader_does_with_a_card(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def answer(command: bytes) -> bytes:
        await trio.sleep(1.5)
        if command == b"fault":
            raise ZeroDivisionError("a fault")
        return b"\x90\0"

    notes = Notes()
    slot = Slot(ScriptedCard(answer), 3)
    slot.observe(notes)
    insertion = slot.insertion
    assert insertion is not None
    atr = await insertion.power_on()
    await insertion.transmit(b"command")
    with pytest.raises(ZeroDivisionError):
        await insertion.transmit(b"fault")
    assert insertion.cut_power()
    assert not insertion.cut_power()
    await insertion.settle()
    slot.insert(echo_card())
    slot.remove()
    slot.remove()
    assert notes.seen == [
        ("inserted", 3),
        ("on", 3, atr.encode()),
        ("apdu", 3, b"command", b"\x90\0", 1.5),
        ("failed", 3, "a fault"),
        ("off", 3),
        ("removed", 3),
        ("inserted", 3),
        ("removed", 3),
    ]
