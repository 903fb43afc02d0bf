# SPDX-License-Identifier: Apache-2.0
"""Transfers of a USB, as Linux's usbmon records them.

Source: Linux, Documentation/usb/usbmon.rst, "Raw binary format and mmap API" (struct usbmon_packet,
64 bytes); LINKTYPE_USB_LINUX_MMAPPED of the list of link-layer header types.
"""

import enum
import struct
from dataclasses import dataclass
from typing import Final

from ccid_protocol.usb import SetupPacket, TransferType

LINKTYPE_USB_LINUX_MMAPPED: Final = 220

# id, type, xfer_type, epnum, devnum, busnum, flag_setup, flag_data, ts_sec, ts_usec, status,
# length, len_cap, setup, interval, start_frame, xfer_flags, ndesc
_PACKET: Final = struct.Struct("<QBBBBHBBqiiII8siiII")

_IN: Final = 0x80
_HAS_SETUP: Final = 0
_HAS_DATA: Final = 0
_NO_SETUP: Final = ord("-")
_NO_DATA_OUT: Final = ord(">")
_NO_DATA_IN: Final = ord("<")
_IN_PROGRESS: Final = -115  # EINPROGRESS

_TRANSFER_TYPES: Final = {
    TransferType.ISOCHRONOUS: 0,
    TransferType.INTERRUPT: 1,
    TransferType.CONTROL: 2,
    TransferType.BULK: 3,
}


class Event(enum.IntEnum):
    """What happens to a transfer."""

    SUBMISSION = ord("S")
    COMPLETION = ord("C")


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer of which an event is recorded.

    Attributes:
        number: tells the completion to which submission it belongs.
        kind: the transfer's type.
        endpoint: bEndpointAddress.
        device: the device's address, 1 to 127.
    """

    number: int
    kind: TransferType
    endpoint: int
    device: int

    def encode(
        self,
        event: Event,
        time: int,
        data: bytes | None = None,
        *,
        setup: SetupPacket | None = None,
        length: int | None = None,
    ) -> bytes:
        """Gives the record of an event.

        Args:
            event: what happens.
            time: nanoseconds since 1970.
            data: the data that go with this event; None for those that have none.
            setup: the setup packet, at the submission of a control transfer.
            length: how many bytes are asked for, or were transferred; by default those of `data`.
        """
        seconds, nanoseconds = divmod(time, 1_000_000_000)
        no_data = _NO_DATA_IN if self.endpoint & _IN else _NO_DATA_OUT
        captured = b"" if data is None else data
        header = _PACKET.pack(
            self.number,
            event,
            _TRANSFER_TYPES[self.kind],
            self.endpoint,
            self.device,
            1,
            _NO_SETUP if setup is None else _HAS_SETUP,
            no_data if data is None else _HAS_DATA,
            seconds,
            nanoseconds // 1000,
            _IN_PROGRESS if event is Event.SUBMISSION else 0,
            len(captured) if length is None else length,
            len(captured),
            bytes(8) if setup is None else setup.encode(),
            0,
            0,
            0,
            0,
        )
        return header + captured
