# SPDX-License-Identifier: Apache-2.0
"""A PIN: what is remembered of it, and whether it has been verified.

Source: ISO/IEC 7816-4:2013, 11.5.6 (VERIFY). A try is spent, durably, before the PIN is compared,
so that whoever cuts the power in between has lost it.
"""

from abc import ABC, abstractmethod

import trio

from ccid_protocol.apdu import StatusWord, tries_left
from ccidd.card.application import CardError


class PinMemory(ABC):
    """Where a PIN and its retry counter are remembered, longer than the card is powered."""

    @abstractmethod
    async def tries_left(self) -> int:
        """Tells how many wrong tries the PIN still stands; 0 means that it is blocked."""

    @abstractmethod
    async def spend_try(self) -> bool:
        """Takes one try, durable before this returns.

        Returns:
            False, with nothing changed, if there was none left.
        """

    @abstractmethod
    async def restore_tries(self) -> None:
        """Gives all tries back, durable before this returns."""

    @abstractmethod
    async def matches(self, candidate: bytes) -> bool:
        """Compares in a time that does not tell how much of the candidate is right."""


class Pin:
    """A PIN of a powered card.

    Args:
        memory: where it is remembered.
    """

    def __init__(self, memory: PinMemory) -> None:
        self._memory = memory
        self.verified = False

    async def verify(self, candidate: bytes) -> None:
        """Compares the PIN.

        Raises:
            CardError: 63CX if it is wrong and X tries are left, 6983 if it is blocked.
        """
        self.verified = False
        # A host that goes away in between must not cost the holder of the right PIN a try.
        with trio.CancelScope(shield=True):
            if not await self._memory.spend_try():
                raise CardError(StatusWord.AUTHENTICATION_METHOD_BLOCKED)
            if not await self._memory.matches(candidate):
                raise CardError(tries_left(await self._memory.tries_left()))
            await self._memory.restore_tries()
            self.verified = True

    async def check_status(self) -> None:
        """Answers the question whether the PIN is verified, which costs no try.

        Raises:
            CardError: It is not: 63CX with X tries left, 6983 if it is blocked.
        """
        if self.verified:
            return
        left = await self._memory.tries_left()
        raise CardError(tries_left(left) if left else StatusWord.AUTHENTICATION_METHOD_BLOCKED)

    def end(self) -> None:
        """Ends what the PIN has opened."""
        self.verified = False
