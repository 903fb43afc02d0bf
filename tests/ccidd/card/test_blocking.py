# SPDX-License-Identifier: Apache-2.0
"""Threads that are left alone, and what becomes of the things that they work on."""

import threading

import pytest
import trio

from ccidd.card.blocking import BlockingCalls


class Thing:
    """Something that blocks until it is told not to."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.may_go = threading.Event()
        self.closed = threading.Event()

    def block(self) -> str:
        self.entered.set()
        assert self.may_go.wait(10)
        assert not self.closed.is_set()
        return "done"

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def thing() -> Thing:
    return Thing()


async def until(event: threading.Event) -> None:
    assert await trio.to_thread.run_sync(event.wait, 10)


async def test_a_call_gives_its_result_and_its_exception(thing: Thing) -> None:
    calls = BlockingCalls(thing, trio.CapacityLimiter(1))
    thing.may_go.set()
    assert await calls.run(thing.block) == "done"
    with pytest.raises(ZeroDivisionError):
        await calls.run(lambda: 1 // 0)
    assert not thing.closed.is_set()
    await calls.close()
    assert thing.closed.is_set()
    with pytest.raises(trio.ClosedResourceError):
        await calls.run(thing.block)


async def test_a_call_that_is_left_alone_closes_its_thing_when_it_comes_back(thing: Thing) -> None:
    calls = BlockingCalls(thing, trio.CapacityLimiter(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls.run, thing.block)
        await until(thing.entered)
        nursery.cancel_scope.cancel()
    assert calls.abandoned.is_set()
    await calls.close()
    assert not thing.closed.is_set()
    thing.may_go.set()
    await until(thing.closed)


async def test_a_thread_that_begins_late_does_not_touch_what_was_closed(thing: Thing) -> None:
    calls = BlockingCalls(thing, trio.CapacityLimiter(1))
    await calls.close()
    # What the thread of a cancelled call does, which was not scheduled until now.
    with pytest.raises(trio.ClosedResourceError):
        await trio.to_thread.run_sync(calls._make, thing.block)
    assert not thing.entered.is_set()


async def test_threads_that_are_left_alone_count(thing: Thing) -> None:
    limiter = trio.CapacityLimiter(1)
    with trio.move_on_after(0.1):
        await BlockingCalls(thing, limiter).run(thing.block)
    other = Thing()
    other.may_go.set()
    calls = BlockingCalls(other, limiter)
    with trio.move_on_after(0.1) as waiting:
        await calls.run(other.block)
    assert waiting.cancelled_caught
    # It never began; what it would have worked on is closed nevertheless.
    assert other.closed.is_set()
    assert not other.entered.is_set()
    thing.may_go.set()
    await until(thing.closed)
