# SPDX-License-Identifier: Apache-2.0
"""A session that goes on in another connection, after a migration of the guest."""

import struct

import pytest

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.events import NEED_DATA
from ccid_protocol.usbredir import (
    DEVICE_CAPABILITIES,
    NO_CAPABILITIES,
    BulkPacket,
    CancelDataPacket,
    Cancelled,
    Capability,
    ConfigurationStatus,
    Connection,
    ControlPacket,
    Event,
    GetConfiguration,
    InterruptPacket,
    Packet,
    Reset,
    Resumed,
    Role,
    Session,
    StartInterruptReceiving,
    Status,
)
from ccid_protocol.usbredir.codec import Codec, Header
from usbredir_device import (
    OBSERVED_32,
    OBSERVED_32_PACKETS,
    OBSERVED_64,
    OBSERVED_64_PACKETS,
    QEMU_HELLO,
    connect,
    deliver,
    open_device,
)
from usbredir_pair import drain


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
