# SPDX-License-Identifier: Apache-2.0
"""What a connection makes of bytes: in pieces, of garbage, and at their end."""

import itertools
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.errors import RemoteProtocolError
from ccid_protocol.events import ConnectionClosed, NeedData
from ccid_protocol.usbredir import (
    BulkPacket,
    Connection,
    Event,
    Hello,
    Reset,
    Role,
    StartInterruptReceiving,
    StopInterruptReceiving,
)
from usbredir_device import ENDPOINTS, OBSERVED_64, OBSERVED_64_PACKETS, QEMU_HELLO, open_device
from usbredir_pair import CONNECT, INTERFACES, drain


def feed(connection: Connection, pieces: list[bytes]) -> list[Event | str]:
    """Gives all events and the error that may end them, saying our hello when it is due."""
    events: list[Event | str] = []
    for piece in pieces:
        connection.receive_data(piece)
        while True:
            try:
                event = connection.next_event()
            except RemoteProtocolError as error:
                return [*events, str(error)]
            if isinstance(event, NeedData):
                break
            events.append(event)
            if isinstance(event, Hello):
                for packet in (connection.hello, INTERFACES, ENDPOINTS, CONNECT):
                    connection.send(packet)
    return events


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


@pytest.mark.parametrize("resumed", [True, False])
def test_pieces_of_any_size_give_the_same_events(*, resumed: bool) -> None:
    head = b"" if resumed else QEMU_HELLO

    def events(stream_pieces: list[bytes]) -> list[Event | str]:
        return feed(Connection(Role.DEVICE), ([head] if head else []) + stream_pieces)

    whole = events([OBSERVED_64])
    assert whole[1:] == OBSERVED_64_PACKETS

    @given(st.lists(st.integers(0, 1000), max_size=30))
    def holds(cuts: list[int]) -> None:
        assert events(split(OBSERVED_64, cuts)) == whole

    holds()
    assert events([bytes([byte]) for byte in OBSERVED_64]) == whole
    if head:
        assert feed(Connection(Role.DEVICE), [bytes([b]) for b in head + OBSERVED_64]) == whole


words = st.builds(
    lambda kind, length, rest: struct.pack("<III", kind, length, 0) + rest,
    st.sampled_from([0, 1, 3, 6, 15, 16, 21, 23, 24, 100, 101, 102, 103, 104, 200]),
    st.sampled_from([0, 1, 2, 4, 8, 10, 11, 64, 68, 2**31, 2**32 - 1]),
    st.binary(max_size=40),
)
garbage = st.lists(words | st.binary(max_size=40), max_size=8).map(b"".join)


@given(garbage, st.sampled_from([b"", QEMU_HELLO, QEMU_HELLO[:-1] + b"\1"]), st.data())
def test_garbage_raises_only_remote_protocol_errors_in_any_pieces(
    data: bytes, head: bytes, draw: st.DataObject
) -> None:
    whole = feed(Connection(Role.DEVICE), [piece for piece in (head, data) if piece])
    cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=8))

    pieces = ([head] if head else []) + split(data, cuts)
    assert feed(Connection(Role.DEVICE), pieces) == whole


@given(garbage)
def test_a_guest_survives_garbage_too(data: bytes) -> None:
    guest = Connection(Role.GUEST)
    guest.send(guest.hello)
    device = Connection(Role.DEVICE)
    device.receive_data(QEMU_HELLO)
    device.next_event()
    stream = b"".join(device.send(p) for p in (device.hello, INTERFACES, ENDPOINTS, CONNECT))
    events = []

    guest.receive_data(stream + data)
    try:
        events = drain(guest)
    except RemoteProtocolError as error:
        with pytest.raises(RemoteProtocolError, match=re.escape(str(error))):
            guest.next_event()
    else:
        assert events[:4] == [device.hello, INTERFACES, ENDPOINTS, CONNECT]


def test_after_an_error_every_call_raises_the_same() -> None:
    device = open_device()
    device.receive_data(struct.pack("<IIQ", 99, 0, 0))

    for _ in range(3):
        with pytest.raises(RemoteProtocolError, match="unknown type 99"):
            device.next_event()
        device.receive_data(OBSERVED_64)
    assert not device._buffer


def test_too_much_bulk_data_is_refused_before_it_comes() -> None:
    device = open_device(max_bulk=1000)
    device.receive_data(struct.pack("<IIQ", 101, 10 + 1001, 1))

    with pytest.raises(RemoteProtocolError):
        device.next_event()


def test_by_default_bulk_data_of_128_kib_is_taken() -> None:
    device = open_device()
    data = bytes(128 * 1024)
    fields = struct.pack("<BBHIH", 0x01, 0, len(data) & 0xFFFF, 0, len(data) >> 16)
    device.receive_data(struct.pack("<IIQ", 101, 10 + len(data), 1) + fields + data)
    device.receive_data(struct.pack("<IIQ", 101, 10 + len(data) + 1, 2))

    assert device.next_event() == BulkPacket(1, 0x01, data=data)
    with pytest.raises(RemoteProtocolError):
        device.next_event()


@pytest.mark.parametrize("head", [b"", QEMU_HELLO])
def test_the_peer_may_close_between_packets(head: bytes) -> None:
    device = Connection(Role.DEVICE)
    device.receive_data(head)
    drain(device)

    device.receive_data(b"")

    assert device.next_event() == ConnectionClosed()
    assert device.next_event() == ConnectionClosed()


@pytest.mark.parametrize("missing", [1, 8, 16, 17, 25])
def test_the_peer_may_not_close_within_a_packet(missing: int) -> None:
    device = open_device()
    device.receive_data(OBSERVED_64[:42][:-missing])
    device.receive_data(b"")

    assert device.next_event() == Reset()
    with pytest.raises(RemoteProtocolError):
        device.next_event()


def test_stopping_is_seen_by_is_receiving() -> None:
    device = open_device()
    guest = Connection(Role.GUEST)
    guest.resume()

    seen = [device.is_receiving(0x83)]
    for packet in (StartInterruptReceiving(0, 0x83), StopInterruptReceiving(0, 0x83)):
        device.receive_data(guest.send(packet))
        device.next_event()
        seen.append(device.is_receiving(0x83))

    assert seen == [False, True, False]
    assert not Connection(Role.DEVICE).is_receiving(0x83)
