# SPDX-License-Identifier: Apache-2.0
import itertools
from functools import reduce
from operator import xor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.errors import LocalProtocolError
from ccid_protocol.events import NEED_DATA, ConnectionClosed, NeedData
from ccid_protocol.gempc import (
    BadFrame,
    CardEvent,
    Connection,
    Message,
    Nak,
    Role,
    Sendable,
    TimeRequest,
)

GET_SLOT_STATUS = Message(bytes.fromhex("65 00000000 00 07 000000"))
GET_SLOT_STATUS_FRAME = bytes.fromhex("03 06 65 00000000 00 07 000000 67")
SLOT_STATUS = Message(bytes.fromhex("81 00000000 00 07 01 00 00"))
SLOT_STATUS_FRAME = bytes.fromhex("03 06 81 00000000 00 07 01 00 00 82")
NAK = bytes.fromhex("03 15 16")
WRONG_LRC = GET_SLOT_STATUS_FRAME[:-1] + b"\x66"

Event = Sendable | BadFrame | ConnectionClosed | NeedData


def ccid_message(data: bytes) -> Message:
    return Message(b"\x6f" + len(data).to_bytes(4, "little") + bytes(5) + data)


messages = st.binary(max_size=261).map(ccid_message)
sendable = (
    messages
    | st.just(Nak())
    | st.booleans().map(CardEvent)
    | st.integers(0x80, 0xFF).map(TimeRequest)
)
# What a line may bring: whole items, parts of frames, and noise with a liking for 03, 06 and 50.
noise = st.lists(st.sampled_from(b"\x03\x06\x15\x16\x50\x02\x80\x00"), max_size=12).map(bytes)
streams = st.lists(
    sendable.map(Connection(Role.READER).send) | noise | st.binary(max_size=20), max_size=8
).map(b"".join)


def events(connection: Connection, *pieces: bytes) -> list[Event]:
    received: list[Event] = []
    for piece in filter(None, pieces):  # an empty piece would close the line
        connection.receive_data(piece)
        while not isinstance(event := connection.next_event(), NeedData):
            received.append(event)
    return received


@pytest.mark.parametrize(
    ("item", "raw"),
    [
        (GET_SLOT_STATUS, GET_SLOT_STATUS_FRAME),
        (SLOT_STATUS, SLOT_STATUS_FRAME),
        (Nak(), NAK),
        (CardEvent(present=False), b"\x50\x02"),
        (CardEvent(present=True), b"\x50\x03"),
        (TimeRequest(0xFF), b"\xff"),
    ],
)
def test_known_bytes_are_written_and_read(item: Sendable, raw: bytes) -> None:
    assert Connection(Role.READER).send(item) == raw
    assert events(Connection(Role.HOST), raw) == [item]


def test_the_reader_reads_what_the_host_sends() -> None:
    raw = Connection(Role.HOST).send(GET_SLOT_STATUS)
    assert raw == GET_SLOT_STATUS_FRAME
    assert events(Connection(Role.READER), raw) == [GET_SLOT_STATUS]


@given(st.lists(sendable))
def test_all_that_a_reader_sends_reaches_the_host(items: list[Sendable]) -> None:
    reader, host = Connection(Role.READER), Connection(Role.HOST)
    assert events(host, b"".join(map(reader.send, items))) == items


@given(streams, st.sampled_from(Role), st.data())
def test_pieces_make_no_difference(stream: bytes, role: Role, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream))).map(sorted))
    pieces = [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)])]
    whole = events(Connection(role), stream)
    assert events(Connection(role), *(bytes([byte]) for byte in stream)) == whole
    assert events(Connection(role), *pieces) == whole


@given(st.binary(max_size=300) | streams, st.sampled_from(Role))
def test_after_any_noise_and_a_silence_a_frame_is_read(stream: bytes, role: Role) -> None:
    connection = Connection(role)
    events(connection, stream)
    connection.time_out()
    assert events(connection, GET_SLOT_STATUS_FRAME) == [GET_SLOT_STATUS]


@given(st.lists(st.binary(min_size=1, max_size=2000), max_size=5), st.sampled_from(Role))
def test_no_more_is_kept_than_a_frame(pieces: list[bytes], role: Role) -> None:
    connection = Connection(role)
    events(connection, *pieces)
    assert len(connection._buffer) < 2 + connection.max_message + 1


def test_noise_is_not_kept() -> None:
    reader = Connection(Role.READER)
    events(reader, b"\x03" * 1000)
    assert len(reader._buffer) == 1


def test_a_damaged_frame_is_skipped_whole_and_answered_with_nak() -> None:
    reader = Connection(Role.READER)
    # The damaged frame holds what could be taken for the begin of another.
    raw = bytearray(reader.send(ccid_message(b"\x03\x06" + bytes(20))))
    raw[-1] ^= 1
    bad, message = events(reader, bytes(raw) + GET_SLOT_STATUS_FRAME)
    assert isinstance(bad, BadFrame)
    assert message == GET_SLOT_STATUS
    assert reader.acknowledge(bad) == NAK


@pytest.mark.parametrize("run", [b"\x06", b"\x65" * 1000, b"\x03\x03", b"\x50\x03", NAK, b"\xff"])
def test_a_reader_answers_a_run_of_noise_with_one_nak(run: bytes) -> None:
    bad, message = events(Connection(Role.READER), run + GET_SLOT_STATUS_FRAME)
    assert isinstance(bad, BadFrame)
    assert message == GET_SLOT_STATUS


def test_a_message_above_the_limit_is_refused_before_it_is_there() -> None:
    reader = Connection(Role.READER, max_message=20)
    assert events(reader, reader.send(ccid_message(bytes(10)))) == [ccid_message(bytes(10))]
    (bad,) = events(reader, b"\x03\x06\x6f\x0b\x00\x00\x00")
    assert isinstance(bad, BadFrame)
    assert events(reader, bytes(100), GET_SLOT_STATUS_FRAME) == [GET_SLOT_STATUS]
    (bad,) = events(reader, b"\x03\x06\x6f\xff\xff\xff\xff")
    assert isinstance(bad, BadFrame)


def test_a_frame_that_does_not_end_is_given_up_after_a_silence() -> None:
    reader = Connection(Role.READER)
    assert reader.time_out() is None
    assert events(reader, GET_SLOT_STATUS_FRAME[:-1]) == []
    bad = reader.time_out()
    assert isinstance(bad, BadFrame)
    assert reader.acknowledge(bad) == NAK
    assert reader.time_out() is None
    assert events(reader, GET_SLOT_STATUS_FRAME) == [GET_SLOT_STATUS]


def test_silence_in_the_middle_of_noise_is_no_news() -> None:
    reader = Connection(Role.READER)
    (bad,) = events(reader, b"\x65\x03")
    assert isinstance(bad, BadFrame)
    assert reader.time_out() is None


@pytest.mark.parametrize("raw", [b"\x50\x04", b"\x03\x15\x15", b"\x03\x07", b"\x00"])
def test_a_host_knows_noise_from_events(raw: bytes) -> None:
    bad, event = events(Connection(Role.HOST), raw + SLOT_STATUS_FRAME)
    assert isinstance(bad, BadFrame)
    assert event == SLOT_STATUS


def test_a_reader_with_echo_repeats_the_frame() -> None:
    assert Connection(Role.READER, echo=True).acknowledge(GET_SLOT_STATUS) == GET_SLOT_STATUS_FRAME
    assert Connection(Role.READER).acknowledge(GET_SLOT_STATUS) == b""


def test_a_host_acknowledges_nothing() -> None:
    host = Connection(Role.HOST, echo=True)
    assert host.acknowledge(SLOT_STATUS) == b""
    assert host.acknowledge(BadFrame("")) == b""


def test_a_host_does_not_see_the_echo_of_its_frames() -> None:
    host = Connection(Role.HOST, echo=True)
    for _ in range(2):
        echo = host.send(GET_SLOT_STATUS)
        assert events(host, b"\x50\x03" + echo + b"\x80" + SLOT_STATUS_FRAME) == [
            CardEvent(present=True),
            TimeRequest(0x80),
            SLOT_STATUS,
        ]


def test_a_host_expects_no_echo_after_a_nak() -> None:
    host = Connection(Role.HOST, echo=True)
    frame = host.send(GET_SLOT_STATUS)
    assert events(host, NAK) == [Nak()]
    assert events(host, frame) == [GET_SLOT_STATUS]


def test_a_host_without_echo_sees_every_frame() -> None:
    host = Connection(Role.HOST)
    assert events(host, host.send(GET_SLOT_STATUS)) == [GET_SLOT_STATUS]


@pytest.mark.parametrize("item", [Nak(), CardEvent(present=True), TimeRequest()])
def test_a_host_sends_nothing_but_messages(item: Sendable) -> None:
    with pytest.raises(LocalProtocolError):
        Connection(Role.HOST).send(item)


@pytest.mark.parametrize(
    "item",
    [
        Message(b""),
        Message(GET_SLOT_STATUS.data[:9]),
        Message(GET_SLOT_STATUS.data + b"\0"),  # dwLength says 0
        ccid_message(bytes(262)),  # 272 bytes
        TimeRequest(0x7F),
        TimeRequest(0x100),
    ],
)
def test_what_the_other_end_cannot_read_is_not_sent(item: Sendable) -> None:
    with pytest.raises(LocalProtocolError):
        Connection(Role.READER).send(item)


def test_a_refused_message_is_not_expected_as_an_echo() -> None:
    host = Connection(Role.HOST, echo=True, max_message=10)
    host.send(GET_SLOT_STATUS)
    with pytest.raises(LocalProtocolError):
        host.send(ccid_message(b"\0"))
    assert events(host, GET_SLOT_STATUS_FRAME) == []


@pytest.mark.parametrize("rest", [b"", GET_SLOT_STATUS_FRAME[:5]])
def test_a_closed_line_ends_the_events(rest: bytes) -> None:
    connection = Connection(Role.READER)
    connection.receive_data(GET_SLOT_STATUS_FRAME + rest)
    connection.receive_data(b"")
    assert connection.next_event() == GET_SLOT_STATUS
    assert connection.next_event() == ConnectionClosed()
    assert connection.next_event() == ConnectionClosed()


def test_a_line_that_is_closed_within_noise_is_closed() -> None:
    connection = Connection(Role.READER)
    connection.receive_data(b"\x00\x03")
    connection.receive_data(b"")
    assert isinstance(connection.next_event(), BadFrame)
    assert connection.next_event() == ConnectionClosed()
    assert connection.next_event() is not NEED_DATA


def test_no_text_holds_what_a_message_holds() -> None:
    pin = b"31337"
    message = ccid_message(pin)
    assert "31337" not in repr(message)
    reader = Connection(Role.READER)
    raw = reader.send(message)
    damaged = raw[:-1] + bytes([raw[-1] ^ 1])
    bad = events(reader, damaged + pin)
    assert all("31337" not in repr(event) for event in bad)
    assert len(bad) == 2


@given(messages)
def test_the_exclusive_or_of_a_frame_is_0(message: Message) -> None:
    assert reduce(xor, Connection(Role.HOST).send(message)) == 0
