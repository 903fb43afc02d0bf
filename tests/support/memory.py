# SPDX-License-Identifier: Apache-2.0
"""A PIN that is remembered only as long as the test runs.

tests/ccidd/card/test_pin.py holds it against the one that is kept in the database.
"""

import trio

from ccidd.card.pin import PinMemory


class VolatilePin(PinMemory):
    """Remembers a PIN and its tries in this object."""

    def __init__(self, pin: bytes, tries: int = 3) -> None:
        self._pin = pin
        self._max_tries = self._tries = tries

    async def tries_left(self) -> int:
        await trio.lowlevel.checkpoint()
        return self._tries

    async def spend_try(self) -> bool:
        await trio.lowlevel.checkpoint()
        if not self._tries:
            return False
        self._tries -= 1
        return True

    async def restore_tries(self) -> None:
        await trio.lowlevel.checkpoint()
        self._tries = self._max_tries

    async def matches(self, candidate: bytes) -> bool:
        await trio.lowlevel.checkpoint()
        return candidate == self._pin
