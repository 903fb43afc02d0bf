# SPDX-License-Identifier: Apache-2.0
"""What a host knows of a card's comings and goings, and what it is yet to be told.

Source: USB CCID Rev 1.1, 6.3.1 (RDR_to_PC_NotifySlotChange). After a reset or a configuration the
host takes all slots for empty.

A notification that was sent may never reach the host, whose driver can stop listening meanwhile. So
it is in doubt until the host hears of the card by an answer, which holds its status as well.
"""

from ccid_protocol.ccid import SlotChange


class Presence:
    """The notifications of one slot.

    Args:
        present: whether a card is in it from the start.
    """

    def __init__(self, *, present: bool) -> None:
        self._present = present
        self._told = False
        self.changed = present
        """Whether the host is yet to be told of a change, be it to and fro."""
        self.known = True
        """Whether the host knows for sure what it was told."""

    def change(self, *, present: bool) -> None:
        """Takes note that a card came, went, or was replaced by another."""
        self._present = present
        self.changed = True

    def take(self) -> SlotChange:
        """Gives what a notification says of the slot, and takes it for told."""
        if self.changed:
            self.known = False
        told = SlotChange(self._present, self.changed)
        self._told = self._present
        self.changed = False
        return told

    def repeat(self) -> None:
        """Has the host told again, unless it knows."""
        if not self.known:
            self.changed = self.known = True

    def start_over(self) -> None:
        """The host takes the slot for empty, or is about to; it may have thought otherwise."""
        self.changed = self.changed or self._present or self._told
        self.known = True
