# SPDX-License-Identifier: Apache-2.0
"""Calls that block, in worker threads that a caller need not wait for.

A thread cannot be stopped. Where its caller is cancelled it is left alone, and what it worked on is
closed as soon as it comes back, by the thread itself.
"""

import math
import threading
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import trio

_Result = TypeVar("_Result")

CLOSE_TIMEOUT: Final = 2.0
"""Seconds that closing may take before it is left alone as well."""


# What is to be closed must be, however many threads are left alone with something that hangs.
_CLOSERS: Final = trio.CapacityLimiter(math.inf)


class Closable(Protocol):
    """What calls are made on."""

    def close(self) -> None:
        """Gives up what it holds; it may block, and be called more than once."""


class BlockingCalls:
    """The calls on one thing, of which one is made at a time.

    Args:
        thing: the thing.
        limiter: how many threads there may be, those left alone included.
    """

    def __init__(self, thing: Closable, limiter: trio.CapacityLimiter) -> None:
        self._thing = thing
        self._limiter = limiter
        self._lock = threading.Lock()
        self._is_called = False
        self.abandoned = threading.Event()
        """Set once nobody waits for any result: a call that waits for something may give up."""

    async def run(self, call: Callable[[], _Result]) -> _Result:
        """Makes a call; if this is cancelled, the thing is closed and of no more use."""
        try:
            return await trio.to_thread.run_sync(
                self._make, call, abandon_on_cancel=True, limiter=self._limiter
            )
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self.close()
            raise

    async def close(self) -> None:
        """Closes the thing, or has the call do it that is at work on it."""
        with self._lock:
            was_abandoned = self.abandoned.is_set()
            self.abandoned.set()
            if was_abandoned or self._is_called:
                return
        with trio.move_on_after(CLOSE_TIMEOUT):
            await trio.to_thread.run_sync(
                self._thing.close, abandon_on_cancel=True, limiter=_CLOSERS
            )

    def _make(self, call: Callable[[], _Result]) -> _Result:
        with self._lock:
            if self.abandoned.is_set():
                # A thread may begin late, when the thing is being closed already.
                raise trio.ClosedResourceError
            self._is_called = True
        try:
            return call()
        finally:
            with self._lock:
                self._is_called = False
                is_left_alone = self.abandoned.is_set()
            if is_left_alone:
                self._thing.close()
