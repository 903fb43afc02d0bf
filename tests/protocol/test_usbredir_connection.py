# SPDX-License-Identifier: Apache-2.0
import itertools
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.events import NEED_DATA, ConnectionClosed, NeedData
from ccid_protocol.usbredir import (
    DEVICE_CAPABILITIES,
    GUEST_CAPABILITIES,
    NO_CAPABILITIES,
    BulkPacket,
    CancelDataPacket,
    Cancelled,
    Capability,
    ConfigurationStatus,
    Connection,
    ControlPacket,
    DeviceConnect,
    DeviceDisconnect,
    DeviceDisconnectAck,
    Endpoint,
    EndpointType,
    EpInfo,
    Event,
    FilterFilter,
    FilterReject,
    GetConfiguration,
    Hello,
    Interface,
    InterfaceInfo,
    InterruptPacket,
    InterruptReceivingStatus,
    Packet,
    Reset,
    Resumed,
    Role,
    Session,
    SetConfiguration,
    Speed,
    StartInterruptReceiving,
    Status,
    StopInterruptReceiving,
    negotiate,
)
from ccid_protocol.usbredir.codec import Codec, Header

CONTROL = Endpoint(EndpointType.CONTROL)
INTERFACES = InterfaceInfo((Interface(0, 0x0B),))
ENDPOINTS = EpInfo(
    {
        0x00: CONTROL,
        0x80: CONTROL,
        0x01: Endpoint(EndpointType.BULK),
        0x82: Endpoint(EndpointType.BULK),
        0x83: Endpoint(EndpointType.INTERRUPT, interval=16),
    }
)
CONNECT = DeviceConnect(Speed.FULL, 0, 0, 0, 0x08E6, 0x3437)

QEMU_HELLO = bytes.fromhex(
    "00000000 44000000 00000000 71656d75 20757362 2d726564 69722067 75657374 20372e32 2e323200"
    "00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 ff000000"
)
QEMU_VERSION = "qemu usb-redir guest 7.2.22"

# What QEMU 7.2.22 was seen to send after its hello, on xHCI.
OBSERVED_64 = bytes.fromhex(
    "03000000 00000000 00000000 00000000"
    "64000000 0a000000 00f8fd03 00000000 8006802e 00010000 0800"
    "06000000 01000000 90f8fd03 00000000 01"
    "64000000 0a000000 b0f8fd03 00000000 000b2168 00000000 0000"
    "0f000000 01000000 00000000 00000000 81"
    "65000000 29000000 00890e00 00000000 0200 1f00 00000000 0000"
    "55534243 e7030000 24000000 80000c12 00000024 00000000 00000000 000000"
    "65000000 0a000000 008b0e00 00000000 8100 2400 00000000 0000"
)
OBSERVED_64_PACKETS = [
    Reset(),
    ControlPacket(0x3FDF800, 0x80, 6, 0x80, 0x0100, 0, 8),
    SetConfiguration(0x3FDF890, 1),
    ControlPacket(0x3FDF8B0, 0x00, 11, 0x21, 0, 0),
    StartInterruptReceiving(0, 0x81),
    BulkPacket(
        0xE8900,
        0x02,
        data=bytes.fromhex("55534243 e7030000 24000000 80000c12 00000024 00000000 00000000 000000"),
    ),
    BulkPacket(0xE8B00, 0x81, 36),
]
# The same on UHCI, for a device that announced no capabilities.
OBSERVED_32 = bytes.fromhex(
    "03000000 00000000 00000000"
    "64000000 0a000000 306efe02 80068000 00010000 0800"
    "06000000 01000000 446efe02 01"
    "0f000000 01000000 00000000 81"
)
OBSERVED_32_PACKETS = [
    Reset(),
    ControlPacket(0x2FE6E30, 0x80, 6, 0x80, 0x0100, 0, 8),
    SetConfiguration(0x2FE6E44, 1),
    StartInterruptReceiving(0, 0x81),
]


def drain(connection: Connection) -> list[Event]:
    """Takes all events up to the first that is no packet of the peer."""
    events: list[Event] = []
    while True:
        event = connection.next_event()
        if isinstance(event, NeedData):
            return events
        events.append(event)
        if isinstance(event, ConnectionClosed):
            return events


def open_device(
    capabilities: Capability | None = None, *, max_bulk: int = 128 * 1024
) -> Connection:
    """A device that QEMU said hello to, and that is plugged in."""
    device = Connection(Role.DEVICE, capabilities=capabilities, max_bulk=max_bulk)
    device.receive_data(QEMU_HELLO)
    assert drain(device) == [Hello(QEMU_VERSION, GUEST_CAPABILITIES)]
    for packet in (device.hello, INTERFACES, ENDPOINTS, CONNECT):
        device.send(packet)
    return device


def deliver(sender: Connection, packet: Packet, receiver: Connection) -> Event:
    receiver.receive_data(sender.send(packet))
    event = receiver.next_event()
    assert receiver.next_event() is NEED_DATA
    return event


def connect(device: Connection, guest: Connection) -> None:
    """Plugs the device in, and holds that each end understands the other."""
    assert deliver(guest, guest.hello, device) == guest.hello
    assert deliver(device, device.hello, guest) == device.hello
    for packet in (INTERFACES, ENDPOINTS, CONNECT):
        assert deliver(device, packet, guest) == packet


# --- hello ---


def test_qemus_hello_is_read() -> None:
    device = Connection(Role.DEVICE)
    device.receive_data(QEMU_HELLO)

    assert device.next_event() == Hello(QEMU_VERSION, GUEST_CAPABILITIES)
    assert device.next_event() is NEED_DATA
    assert not device.is_open


def test_a_guest_says_hello_as_qemu_does() -> None:
    guest = Connection(Role.GUEST, version=QEMU_VERSION)

    assert guest.send(guest.hello) == QEMU_HELLO


def test_a_device_answers_with_its_hello_and_the_device() -> None:
    device = Connection(Role.DEVICE, version="ccidd 1.0")
    device.receive_data(QEMU_HELLO)
    device.next_event()

    assert device.send(device.hello) == (
        bytes.fromhex("00000000 44000000 00000000")
        + b"ccidd 1.0".ljust(64, b"\0")
        + bytes.fromhex("7e000000")
    )
    assert device.is_open
    assert device.capabilities == DEVICE_CAPABILITIES
    assert device.send(INTERFACES)[:16] == bytes.fromhex("04000000 84000000 00000000 00000000")
    assert device.send(ENDPOINTS)[:16] == bytes.fromhex("05000000 a0000000 00000000 00000000")
    assert device.send(CONNECT) == bytes.fromhex(
        "01000000 0a000000 00000000 00000000 01000000 e608 3734 0000"
    )
    assert device.is_connected


def test_what_qemu_was_seen_to_send_is_understood() -> None:
    device = open_device()

    device.receive_data(OBSERVED_64)

    assert drain(device) == OBSERVED_64_PACKETS
    assert [request for request in device.pending if isinstance(request, BulkPacket)] == [
        BulkPacket(0xE8900, 0x02, 31),
        BulkPacket(0xE8B00, 0x81, 36),
    ]


def test_what_qemu_was_seen_to_send_without_capabilities_is_understood() -> None:
    device = open_device(NO_CAPABILITIES)

    device.receive_data(OBSERVED_32)

    assert drain(device) == OBSERVED_32_PACKETS


@pytest.mark.parametrize("device_first", [True, False])
def test_either_end_may_say_hello_first(*, device_first: bool) -> None:
    device, guest = Connection(Role.DEVICE), Connection(Role.GUEST)
    hellos = {device: guest, guest: device}
    for sender in (device, guest) if device_first else (guest, device):
        assert not device.is_open
        assert deliver(sender, sender.hello, hellos[sender]) == sender.hello
    assert device.is_open
    assert device.capabilities == guest.capabilities == DEVICE_CAPABILITIES


@pytest.mark.parametrize("role", Role)
def test_nothing_is_sent_before_both_hellos(role: Role) -> None:
    ours = Connection(role)
    theirs = Connection(role.peer)
    with pytest.raises(LocalProtocolError):
        ours.send(FilterFilter("x"))

    if role is Role.GUEST:
        ours.send(ours.hello)
    else:
        ours.receive_data(theirs.send(theirs.hello))
        ours.next_event()

    with pytest.raises(LocalProtocolError):
        ours.send(FilterFilter("x"))


def test_a_packet_before_our_hello_is_refused() -> None:
    device = Connection(Role.DEVICE)
    device.receive_data(QEMU_HELLO + OBSERVED_64)

    assert isinstance(device.next_event(), Hello)
    with pytest.raises(RemoteProtocolError):
        device.next_event()


def test_a_guest_wants_hello_first() -> None:
    guest = Connection(Role.GUEST)
    guest.send(guest.hello)
    guest.receive_data(struct.pack("<III", 2, 0, 0))

    with pytest.raises(RemoteProtocolError):
        guest.next_event()


@pytest.mark.parametrize("role", Role)
def test_a_second_hello_is_refused_at_either_end(role: Role) -> None:
    pair = {Role.DEVICE: Connection(Role.DEVICE), Role.GUEST: Connection(Role.GUEST)}
    connect(pair[Role.DEVICE], pair[Role.GUEST])

    with pytest.raises(LocalProtocolError):
        pair[role].send(pair[role].hello)
    pair[role].receive_data(QEMU_HELLO)
    with pytest.raises(RemoteProtocolError):
        pair[role].next_event()


def test_only_the_connections_own_hello_is_sent() -> None:
    guest = Connection(Role.GUEST)

    with pytest.raises(LocalProtocolError):
        guest.send(Hello("another", GUEST_CAPABILITIES))
    with pytest.raises(LocalProtocolError):
        guest.send(Hello("ccidd", DEVICE_CAPABILITIES))


@pytest.mark.parametrize("role", Role)
def test_streams_are_not_announced_without_packet_sizes(role: Role) -> None:
    capabilities = GUEST_CAPABILITIES ^ Capability.EP_INFO_MAX_PACKET_SIZE

    with pytest.raises(LocalProtocolError):
        Connection(role, capabilities=capabilities)
    with pytest.raises(LocalProtocolError):
        Connection(role, previous=Session(capabilities))


@pytest.mark.parametrize("announced", range(256))
def test_both_ends_agree_whatever_the_guest_announces(announced: int) -> None:
    guest_hello = QEMU_HELLO[:-4] + struct.pack("<I", announced)
    for ours in (0x00, 0x20, 0x40, 0x7E, 0x91, 0xFF):
        device = Connection(Role.DEVICE, capabilities=Capability(ours))
        device.receive_data(guest_hello)
        device.next_event()
        device.send(device.hello)
        both = ours & announced
        id_size = 8 if both & 0x20 else 4
        length = {
            InterfaceInfo: 132,
            EpInfo: 288 if both & 0x11 == 0x11 else 160 if both & 0x10 else 96,
            DeviceConnect: 10 if both & 0x02 else 8,
        }
        for packet in (INTERFACES, ENDPOINTS, CONNECT):
            data = device.send(packet)
            assert len(data) == 8 + id_size + length[type(packet)]
            assert int.from_bytes(data[4:8], "little") == length[type(packet)]
        bulk = struct.pack("<BBHI", 0x82, 0, 64, 0) + (b"\0\0" if both & 0x40 else b"")
        device.receive_data(
            struct.pack("<II", 101, len(bulk)) + (7).to_bytes(id_size, "little") + bulk
        )
        request = device.next_event()
        assert request == BulkPacket(7, 0x82, 64)
        assert len(device.send(request.answer(b"abc"))) == 8 + id_size + len(bulk) + 3


VALID = [
    Capability(n) for n in range(256) if negotiate(Capability(n), Capability(n)) == Capability(n)
]


@pytest.mark.parametrize("device_capabilities", VALID, ids=lambda c: f"{c.value:02x}")
def test_a_session_works_under_all_capabilities(device_capabilities: Capability) -> None:
    for guest_capabilities in (NO_CAPABILITIES, DEVICE_CAPABILITIES, GUEST_CAPABILITIES):
        device = Connection(Role.DEVICE, capabilities=device_capabilities)
        guest = Connection(Role.GUEST, capabilities=guest_capabilities)
        connect(device, guest)
        both = negotiate(device_capabilities, guest_capabilities)
        assert device.capabilities == guest.capabilities == both

        configure = SetConfiguration(1, 1)
        assert deliver(guest, configure, device) == configure
        for packet in (INTERFACES, ENDPOINTS, ConfigurationStatus(1, Status.SUCCESS, 1)):
            assert deliver(device, packet, guest) == packet
        control = ControlPacket(2, 0x80, 6, 0x80, 0x0100, 0, 18)
        assert deliver(guest, control, device) == control
        assert deliver(device, control.answer(b"abc"), guest) == control.answer(b"abc")
        out = BulkPacket(3, 0x01, data=b"abc")
        assert deliver(guest, out, device) == out
        assert deliver(device, out.answer(), guest) == out.answer()
        read = BulkPacket(0xFFFFFFFF, 0x82, 512)
        assert deliver(guest, read, device) == read
        assert deliver(device, read.answer(b"abc"), guest) == read.answer(b"abc")
        start = StartInterruptReceiving(0, 0x83)
        assert deliver(guest, start, device) == start
        for answer in (
            InterruptReceivingStatus(0, Status.SUCCESS, 0x83),
            InterruptPacket(0x83, b"\x50\x03"),
        ):
            assert deliver(device, answer, guest) == answer
        if Capability.FILTER in both:
            assert deliver(guest, FilterReject(), device) == FilterReject()
        else:
            with pytest.raises(LocalProtocolError):
                guest.send(FilterReject())
        assert deliver(device, DeviceDisconnect(), guest) == DeviceDisconnect()
        if Capability.DEVICE_DISCONNECT_ACK in both:
            assert deliver(guest, DeviceDisconnectAck(), device) == DeviceDisconnectAck()
        for table in (INTERFACES, ENDPOINTS, CONNECT):
            assert deliver(device, table, guest) == table


# --- resuming ---


def test_a_first_packet_that_is_no_hello_resumes_the_session() -> None:
    device = Connection(Role.DEVICE)
    device.receive_data(OBSERVED_64)

    assert drain(device) == [Resumed(), *OBSERVED_64_PACKETS]
    assert device.is_open
    assert device.is_connected
    assert device.capabilities == DEVICE_CAPABILITIES


def test_a_session_is_resumed_under_the_capabilities_it_had() -> None:
    device = Connection(Role.DEVICE, previous=Session(NO_CAPABILITIES))
    device.receive_data(OBSERVED_32)

    assert drain(device) == [Resumed(), *OBSERVED_32_PACKETS]
    assert device.capabilities == NO_CAPABILITIES


def test_in_a_resumed_session_no_hello_is_said() -> None:
    device = Connection(Role.DEVICE)
    device.receive_data(OBSERVED_64)
    device.next_event()

    with pytest.raises(LocalProtocolError):
        device.send(device.hello)
    device.next_event()
    request = device.next_event()
    assert isinstance(request, ControlPacket)
    assert device.send(request.answer(b"abc"))[16:] == bytes.fromhex(
        "80068000 00010000 0300 616263"
    )


@pytest.mark.parametrize(
    "first",
    [
        struct.pack("<IIQ", 1, 10, 0),  # a device sends it
        struct.pack("<IIQ", 99, 0, 0),  # there is no such packet
        struct.pack("<IIQ", 3, 1, 0),  # a reset has nothing behind it
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_what_no_guest_sends_resumes_nothing(first: bytes) -> None:
    device = Connection(Role.DEVICE)
    device.receive_data(first)

    with pytest.raises(RemoteProtocolError):
        device.next_event()
    assert not device.is_open


def test_a_session_is_resumed_when_a_whole_header_is_there() -> None:
    device = Connection(Role.DEVICE)
    for byte in OBSERVED_64[:15]:
        device.receive_data(bytes([byte]))
        assert device.next_event() is NEED_DATA

    device.receive_data(OBSERVED_64[15:16])

    assert drain(device) == [Resumed(), Reset()]


def test_a_resumed_session_goes_on_with_what_waited() -> None:
    read = BulkPacket(7, 0x82, 64)
    first = open_device()
    guest = Connection(Role.GUEST)
    guest.resume()
    for packet in (StartInterruptReceiving(0, 0x83), read):
        first.receive_data(guest.send(packet))
    drain(first)
    session = first.session

    assert session == Session(DEVICE_CAPABILITIES, frozenset({0x83}), (read,))
    second = Connection(Role.DEVICE, previous=session)
    assert deliver_resumed(guest, Reset(), second) == [Resumed(), Reset()]
    assert second.is_receiving(0x83)
    guest.receive_data(second.send(InterruptPacket(0x83, b"\x50\x03")))
    guest.receive_data(second.send(read.answer(b"abc")))
    assert drain(guest) == [InterruptPacket(0x83, b"\x50\x03"), read.answer(b"abc")]


def deliver_resumed(sender: Connection, packet: Packet, receiver: Connection) -> list[Event]:
    receiver.receive_data(sender.send(packet))
    return drain(receiver)


def test_a_device_that_knows_better_resumes_by_itself() -> None:
    device = Connection(Role.DEVICE, previous=Session(receiving=frozenset({0x83})))
    device.resume()

    assert device.is_open
    assert device.send(InterruptPacket(0x83, b"\x50\x03")) == bytes.fromhex(
        "67000000 06000000 00000000 00000000 83 00 0200 5003"
    )
    device.receive_data(OBSERVED_64)
    assert drain(device) == OBSERVED_64_PACKETS


@pytest.mark.parametrize("capabilities", [DEVICE_CAPABILITIES, NO_CAPABILITIES])
@pytest.mark.parametrize("speaks", [True, False])
def test_a_hello_that_was_said_too_much_is_completed(
    capabilities: Capability, *, speaks: bool
) -> None:
    session = Session(capabilities, frozenset({0x83}))
    device = Connection(Role.DEVICE, previous=session)
    hello = device.send(device.hello)
    if speaks:
        device.receive_data(OBSERVED_64 if Capability.IDS_64BITS in capabilities else OBSERVED_32)
        drain(device)
    else:
        device.resume()
    news = InterruptPacket(0x83, b"\x50\x03")
    said = hello + device.send(news) + device.send(news)

    # QEMU reads so: with headers of the session that goes on.
    codec = Codec(capabilities)
    types = []
    while said:
        header = Header(*codec._header.unpack_from(said))
        types.append(header.type)
        said = said[codec.header_size + header.length :]
    assert types == [0, 103, 103]


def test_a_hello_in_a_resumed_session_is_refused() -> None:
    device = Connection(Role.DEVICE)
    device.resume()
    device.receive_data(QEMU_HELLO)

    with pytest.raises(RemoteProtocolError):
        device.next_event()


def test_a_connection_that_has_begun_is_not_resumed() -> None:
    begun = open_device()
    greeted = Connection(Role.DEVICE)
    greeted.receive_data(QEMU_HELLO)
    greeted.next_event()
    half_greeted = Connection(Role.DEVICE)
    half_greeted.receive_data(QEMU_HELLO[:20])
    half_greeted.next_event()
    greeting = Connection(Role.GUEST)
    greeting.send(greeting.hello)
    for connection in (begun, greeted, half_greeted, greeting):
        with pytest.raises(LocalProtocolError):
            connection.resume()


def test_a_cancel_of_a_request_before_the_migration_must_be_answered() -> None:
    device = Connection(Role.DEVICE)
    device.receive_data(struct.pack("<IIQ", 21, 0, 0xCAFE))

    assert device.next_event() == Resumed()
    event = device.next_event()
    answer = BulkPacket(0xCAFE, 0x00, 0, Status.CANCELLED)
    assert event == Cancelled(0xCAFE, answer=answer)
    assert device.send(answer) == bytes.fromhex(
        "65000000 0a000000 feca0000 00000000 0001 0000 00000000 0000"
    )
    with pytest.raises(LocalProtocolError):
        device.send(answer)


def test_after_a_migration_an_answer_of_our_own_is_not_given_twice() -> None:
    device = Connection(Role.DEVICE)
    guest = Connection(Role.GUEST)
    guest.resume()
    request = GetConfiguration(5)
    deliver_resumed(guest, request, device)
    cancel = guest.send(CancelDataPacket(5))
    device.send(ConfigurationStatus(5, Status.SUCCESS, 1))

    device.receive_data(cancel)

    assert drain(device) == [Cancelled(5)]


def test_cancels_of_unknown_requests_are_bounded() -> None:
    device = Connection(Role.DEVICE)
    device.resume()
    for request_id in range(65):
        device.receive_data(struct.pack("<IIQ", 21, 0, request_id))
    for _ in range(64):
        assert isinstance(device.next_event(), Cancelled)

    with pytest.raises(RemoteProtocolError):
        device.next_event()


# --- pieces, garbage and the end ---


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


def test_what_a_stopped_guest_has_not_read_is_repeated_once() -> None:
    device, guest = Connection(Role.DEVICE), Connection(Role.GUEST)
    connect(device, guest)
    for number in (1, 2, 3):
        deliver(guest, BulkPacket(number, 0x82, 64), device)
    answers = [BulkPacket(number, 0x82, data=bytes([number])) for number in (1, 2)]
    for answer in answers:
        device.send(answer)
    assert device.session.unheard == tuple(answers)

    resumed = Connection(Role.DEVICE, previous=device.session)
    there = Connection(Role.GUEST, previous=guest.session)
    there.resume()
    deliver_resumed(there, GetConfiguration(9), resumed)
    # The id 3 still waits, and has no answer that could be repeated.
    there.receive_data(resumed.repeat())
    assert drain(there) == answers
    assert resumed.repeat() == b""


def test_nothing_is_repeated_that_the_guest_has_read_or_asks_for_again() -> None:
    device, guest = Connection(Role.DEVICE), Connection(Role.GUEST)
    connect(device, guest)
    deliver(guest, BulkPacket(1, 0x82, 64), device)
    guest.receive_data(device.send(BulkPacket(1, 0x82, data=b"read")))
    drain(guest)
    deliver(guest, BulkPacket(2, 0x82, 64), device)
    guest.receive_data(device.send(BulkPacket(2, 0x82, data=b"perhaps not")))
    drain(guest)
    resumed = Connection(Role.DEVICE, previous=device.session)
    there = Connection(Role.GUEST, previous=guest.session)
    there.resume()
    deliver_resumed(there, BulkPacket(2, 0x82, 64), resumed)
    assert resumed.repeat() == b""


@pytest.mark.parametrize("cancel_first", [True, False])
def test_an_answer_that_is_repeated_is_the_only_one(*, cancel_first: bool) -> None:
    device, guest = Connection(Role.DEVICE), Connection(Role.GUEST)
    connect(device, guest)
    deliver(guest, BulkPacket(1, 0x82, 64), device)
    device.send(BulkPacket(1, 0x82, data=b"abc"))
    resumed = Connection(Role.DEVICE, previous=device.session)
    resumed.resume()
    cancel = struct.pack("<IIQ", 21, 0, 1)
    repeated = b"" if cancel_first else resumed.repeat()
    resumed.receive_data(cancel)
    (event,) = drain(resumed)
    assert isinstance(event, Cancelled)
    assert (event.answer is None) is bool(repeated)
    assert bool(repeated or resumed.repeat()) is not cancel_first
