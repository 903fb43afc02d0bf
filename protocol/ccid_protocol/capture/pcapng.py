# SPDX-License-Identifier: Apache-2.0
"""The blocks of a pcapng file: its head, packets with comments, and how many were left out.

Source: draft-ietf-opsawg-pcapng: 3 (general structure), 4.1 (section header), 4.2 (interface
description), 4.3 (enhanced packet), 4.6 (interface statistics).

The file is little-endian, with one interface, whose clock counts nanoseconds.
"""

import struct
from collections.abc import Iterable
from typing import Final

_SECTION_HEADER: Final = 0x0A0D0D0A
_INTERFACE_DESCRIPTION: Final = 1
_INTERFACE_STATISTICS: Final = 5
_ENHANCED_PACKET: Final = 6

_END_OF_OPTIONS: Final = 0
_COMMENT: Final = 1
_APPLICATION: Final = 4
_INTERFACE_NAME: Final = 2
_TIME_RESOLUTION: Final = 9
_NANOSECONDS: Final = bytes([9])
_RECEIVED: Final = 4
_DROPPED: Final = 5

_BLOCK: Final = struct.Struct("<II")  # 3.1: type and total length, which is there again at the end
_LENGTH: Final = struct.Struct("<I")
_OPTION: Final = struct.Struct("<HH")  # 3.5: code and length
_SECTION: Final = struct.Struct("<IHHq")  # 4.1: byte-order magic, version, section length
_INTERFACE: Final = struct.Struct("<HHI")  # 4.2: link type, reserved, snap length
_PACKET: Final = struct.Struct("<IIIII")  # 4.3: interface, time (high, low), captured, original
_STATISTICS: Final = struct.Struct("<III")  # 4.6: interface, time (high, low)
_COUNTER: Final = struct.Struct("<Q")

_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
_LENGTH_UNKNOWN: Final = -1
_MAX_OPTION: Final = 0xFFFF


def file_header(link_type: int, *, application: str, interface: str) -> bytes:
    """Gives what a file begins with.

    Args:
        link_type: LINKTYPE of all packets.
        application: what wrote the file, for people.
        interface: what the packets crossed, for people.
    """
    section = _SECTION.pack(_BYTE_ORDER_MAGIC, 1, 0, _LENGTH_UNKNOWN)
    names = [(_APPLICATION, application.encode())]
    options = [(_INTERFACE_NAME, interface.encode()), (_TIME_RESOLUTION, _NANOSECONDS)]
    return _block(_SECTION_HEADER, section + _options(names)) + _block(
        _INTERFACE_DESCRIPTION, _INTERFACE.pack(link_type, 0, 0) + _options(options)
    )


def enhanced_packet(time: int, data: bytes, comment: str = "") -> bytes:
    """Gives one packet.

    Args:
        time: nanoseconds since 1970.
        data: the packet, whole.
        comment: what Wireshark shows beside it.
    """
    fields = _PACKET.pack(0, *_halves(time), len(data), len(data))
    options = _options([(_COMMENT, comment.encode())])
    return _block(_ENHANCED_PACKET, fields + _padded(data) + options)


def interface_statistics(time: int, *, received: int, dropped: int) -> bytes:
    """Gives what a file may end with.

    Args:
        time: nanoseconds since 1970.
        received: how many packets there were.
        dropped: how many of them are not in the file.
    """
    counters = [(_RECEIVED, _COUNTER.pack(received)), (_DROPPED, _COUNTER.pack(dropped))]
    return _block(_INTERFACE_STATISTICS, _STATISTICS.pack(0, *_halves(time)) + _options(counters))


def _halves(time: int) -> tuple[int, int]:
    return time >> 32 & 0xFFFFFFFF, time & 0xFFFFFFFF


def _block(kind: int, body: bytes) -> bytes:
    length = _BLOCK.size + len(body) + _LENGTH.size
    return _BLOCK.pack(kind, length) + body + _LENGTH.pack(length)


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    """Encodes the options that say something."""
    encoded = b"".join(
        _OPTION.pack(code, min(len(value), _MAX_OPTION)) + _padded(value[:_MAX_OPTION])
        for code, value in options
        if value
    )
    return encoded + _OPTION.pack(_END_OF_OPTIONS, 0) if encoded else b""


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
