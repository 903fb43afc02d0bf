# SPDX-License-Identifier: Apache-2.0
"""What happens in the service, for those who want to hear of it.

Names and data are those of QMP's events: upper case, and keys with hyphens.
"""

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

_MAX_WAITING: Final = 256
"""Events that wait for a subscriber; of more it loses the oldest."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        name: what.
        data: which reader, slot and so on.
        time: when, in seconds since 1970.
    """

    name: str
    data: Mapping[str, JSON]
    time: float


class Subscription:
    """What one subscriber has yet to hear.

    Attributes:
        lost: how many events it did not hear of, because it was slow.
    """

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._arrived = trio.Event()
        self.lost = 0

    @property
    def waiting(self) -> int:
        """How many events wait."""
        return len(self._waiting)

    def put(self, event: Event) -> None:
        """Adds an event."""
        if len(self._waiting) == _MAX_WAITING:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append(event)
        self._arrived.set()

    async def next(self) -> Event:
        """Waits for the next event, and gives it."""
        while not self._waiting:
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self._waiting.popleft()


class Events:
    """Passes events on."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []

    def emit(self, name: str, **data: JSON) -> None:
        """Tells all subscribers; it neither waits nor fails.

        Args:
            name: what happened.
            data: which reader, slot and so on; an underscore in a name stands for a hyphen.
        """
        if not self._subscriptions:
            return
        named = {key.replace("_", "-"): value for key, value in data.items()}
        event = Event(name, named, time.time())
        for subscription in self._subscriptions:
            subscription.put(event)

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Gives what happens from now on."""
        subscription = Subscription()
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
