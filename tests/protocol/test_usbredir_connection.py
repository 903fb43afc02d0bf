# SPDX-License-Identifier: Apache-2.0
import struct

import pytest

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.events import NEED_DATA
from ccid_protocol.usbredir import (
    DEVICE_CAPABILITIES,
    GUEST_CAPABILITIES,
    NO_CAPABILITIES,
    BulkPacket,
    Capability,
    ConfigurationStatus,
    Connection,
    ControlPacket,
    DeviceConnect,
    DeviceDisconnect,
    DeviceDisconnectAck,
    EpInfo,
    FilterFilter,
    FilterReject,
    Hello,
    InterfaceInfo,
    InterruptPacket,
    InterruptReceivingStatus,
    Role,
    Session,
    SetConfiguration,
    StartInterruptReceiving,
    Status,
    negotiate,
)
from usbredir_device import (
    ENDPOINTS,
    OBSERVED_32,
    OBSERVED_32_PACKETS,
    OBSERVED_64,
    OBSERVED_64_PACKETS,
    QEMU_HELLO,
    QEMU_VERSION,
    connect,
    deliver,
    open_device,
)
from usbredir_pair import CONNECT, INTERFACES, drain


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
