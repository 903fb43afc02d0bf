# SPDX-License-Identifier: Apache-2.0
"""Captures: blocks that hold whatever crossed the wire."""

import struct
from collections.abc import Iterator

from ccid_protocol.capture import (
    LINKTYPE_USB_LINUX_MMAPPED,
    Event,
    Transfer,
    enhanced_packet,
    file_header,
    interface_statistics,
)
from ccid_protocol.usb import SetupPacket, TransferType
from fuzzing.script import Script

_USBMON_HEADER = 64


def run(data: bytes) -> None:
    """Writes a file of the input's pieces; a reader of blocks finds all of them again."""
    script = Script(data)
    comment = script.piece().decode(errors="replace")
    time = script.number(8)
    file = file_header(LINKTYPE_USB_LINUX_MMAPPED, application=comment, interface=comment)
    packets: list[bytes] = []
    for piece in script.pieces():
        kind = tuple(TransferType)[len(piece) % 4]
        transfer = Transfer(len(packets), kind, len(piece) & 0x8F, 1)
        setup = SetupPacket.decode(piece[:8]) if len(piece) >= 8 else None
        event = Event.SUBMISSION if setup else Event.COMPLETION
        packets.append(transfer.encode(event, time, piece, setup=setup))
        assert len(packets[-1]) == _USBMON_HEADER + len(piece)
        file += enhanced_packet(time, packets[-1], comment)
    file += interface_statistics(time, received=len(packets), dropped=0)
    blocks = list(_blocks(file))
    assert len(blocks) == 2 + len(packets) + 1
    for packet, block in zip(packets, blocks[2:], strict=False):
        captured = struct.unpack_from("<12xI", block)[0]
        assert block[20 : 20 + captured] == packet


def _blocks(file: bytes) -> Iterator[bytes]:
    while file:
        length = struct.unpack_from("<4xI", file)[0]
        assert length % 4 == 0
        assert struct.unpack_from("<I", file, length - 4) == (length,)
        yield file[8 : length - 4]
        file = file[length:]
