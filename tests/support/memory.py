# SPDX-License-Identifier: Apache-2.0
"""A card's memory that lasts only as long as the test runs.

tests/ccidd/card/test_memory.py holds it against the one that is kept in the database.
"""

from collections.abc import Mapping

import trio

from ccidd.card.memory import CardMemory
from ccidd.card.pin import PinMemory


class VolatilePin(PinMemory):
    """Remembers a PIN and its tries in this object."""

    def __init__(self, pin: bytes, tries: int = 3) -> None:
        self._pin = pin
        self._max_tries = self._tries = tries

    async def tries_left(self) -> int:
        await trio.lowlevel.checkpoint()
        return self._tries

    async def max_tries(self) -> int:
        await trio.lowlevel.checkpoint()
        return self._max_tries

    async def compare(self, candidate: bytes) -> bool:
        await trio.lowlevel.checkpoint()
        if not self._tries:
            return False
        self._tries -= 1
        if candidate != self._pin:
            return False
        self._tries = self._max_tries
        return True

    async def change(self, new: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._pin = new
        self._tries = self._max_tries

    async def set_max_tries(self, count: int) -> None:
        await trio.lowlevel.checkpoint()
        self._max_tries = self._tries = count


class VolatileMemory(CardMemory):
    """Remembers a card's contents and PINs in this object."""

    def __init__(self, pins: Mapping[int, PinMemory]) -> None:
        self._pins = pins
        self._contents: dict[str, bytes] = {}

    @property
    def contents(self) -> Mapping[str, bytes]:
        return self._contents

    async def store(self, changes: Mapping[str, bytes | None]) -> None:
        await trio.lowlevel.checkpoint()
        for name, value in changes.items():
            if value is None:
                self._contents.pop(name, None)
            else:
                self._contents[name] = value

    def pin(self, reference: int) -> PinMemory:
        return self._pins[reference]
