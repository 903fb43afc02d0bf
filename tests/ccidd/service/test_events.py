# SPDX-License-Identifier: Apache-2.0
import trio
import trio.testing

from ccidd.service.events import Events


async def test_subscribers_hear_what_happens_from_then_on() -> None:
    events = Events()
    events.emit("CARD_INSERTED", slot=0)
    with events.subscribe() as subscription:
        events.emit("PIN_FAILED", reader="alice", tries_left=2)
        event = await subscription.next()
    assert (event.name, event.data) == ("PIN_FAILED", {"reader": "alice", "tries-left": 2})
    events.emit("CARD_REMOVED", slot=0)
    with trio.move_on_after(0):
        await subscription.next()
        raise AssertionError("it is subscribed no more")


async def test_a_slow_subscriber_loses_the_oldest_and_others_nothing(
    nursery: trio.Nursery,
) -> None:
    events = Events()
    heard: list[object] = []

    async def hear() -> None:
        with events.subscribe() as subscription:
            while True:
                heard.append((await subscription.next()).data["n"])

    nursery.start_soon(hear)
    await trio.testing.wait_all_tasks_blocked()
    with events.subscribe() as slow:
        for n in range(300):
            events.emit("COUNTED", n=n)
            await trio.testing.wait_all_tasks_blocked()
        assert heard == list(range(300))
        assert slow.lost == 44
        assert (await slow.next()).data["n"] == 44
    nursery.cancel_scope.cancel()
