# SPDX-License-Identifier: Apache-2.0
"""Messages out of packets, as UHCI (64 bytes each) and xHCI (whole transfers) deliver them."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol import NEED_DATA
from ccid_protocol.ccid import (
    BadMessage,
    Command,
    Escape,
    GetSlotStatus,
    IccPowerOn,
    MessageReader,
    MessageType,
    RuntTransfer,
    XfrBlock,
    encode,
)

MAX_MESSAGE = 65554
STATUS = encode(GetSlotStatus(0, 9))
BAD = BadMessage(MessageType.XFR_BLOCK, 1, 2, 1)

Event = Command | BadMessage | RuntTransfer


def events_of(*pieces: bytes, reader: MessageReader | None = None) -> list[Event]:
    reader = reader or MessageReader(MAX_MESSAGE, extended_apdu=True)
    events: list[Event] = []
    for piece in pieces:
        reader.receive_packet(piece)
        while (event := reader.next_event()) is not NEED_DATA:
            events.append(event)
    return events


def packets(transfer: bytes) -> list[bytes]:
    """The transfer as UHCI delivers it."""
    return [transfer[i : i + 64] for i in range(0, len(transfer), 64)]


def block(size: int, length: int | None = None) -> bytes:
    """An XfrBlock of so many bytes, which may lie about its dwLength."""
    length = size - 10 if length is None else length
    return b"\x6f" + length.to_bytes(4, "little") + b"\1\2" + bytes(3) + bytes(size - 10)


@st.composite
def pieces_of(draw: st.DrawFn, transfer: bytes) -> list[bytes]:
    """A transfer in pieces that are multiples of a packet, but for the last."""
    cuts = st.lists(st.integers(1, max(1, (len(transfer) - 1) // 64)), unique=True)
    positions = [0, *(64 * cut for cut in sorted(draw(cuts))), len(transfer)]
    return [transfer[a:b] for a, b in itertools.pairwise(positions) if a < b]


messages = st.one_of(
    st.builds(GetSlotStatus, st.integers(0, 15), st.integers(0, 255)),
    st.builds(XfrBlock, st.just(0), st.integers(0, 255), st.binary(max_size=1000)),
    st.builds(Escape, st.just(0), st.integers(0, 255), st.binary(min_size=54, max_size=54)),
)


@given(st.data(), st.lists(messages, max_size=5))
def test_messages_come_out_as_they_went_in_however_they_are_cut(
    data: st.DataObject, sent: list[Command]
) -> None:
    whole = [encode(message) for message in sent]
    assert events_of(*whole) == sent
    assert events_of(*(packet for raw in whole for packet in packets(raw))) == sent
    assert events_of(*(piece for raw in whole for piece in data.draw(pieces_of(raw)))) == sent


@given(st.lists(messages, max_size=5))
def test_an_empty_packet_behind_a_message_of_whole_packets_says_nothing(
    sent: list[Command],
) -> None:
    pieces = []
    for message in sent:
        pieces += packets(encode(message))
        if len(pieces[-1]) == 64:
            pieces.append(b"")
    assert events_of(*pieces) == sent


def test_the_longest_message_is_read() -> None:
    raw = block(MAX_MESSAGE)
    assert events_of(raw) == events_of(*packets(raw)) == [XfrBlock(1, 2, bytes(MAX_MESSAGE - 10))]


@pytest.mark.parametrize("size", range(1, 10))
def test_a_transfer_that_ends_in_its_header_is_a_runt(size: int) -> None:
    assert events_of(STATUS[:size], STATUS) == [RuntTransfer(size), GetSlotStatus(0, 9)]


@pytest.mark.parametrize("size", [64, 100, 128, 1000])
def test_a_transfer_that_ends_early_is_a_bad_length(size: int) -> None:
    pieces = packets(block(size, 1000))
    if size % 64 == 0:
        pieces.append(b"")
    assert events_of(*pieces, STATUS) == [BAD, GetSlotStatus(0, 9)]


@pytest.mark.parametrize("size", [12, 63, 64, 65, 200, 256])
@pytest.mark.parametrize("cut", [packets, lambda raw: [raw]])
def test_a_transfer_that_is_longer_than_it_says_is_a_bad_length(
    size: int, cut: Callable[[bytes], list[bytes]]
) -> None:
    assert events_of(*cut(block(size, 1)), STATUS) == [BAD, GetSlotStatus(0, 9)]


@pytest.mark.parametrize("length", [MAX_MESSAGE - 9, 2**32 - 1])
@pytest.mark.parametrize("size", [10, 64, 100, 4096, MAX_MESSAGE + 1])
def test_a_message_that_is_too_long_is_refused_at_its_header_and_skipped(
    length: int, size: int
) -> None:
    raw = block(size, length)
    assert events_of(raw[:64]) == [BAD]
    assert events_of(*packets(raw), STATUS) == [BAD, GetSlotStatus(0, 9)]
    assert events_of(raw, STATUS) == [BAD, GetSlotStatus(0, 9)]


def test_what_is_skipped_is_not_kept() -> None:
    reader = MessageReader(MAX_MESSAGE)
    reader.receive_packet(block(64, 2**31))
    for _ in range(100):
        reader.receive_packet(bytes(4096))
    assert not reader._buffer


def test_the_limit_is_that_of_the_reader() -> None:
    reader = MessageReader(271)
    assert events_of(block(271), reader=reader) == [XfrBlock(1, 2, bytes(261))]
    assert events_of(block(272), reader=reader) == [BAD]


@pytest.mark.parametrize("size", [64, 128, 1000, MAX_MESSAGE])
def test_a_long_message_may_follow_a_skipped_transfer_without_a_short_packet(size: int) -> None:
    skipped = packets(block(128, 1))
    good = XfrBlock(1, 2, bytes(size - 10))
    assert events_of(*skipped, *packets(block(size))) == [BAD, good]
    assert events_of(*skipped, block(size)) == [BAD, good]


def test_a_short_transfer_without_a_short_packet_leaves_the_next_message_whole() -> None:
    assert events_of(block(64, length=128), STATUS) == [BAD, GetSlotStatus(0, 9)]
    # What looks like a message, but is the end of the one that it belongs to, is none.
    whole = block(128 - len(STATUS)) + STATUS
    whole = whole[:1] + (len(whole) - 10).to_bytes(4, "little") + whole[5:]
    cut = len(whole) - len(STATUS)
    (event,) = events_of(whole[:64], whole[64:cut] + STATUS)
    assert isinstance(event, XfrBlock)


def test_the_tail_of_a_skipped_transfer_is_no_message() -> None:
    tail = encode(IccPowerOn(0, 1))[:9] + b"\0\0"
    assert events_of(block(64, 1), tail, STATUS) == [BAD, GetSlotStatus(0, 9)]


@pytest.mark.parametrize("length", [0, 1, 2**32 - 1])
def test_an_unknown_message_of_any_length_is_unknown(length: int) -> None:
    raw = b"\x99" + length.to_bytes(4, "little") + b"\1\2" + bytes(3)
    assert events_of(raw) == [BadMessage(0x99, 1, 2, 0)]


def test_wlevelparameter_is_checked_if_the_reader_exchanges_extended_apdus() -> None:
    raw = encode(XfrBlock(1, 2, b"", level=4))
    assert events_of(raw) == [BadMessage(MessageType.XFR_BLOCK, 1, 2, 8)]
    assert events_of(raw, reader=MessageReader(MAX_MESSAGE)) == [XfrBlock(1, 2, b"", level=4)]


def test_several_pieces_may_come_before_the_first_event_is_asked_for() -> None:
    reader = MessageReader(MAX_MESSAGE)
    reader.receive_packet(STATUS)
    reader.receive_packet(STATUS[:5])
    assert reader.next_event() == GetSlotStatus(0, 9)
    assert reader.next_event() == RuntTransfer(5)
    assert reader.next_event() is NEED_DATA


def test_a_packet_size_of_8_cuts_even_headers() -> None:
    reader = MessageReader(MAX_MESSAGE, max_packet_size=8)
    assert events_of(STATUS[:8], STATUS[8:], reader=reader) == [GetSlotStatus(0, 9)]
    assert events_of(STATUS[:8], b"", reader=reader) == [RuntTransfer(8)]


def test_a_reset_forgets_half_a_message_and_all_events() -> None:
    reader = MessageReader(MAX_MESSAGE)
    reader.receive_packet(STATUS)
    reader.receive_packet(block(1000)[:64])
    reader.reset()
    assert events_of(STATUS, reader=reader) == [GetSlotStatus(0, 9)]
    reader.receive_packet(block(64, 1))
    reader.reset()
    assert events_of(STATUS[:3], reader=reader) == [RuntTransfer(3)]


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_whatever_comes_each_piece_makes_two_events_at_most_and_the_buffer_is_bounded(
    pieces: list[bytes],
) -> None:
    reader = MessageReader(271)
    for piece in pieces:
        reader.receive_packet(piece)
        assert len(reader._buffer) < 271
        reader.next_event()
        reader.next_event()
        assert reader.next_event() is NEED_DATA
