# SPDX-License-Identifier: Apache-2.0
"""A PIN: what is remembered of it, and whether it has been verified.

Source: ISO/IEC 7816-4:2013, 11.5.6 (VERIFY).
"""

from abc import ABC, abstractmethod
from typing import Final

import trio

from ccid_protocol.apdu import StatusWord, tries_left
from ccidd.card.application import CardError
from ccidd.keys.key import KeyUnavailableError, LoginNeededError

PIN_SIZE: Final = 8
"""Bytes of a PIN on the wire, filled up with `PIN_PADDING`."""

PIN_PADDING: Final = b"\xff"

_MIN_DIGITS: Final = 6


def is_well_formed(pin: bytes, *, numeric: bool = True) -> bool:
    """Tells whether this, as it is on the wire, can be a PIN: six to eight digits, or anything.

    Source: SP 800-73-4, part 2, 2.4.3; CACs have the same.
    """
    digits = pin.rstrip(PIN_PADDING)
    if numeric and not (len(digits) >= _MIN_DIGITS and digits.isdigit()):
        return False
    return len(pin) == PIN_SIZE and len(digits) > 0


class PinMemory(ABC):
    """Where a PIN and its retry counter are remembered, longer than the card is powered."""

    @abstractmethod
    async def tries_left(self) -> int:
        """Tells how many wrong tries the PIN still stands; 0 means that it is blocked."""

    @abstractmethod
    async def max_tries(self) -> int:
        """Tells how many wrong tries in a row block the PIN, 1 to 15."""

    @abstractmethod
    async def compare(self, candidate: bytes) -> bool:
        """Compares, at the price of a try that a match gives back.

        The try is spent, durably, before the comparison, so that whoever cuts the power in between
        has lost it. The comparison takes a time that does not tell how much of the candidate is
        right. The caller does not cancel it.

        Returns:
            Whether it was the PIN; False without a comparison if no try was left.
        """

    @abstractmethod
    async def change(self, new: bytes) -> None:
        """Sets the PIN and gives all tries back, durable before this returns.

        Args:
            new: the PIN as it is on the wire.
        """

    async def replace(self, current: bytes, new: bytes) -> None:  # noqa: ARG002 (others use it)
        """Changes the PIN from one that was just compared; else as `change`.

        Args:
            current: the PIN that was compared, as it is on the wire.
            new: the new one.

        Raises:
            CardError: What remembers the PIN does not take that one.
        """
        await self.change(new)

    def end(self) -> None:  # noqa: B027 (most have nothing to end)
        """Hears that the PIN's holder has to enter it again; does not wait for anything."""

    @property
    def is_token_pin(self) -> bool:
        """Whether it is the PIN of the token that the keys are on.

        Such a PIN may be anything, and its comparison opens the keys.
        """
        return False

    @abstractmethod
    async def set_max_tries(self, count: int) -> None:
        """Sets how many wrong tries block the PIN, and gives them all, durable before this returns.

        Args:
            count: 1 to 15.
        """


class Pin:
    """A PIN of a powered card.

    Args:
        memory: where it is remembered.
    """

    def __init__(self, memory: PinMemory) -> None:
        self.memory: Final = memory
        self.verified = False

    async def verify(self, candidate: bytes) -> None:
        """Compares the PIN.

        Raises:
            CardError: 63CX if it is wrong and X tries are left, 6983 if it is blocked.
        """
        self.verified = False
        # A host that goes away in between must not cost the holder of the right PIN a try.
        with trio.CancelScope(shield=True):
            blocked = not await self.memory.tries_left()
            if not await self.memory.compare(candidate):
                left = 0 if blocked else await self.memory.tries_left()
                raise CardError(
                    StatusWord.AUTHENTICATION_METHOD_BLOCKED if blocked else tries_left(left)
                )
            self.verified = True

    async def change(self, current: bytes, new: bytes) -> None:
        """Compares the PIN, and sets it to another if it is right.

        Raises:
            CardError: It is wrong or blocked, as for `verify`, or cannot be changed to that.
        """
        # A host that goes away in between finds a PIN that is the old one or the new one.
        with trio.CancelScope(shield=True):
            await self.verify(current)
            await self.memory.replace(current, new)

    async def check_not_blocked(self) -> None:
        """Refuses what needs a try when none is left, whatever else is wrong with it.

        Raises:
            CardError: 6983.
        """
        if not await self.memory.tries_left():
            raise CardError(StatusWord.AUTHENTICATION_METHOD_BLOCKED)

    async def check_status(self) -> None:
        """Answers the question whether the PIN is verified, which costs no try.

        Raises:
            CardError: It is not: 63CX with X tries left, 6983 if it is blocked.
        """
        if self.verified:
            return
        left = await self.memory.tries_left()
        raise CardError(tries_left(left) if left else StatusWord.AUTHENTICATION_METHOD_BLOCKED)

    def must_be_entered_again(self, error: KeyUnavailableError) -> bool:
        """Tells whether a key is unavailable until the PIN is verified again; then ends its status.

        So it is if the PIN is that of the key's token, which somebody has changed elsewhere, say.
        """
        again = isinstance(error, LoginNeededError) and self.memory.is_token_pin
        if again:
            self.end()
        return again

    def end(self) -> None:
        """Ends what the PIN has opened."""
        self.verified = False
        self.memory.end()
