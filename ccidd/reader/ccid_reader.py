# SPDX-License-Identifier: Apache-2.0
"""A CCID reader: its slots side by side, and what it notifies the host of.

Source: USB CCID Rev 1.1, 3 and 6. It knows no bus: messages come in and go out as data.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import trio

from ccid_protocol.ccid import (
    BadMessage,
    Command,
    HardwareError,
    IccStatus,
    NotifySlotChange,
    Offset,
    Response,
    failure,
)
from ccidd.reader.ccid_slot import CcidSlot, Respond
from ccidd.reader.pinentry.source import PinSource
from ccidd.reader.profile import ReaderProfile
from ccidd.reader.secure import PinPad
from ccidd.reader.slot import Slot
from ccidd.reader.witness import Witness

_N = TypeVar("_N", HardwareError, NotifySlotChange)


def _respond_before(witness: Witness, respond: Respond, response: Response) -> None:
    witness.response(response)
    respond(response)


class CcidReader:
    """A reader with one or more slots.

    Args:
        slots: the slots and their cards, as many as the profile says.
        profile: what the reader says of itself.
        respond: sends an answer to the host; must not wait.
        announce: called when there is something to notify the host of; must not wait.
        pins: where PINs come from that are entered at the reader, if there is such a place.
        witness: who looks on.
    """

    def __init__(  # noqa: PLR0913 (each is another side of it)
        self,
        slots: Sequence[Slot],
        profile: ReaderProfile,
        respond: Respond,
        announce: Callable[[], None],
        pins: PinSource | None = None,
        *,
        witness: Witness | None = None,
    ) -> None:
        assert len(slots) == profile.slots
        self._witness = witness
        if witness is not None:
            respond = partial(_respond_before, witness, respond)
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
        if self._witness is not None:
            self._witness.command(command)
        if command.slot >= len(self._slots):
            self._respond(failure(command, IccStatus.ABSENT, Offset.SLOT))
            return
        self._slots[command.slot].submit(command)

    def abort(self, slot: int, seq: int) -> bool:
        """Takes the control request ABORT; False if there is no such slot."""
        if slot >= len(self._slots):
            return False
        self._slots[slot].abort(seq)
        return True

    @property
    def is_busy(self) -> bool:
        """Whether any command is being carried out."""
        return any(slot.is_busy for slot in self._slots)

    def forget_commands(self) -> None:
        """Ends what a host was about that is there no more, with no answer; no card loses power."""
        for slot in self._slots:
            slot.forget_command()

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
        return self._seen(NotifySlotChange(tuple(slot.presence.take() for slot in self._slots)))

    def take_hardware_error(self) -> HardwareError | None:
        """Gives a failure of a slot that the host has not been notified of, and forgets it."""
        for slot in self._slots:
            if slot.hardware_error is not None:
                error, slot.hardware_error = slot.hardware_error, None
                return self._seen(error)
        return None

    def _seen(self, notification: _N) -> _N:
        if self._witness is not None:
            self._witness.notification(notification)
        return notification

    def repeat_notification(self) -> None:
        """Has the host told again of what it may not have heard."""
        for slot in self._slots:
            slot.presence.repeat()
