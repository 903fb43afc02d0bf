# SPDX-License-Identifier: Apache-2.0
import trio
import trio.testing

from cards import echo_card
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
