# SPDX-License-Identifier: Apache-2.0
"""The blocks of a capture; tests/ccidd/service/trace has tshark read whole files."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.capture import (
    LINKTYPE_USB_LINUX_MMAPPED,
    Event,
    Transfer,
    enhanced_packet,
    file_header,
    interface_statistics,
)
from ccid_protocol.usb import SetupPacket, TransferType


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, length = struct.unpack_from("<II", data)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, length - 4) == (length,)
        found.append((kind, data[8 : length - 4]))
        data = data[length:]
    return found


def test_a_file_begins_with_a_section_and_its_interface() -> None:
    header = file_header(LINKTYPE_USB_LINUX_MMAPPED, application="ccidd 1", interface="serial")
    (section, first), (interface, second) = blocks(header)
    assert (section, interface) == (0x0A0D0D0A, 1)
    assert first == bytes.fromhex("4D3C2B1A 0100 0000 FFFFFFFFFFFFFFFF") + (
        b"\x04\0\x07\0ccidd 1\0" + bytes(4)
    )
    assert second == bytes.fromhex("DC00 0000 00000000") + (
        b"\x02\0\x06\0serial\0\0" + b"\x09\0\x01\0\x09\0\0\0" + bytes(4)
    )


@given(st.integers(0, 2**64 - 1), st.binary(max_size=300), st.text(max_size=100))
def test_a_packet_holds_its_time_its_data_and_its_comment(
    time: int, data: bytes, comment: str
) -> None:
    ((kind, body),) = blocks(enhanced_packet(time, data, comment))
    interface, high, low, captured, original = struct.unpack_from("<IIIII", body)
    assert (kind, interface, captured, original) == (6, 0, len(data), len(data))
    assert high << 32 | low == time
    assert body[20 : 20 + len(data)] == data
    options = body[20 + len(data) + -len(data) % 4 :]
    assert options.startswith(
        struct.pack("<HH", 1, len(comment.encode())) + comment.encode() if comment else b""
    )


def test_a_comment_that_is_too_long_is_cut() -> None:
    ((_, body),) = blocks(enhanced_packet(0, b"", "x" * 70000))
    assert struct.unpack_from("<HH", body, 20) == (1, 0xFFFF)


def test_a_file_may_end_with_what_is_not_in_it() -> None:
    ((kind, body),) = blocks(interface_statistics(0x1_0000_0002, received=5, dropped=3))
    assert kind == 5
    assert body == bytes.fromhex(
        "00000000 01000000 02000000 0400 0800 0500000000000000 0500 0800 0300000000000000 00000000"
    )


@pytest.mark.parametrize(
    ("kind", "endpoint", "event", "data", "setup", "fields"),
    [
        (TransferType.BULK, 1, Event.SUBMISSION, b"ab", None, "53 03 01 02 0100 2D 00"),
        (TransferType.BULK, 0x82, Event.COMPLETION, b"ab", None, "43 03 82 02 0100 2D 00"),
        (TransferType.BULK, 0x82, Event.SUBMISSION, None, None, "53 03 82 02 0100 2D 3C"),
        (TransferType.BULK, 1, Event.COMPLETION, None, None, "43 03 01 02 0100 2D 3E"),
        (TransferType.INTERRUPT, 0x83, Event.COMPLETION, b"x", None, "43 01 83 02 0100 2D 00"),
        (
            TransferType.CONTROL,
            0x80,
            Event.SUBMISSION,
            None,
            SetupPacket(0x80, 6, 0x0100, length=18),
            "53 02 80 02 0100 00 3C",
        ),
    ],
)
def test_a_transfer_is_recorded_as_usbmon_does(
    *,
    kind: TransferType,
    endpoint: int,
    event: Event,
    data: bytes | None,
    setup: SetupPacket | None,
    fields: str,
) -> None:
    time = 1_700_000_000_123_456_789
    record = Transfer(7, kind, endpoint, 2).encode(event, time, data, setup=setup)
    assert record[:8] == (7).to_bytes(8, "little")
    assert record[8:16] == bytes.fromhex(fields)
    assert struct.unpack_from("<qi", record, 16) == (1_700_000_000, 123456)
    assert struct.unpack_from("<i", record, 28) == (-115 if event is Event.SUBMISSION else 0,)
    assert struct.unpack_from("<II", record, 32) == (len(data or b""),) * 2
    assert record[40:48] == (bytes(8) if setup is None else setup.encode())
    assert record[64:] == (data or b"")
