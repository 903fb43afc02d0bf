# SPDX-License-Identifier: Apache-2.0
"""A CCID reader: its slots side by side, and what it notifies the host of.

Source: USB CCID Rev 1.1, 3 and 6. It knows no bus: messages come in and go out as data.
"""

from collections.abc import Callable, Sequence

import trio

from ccid_protocol.ccid import (
    BadMessage,
    Command,
    HardwareError,
    IccStatus,
    NotifySlotChange,
    Offset,
    failure,
)
from ccidd.reader.ccid_slot import CcidSlot, Respond
from ccidd.reader.pinentry.source import PinSource
from ccidd.reader.profile import ReaderProfile
from ccidd.reader.secure import PinPad
from ccidd.reader.slot import Slot


class CcidReader:
    """A reader with one or more slots.

    Args:
        slots: the slots and their cards, as many as the profile says.
        profile: what the reader says of itself.
        respond: sends an answer to the host; must not wait.
        announce: called when there is something to notify the host of; must not wait.
        pins: where PINs come from that are entered at the reader, if there is such a place.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        profile: ReaderProfile,
        respond: Respond,
        announce: Callable[[], None],
        pins: PinSource | None = None,
    ) -> None:
        assert len(slots) == profile.slots
        self._max_busy_slots = profile.class_descriptor().max_busy_slots
        self._respond = respond
        self._slots = []
        for index, slot in enumerate(slots):
            pad = None
            if pins is not None:
                pad = PinPad(pins, reader=profile.product, slot=index, card=slot.name)
            self._slots.append(CcidSlot(slot, profile, respond, announce, pad))

    async def run(self) -> None:
        """Carries out the commands of all slots, until it is cancelled."""
        async with trio.open_nursery() as nursery:
            for slot in self._slots:
                nursery.start_soon(slot.run)

    def submit(self, command: Command | BadMessage) -> None:
        """Takes a message of the host. It is answered by `respond`, now or later, just once."""
        if command.slot >= len(self._slots):
            self._respond(failure(command, IccStatus.ABSENT, Offset.SLOT))
            return
        busy = sum(slot.is_busy for slot in self._slots)
        is_busy = busy >= self._max_busy_slots
        self._slots[command.slot].submit(command, reader_is_busy=is_busy)

    def abort(self, slot: int, seq: int) -> bool:
        """Takes the control request ABORT; False if there is no such slot."""
        if slot >= len(self._slots):
            return False
        self._slots[slot].abort(seq)
        return True

    def forget_aborts(self) -> None:
        """Forgets the halves of aborts that still wait for the other."""
        for slot in self._slots:
            slot.forget_abort()

    def reset(self) -> None:
        """Does what a reset of the bus or a new configuration does.

        All cards are off, nothing is left to answer, and the host is to be told of each slot.
        """
        for slot in self._slots:
            slot.reset()

    def take_notification(self) -> NotifySlotChange | None:
        """Gives the changes that the host has not been notified of, and takes them for told."""
        if not any(slot.presence.changed for slot in self._slots):
            return None
        return NotifySlotChange(tuple(slot.presence.take() for slot in self._slots))

    def take_hardware_error(self) -> HardwareError | None:
        """Gives a failure of a slot that the host has not been notified of, and forgets it."""
        for slot in self._slots:
            if slot.hardware_error is not None:
                error, slot.hardware_error = slot.hardware_error, None
                return error
        return None

    def repeat_notification(self) -> None:
        """Has the host told again of what it may not have heard."""
        for slot in self._slots:
            slot.presence.repeat()
