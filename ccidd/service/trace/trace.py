# SPDX-License-Identifier: Apache-2.0
"""A trace: a reader's messages as transfers of a USB, with the remarks that explain them.

The file begins with the descriptors of the reader, since Wireshark knows by them that what follows
is CCID. Each message is one transfer, however many the host made of it. Over a front door that has
no USB the same messages stand for what was said.

Source: USB CCID Rev 1.1, 4; Universal Serial Bus Specification Rev 2.0, 9.4.3.
"""

import time
from collections.abc import Callable
from typing import Final

from ccid_protocol import capture, ccid
from ccid_protocol.capture import LINKTYPE_USB_LINUX_MMAPPED, Event, Transfer
from ccid_protocol.ccid import BadMessage, Command, Notification, NotifySlotChange, Response
from ccid_protocol.usb import (
    DescriptorType,
    SetupPacket,
    StandardRequest,
    TransferType,
)
from ccidd import __version__
from ccidd.reader.profile import ReaderProfile
from ccidd.reader.usb_reader import BULK_IN, BULK_OUT, INTERRUPT_IN, Descriptors
from ccidd.reader.witness import Witness
from ccidd.service.trace.tracefile import TraceFile

_DEVICE: Final = 1
"""The address of the reader on the bus that the trace pretends."""

_FROM_DEVICE: Final = 0x80


class Trace(Witness):
    """Writes what it sees.

    Args:
        file: the file, which belongs to the trace from now on.
        front_door: what the messages cross, for people.
        profile: the reader's profile.
        clock: gives the time, in nanoseconds since 1970.
    """

    def __init__(
        self,
        file: TraceFile,
        front_door: str,
        profile: ReaderProfile,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.file: Final = file
        self._clock = clock
        # Packets; those that were lost; and those that were lost since the last that was not.
        self._packets = 0
        self._lost = 0
        self._missing = 0
        self._transfers = 0
        self.file.write(
            capture.file_header(
                LINKTYPE_USB_LINUX_MMAPPED,
                application=f"ccidd {__version__}",
                interface=front_door,
            )
        )
        descriptors = Descriptors.of(profile)
        remark = "" if front_door == "usbredir" else f"over {front_door}, as CCID would say it"
        self._descriptor(DescriptorType.DEVICE, descriptors.device.encode(), remark)
        self._descriptor(DescriptorType.CONFIGURATION, descriptors.configuration.encode())

    def close(self) -> None:
        """Ends the file, which is written to its end a little later; see `TraceFile.wait`."""
        counts = capture.interface_statistics(
            self._clock(), received=self._packets, dropped=self._lost
        )
        self.file.close(counts)

    def command(self, command: Command | BadMessage) -> None:
        """See `Witness.command`."""
        if isinstance(command, BadMessage):
            header = bytes([command.message_type, 0, 0, 0, 0, command.slot, command.seq, 0, 0, 0])
            self._transfer(TransferType.BULK, BULK_OUT, header, "a message that is wrong; its head")
            return
        self._transfer(TransferType.BULK, BULK_OUT, ccid.encode(command))

    def response(self, response: Response) -> None:
        """See `Witness.response`."""
        self._transfer(TransferType.BULK, BULK_IN, ccid.encode(response))

    def notification(self, notification: Notification) -> None:
        """See `Witness.notification`."""
        remark = ""
        if isinstance(notification, NotifySlotChange):
            remark = ", ".join(
                f"slot {index}: a card" if change.present else f"slot {index}: no card"
                for index, change in enumerate(notification.slots)
                if change.changed
            )
        data = ccid.encode_notification(notification)
        self._transfer(TransferType.INTERRUPT, INTERRUPT_IN, data, remark)

    def _descriptor(self, kind: DescriptorType, data: bytes, remark: str = "") -> None:
        setup = SetupPacket(
            _FROM_DEVICE, StandardRequest.GET_DESCRIPTOR, kind << 8, length=len(data)
        )
        transfer = self._begin(TransferType.CONTROL, _FROM_DEVICE)
        now = self._clock()
        submission = transfer.encode(Event.SUBMISSION, now, setup=setup, length=len(data))
        self._write(now, submission, remark)
        self._write(now, transfer.encode(Event.COMPLETION, now, data))

    def _transfer(self, kind: TransferType, endpoint: int, data: bytes, remark: str = "") -> None:
        transfer = self._begin(kind, endpoint)
        now = self._clock()
        event = Event.COMPLETION if endpoint & _FROM_DEVICE else Event.SUBMISSION
        self._write(now, transfer.encode(event, now, data), remark)

    def _write(self, now: int, packet: bytes, remark: str = "") -> None:
        """Writes a packet, or counts it among those that are missing."""
        self._packets += 1
        if self._missing:
            missing = f"{self._missing} messages before this one are missing"
            remark = f"{remark}; {missing}" if remark else missing
        if self.file.write(capture.enhanced_packet(now, packet, remark)):
            self._missing = 0
        else:
            self._missing += 1
            self._lost += 1

    def _begin(self, kind: TransferType, endpoint: int) -> Transfer:
        self._transfers += 1
        return Transfer(self._transfers, kind, endpoint, _DEVICE)
