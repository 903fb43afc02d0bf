# SPDX-License-Identifier: Apache-2.0
"""Whoever looks on at what a reader does with the cards in its slots.

This is where all kinds of cards and all front doors can be seen in the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccidd.reader.slot import Slot


class SlotObserver:
    """Sees what happens in slots. It must neither wait nor fail.

    What it sees holds PINs and keys. Each subclass is interested in something else.
    """

    def inserted(self, slot: Slot) -> None:
        """Sees a card come, which may be the same as before."""

    def removed(self, slot: Slot) -> None:
        """Sees the card go."""

    def powered_on(self, slot: Slot, atr: bytes) -> None:
        """Sees an answer to reset."""

    def powered_off(self, slot: Slot) -> None:
        """Sees that the reader has no more to do with the card; it may have had no power."""

    def transmitted(self, slot: Slot, command: bytes, response: bytes, seconds: float) -> None:
        """Sees a command and its response.

        Args:
            slot: the slot.
            command: the command APDU.
            response: the response APDU.
            seconds: how long the card took, with what it waited for.
        """

    def failed(self, slot: Slot, error: Exception) -> None:
        """Sees that the card did not answer: it has gone, or is at fault."""
