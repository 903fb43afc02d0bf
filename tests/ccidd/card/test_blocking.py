# SPDX-License-Identifier: Apache-2.0
import pytest
import trio

from ccidd.card.blocking import BlockingCalls


class Thing:
    def __init__(self) -> None:
        self.history: list[str] = []

    def call(self) -> None:
        self.history.append("called")

    def close(self) -> None:
        self.history.append("closed")


async def test_a_thread_that_begins_late_does_not_touch_what_was_closed() -> None:
    thing = Thing()
    calls = BlockingCalls(thing, trio.CapacityLimiter(1))
    await calls.run(thing.call)
    await calls.close()
    # What the thread of a cancelled call does, which was not scheduled until now.
    with pytest.raises(trio.ClosedResourceError):
        await trio.to_thread.run_sync(calls._make, thing.call)
    assert thing.history == ["called", "closed"]
