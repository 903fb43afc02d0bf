# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.events import NEED_DATA
from ccid_protocol.usbredir import (
    DEVICE_CAPABILITIES,
    GUEST_CAPABILITIES,
    MAX_PENDING,
    AllocBulkStreams,
    AltSettingStatus,
    Answer,
    BulkPacket,
    BulkReceivingStatus,
    BulkStreamsStatus,
    CancelDataPacket,
    Capability,
    ConfigurationStatus,
    ControlPacket,
    DeviceDisconnect,
    DeviceDisconnectAck,
    DevicePacket,
    FilterFilter,
    FilterReject,
    FreeBulkStreams,
    GetAltSetting,
    GetConfiguration,
    GuestPacket,
    InterruptPacket,
    InterruptReceivingStatus,
    IsoPacket,
    IsoStreamStatus,
    Packet,
    Request,
    Reset,
    SetAltSetting,
    SetConfiguration,
    StartBulkReceiving,
    StartInterruptReceiving,
    StartIsoStream,
    StopBulkReceiving,
    StopInterruptReceiving,
    StopIsoStream,
)
from usbredir_pair import (
    CONNECT,
    ENDPOINTS,
    GET,
    INTERFACES,
    READ,
    SET,
    STALL,
    WRITE,
    Pair,
    connected,
    drain,
    forge,
    refused_by_both,
)


def refused_from_guest(pair: Pair, packet: GuestPacket) -> None:
    """Holds that the guest does not send a packet, and that the device does not take it."""
    with pytest.raises(LocalProtocolError):
        pair.guest.send(packet)
    forge(pair.device, packet)
    with pytest.raises(RemoteProtocolError):
        pair.device.next_event()


# --- the device comes and goes ---


@pytest.mark.parametrize("tables", [[], [INTERFACES], [ENDPOINTS], [ENDPOINTS, ENDPOINTS]])
def test_the_device_connects_with_both_tables_only(tables: Sequence[Packet]) -> None:
    pair = Pair()
    pair.device_sends(*tables)

    refused_by_both(pair, CONNECT)


def test_the_tables_may_come_in_either_order() -> None:
    pair = Pair()

    assert pair.device_sends(ENDPOINTS, INTERFACES, CONNECT) == [ENDPOINTS, INTERFACES, CONNECT]
    assert pair.device.is_connected
    assert pair.guest.is_connected


def test_a_device_connects_once(pair: Pair) -> None:
    pair.device_sends(INTERFACES, ENDPOINTS)

    refused_by_both(pair, CONNECT)


def test_only_a_connected_device_disconnects() -> None:
    refused_by_both(Pair(), DeviceDisconnect())


def test_after_a_disconnect_the_tables_are_due_again(pair: Pair) -> None:
    pair.device_sends(DeviceDisconnect())
    pair.guest_sends(DeviceDisconnectAck())

    refused_by_both(pair, CONNECT)


def test_a_device_waits_for_the_acknowledgement(pair: Pair) -> None:
    pair.device_sends(DeviceDisconnect(), INTERFACES, ENDPOINTS)
    with pytest.raises(LocalProtocolError):
        pair.device.send(CONNECT)

    assert pair.guest_sends(DeviceDisconnectAck()) == [DeviceDisconnectAck()]

    assert pair.device_sends(CONNECT) == [CONNECT]


def test_a_guest_refuses_a_device_that_does_not_wait(pair: Pair) -> None:
    pair.device_sends(DeviceDisconnect(), INTERFACES, ENDPOINTS)
    forge(pair.guest, CONNECT)

    with pytest.raises(RemoteProtocolError):
        pair.guest.next_event()


def test_without_the_capability_a_device_comes_back_at_once() -> None:
    pair = connected(DEVICE_CAPABILITIES ^ Capability.DEVICE_DISCONNECT_ACK)
    pair.device_sends(DeviceDisconnect(), INTERFACES, ENDPOINTS)

    assert pair.device_sends(CONNECT) == [CONNECT]


@pytest.mark.parametrize("times", [0, 2])
def test_an_acknowledgement_answers_one_disconnect(pair: Pair, times: int) -> None:
    if times:
        pair.device_sends(DeviceDisconnect())
        pair.guest_sends(DeviceDisconnectAck())

    refused_from_guest(pair, DeviceDisconnectAck())


def test_what_crosses_a_disconnect_is_dropped(pair: Pair) -> None:
    crossing = b"".join(
        pair.guest.send(packet)
        for packet in (
            Reset(),
            GetConfiguration(1),
            BulkPacket(2, 0x82, 64),
            CancelDataPacket(2),
            StartInterruptReceiving(0, 0x83),
            IsoPacket(0x04, b"a"),
        )
    )
    pair.device_sends(DeviceDisconnect())

    pair.device.receive_data(crossing + pair.guest.send(DeviceDisconnectAck()))

    assert drain(pair.device) == [DeviceDisconnectAck()]
    assert pair.device.pending == ()
    assert not pair.device.is_receiving(0x83)


def test_without_acknowledgements_requests_are_dropped_until_the_device_is_back() -> None:
    pair = connected(DEVICE_CAPABILITIES ^ Capability.DEVICE_DISCONNECT_ACK)
    crossing = pair.guest.send(GetConfiguration(1))
    pair.device_sends(DeviceDisconnect(), INTERFACES, ENDPOINTS)
    pair.device.receive_data(crossing)
    assert drain(pair.device) == []

    pair.device_sends(CONNECT)

    assert pair.guest_sends(GetConfiguration(1)) == [GetConfiguration(1)]


@pytest.mark.parametrize("request_", [GetConfiguration(1), BulkPacket(1, 0x82, 1)])
def test_there_are_no_requests_without_a_device(request_: GuestPacket) -> None:
    refused_from_guest(Pair(), request_)


def test_there_are_no_requests_after_the_acknowledgement(pair: Pair) -> None:
    pair.device_sends(DeviceDisconnect())
    pair.guest_sends(DeviceDisconnectAck())

    refused_from_guest(pair, BulkPacket(1, 0x82, 1))


@pytest.mark.parametrize("late", [Reset(), CancelDataPacket(1)])
def test_a_guest_may_tidy_up_late(pair: Pair, late: GuestPacket) -> None:
    pair.device_sends(DeviceDisconnect())
    pair.guest_sends(DeviceDisconnectAck())
    with pytest.raises(LocalProtocolError):
        pair.guest.send(late)

    forge(pair.device, late)

    assert drain(pair.device) == []


@pytest.mark.parametrize(
    "packet",
    [
        ConfigurationStatus(1, 0, 1),
        BulkPacket(1, 0x82),
        InterruptPacket(0x83, b"a"),
        IsoStreamStatus(0, STALL, 0x84),
    ],
)
def test_without_a_device_nothing_is_answered(packet: DevicePacket) -> None:
    refused_by_both(Pair(), packet)


def test_a_disconnect_ends_requests_and_streams(pair: Pair) -> None:
    pair.guest_sends(BulkPacket(1, 0x82, 64), StartInterruptReceiving(0, 0x83))
    pair.device_sends(DeviceDisconnect())
    pair.guest_sends(DeviceDisconnectAck())
    pair.device_sends(INTERFACES, ENDPOINTS, CONNECT)

    assert pair.device.pending == ()
    with pytest.raises(LocalProtocolError):
        pair.device.send(BulkPacket(1, 0x82, data=b"a"))
    with pytest.raises(LocalProtocolError):
        pair.device.send(InterruptPacket(0x83, b"a"))


def test_a_disconnect_ends_cancelled_requests_too(pair: Pair) -> None:
    pair.guest_sends(READ, CancelDataPacket(1))
    pair.device_sends(DeviceDisconnect())
    pair.guest_sends(DeviceDisconnectAck())
    pair.device_sends(INTERFACES, ENDPOINTS, CONNECT)

    assert pair.guest_sends(READ) == [READ]
    assert pair.device_sends(READ.answer(b"a")) == [READ.answer(b"a")]


def test_filters_may_be_sent_at_any_time(pair: Pair) -> None:
    for some in (Pair(), pair):
        assert some.guest_sends(FilterFilter("x")) == [FilterFilter("x")]
        assert some.device_sends(FilterFilter("y")) == [FilterFilter("y")]
        assert some.guest_sends(FilterReject()) == [FilterReject()]


INTERRUPT = InterruptPacket(0x03, b"ab", 1)

EXCHANGES: list[tuple[Request, Answer]] = [
    (SetConfiguration(1, 1), ConfigurationStatus(1, STALL, 0)),
    (GetConfiguration(1), ConfigurationStatus(1, 0, 1)),
    (SetAltSetting(1, 0, 1), AltSettingStatus(1, STALL, 0, 0)),
    (GetAltSetting(1, 0), AltSettingStatus(1, 0, 0, 0)),
    (StartIsoStream(1, 0x84, 1, 1), IsoStreamStatus(1, 0, 0x84)),
    (StopIsoStream(1, 0x84), IsoStreamStatus(1, 0, 0x84)),
    (StartInterruptReceiving(1, 0x83), InterruptReceivingStatus(1, 0, 0x83)),
    (StopInterruptReceiving(1, 0x83), InterruptReceivingStatus(1, 0, 0x83)),
    (AllocBulkStreams(1, 0x40000, 4), BulkStreamsStatus(1, 0x40000, 4, 0)),
    (FreeBulkStreams(1, 0x40000), BulkStreamsStatus(1, 0x40000, 0, 0)),
    (StartBulkReceiving(1, 0, 64, 0x82, 1), BulkReceivingStatus(1, 0, 0x82, 0)),
    (StopBulkReceiving(1, 0, 0x82), BulkReceivingStatus(1, 0, 0x82, 0)),
    (GET, GET.answer(b"abc")),
    (SET, SET.answer()),
    (READ, READ.answer(b"abc")),
    (WRITE, WRITE.answer()),
    (INTERRUPT, INTERRUPT.answer()),
]


@pytest.mark.parametrize(("request_", "answer"), EXCHANGES, ids=str)
def test_a_request_is_answered_once(request_: Request, answer: Answer) -> None:
    pair = connected(GUEST_CAPABILITIES)
    with pytest.raises(LocalProtocolError):
        pair.device.send(answer)

    assert pair.guest_sends(request_) == [request_]
    assert [request.id for request in pair.device.pending] == [1]
    assert [request.id for request in pair.guest.pending] == [1]
    assert pair.device_sends(answer) == [answer]

    assert pair.device.pending == ()
    assert pair.guest.pending == ()
    refused_by_both(pair, answer)


@pytest.mark.parametrize(("request_", "answer"), EXCHANGES, ids=str)
def test_an_answer_has_the_kind_and_the_target_of_its_request(
    request_: Request, answer: Answer
) -> None:
    pair = connected(GUEST_CAPABILITIES)
    pair.guest_sends(request_)
    for other in (
        ConfigurationStatus(1, 0, 1),
        AltSettingStatus(1, 0, 0, 0),
        AltSettingStatus(1, 0, 7, 0),
        IsoStreamStatus(1, 0, 0x84),
        IsoStreamStatus(1, 0, 0x85),
        InterruptReceivingStatus(1, 0, 0x83),
        InterruptReceivingStatus(1, 0, 0x85),
        BulkStreamsStatus(1, 0x40000, 4, 0),
        BulkStreamsStatus(1, 0x80000, 4, 0),
        BulkReceivingStatus(1, 0, 0x82, 0),
        BulkReceivingStatus(1, 0, 0x85, 0),
        BulkPacket(1, 0x82),
        BulkPacket(1, 0x01),
        ControlPacket(1, 0x80, 6, 0x80, 0x0100, 0),
        ControlPacket(1, 0x00, 9, 0x21, 0x0200, 0),
        InterruptPacket(0x03, id=1),
        InterruptPacket(0x04, id=1),
    ):
        same_kind = type(other) is type(answer)
        target = ("endpoint", "endpoints", "interface")
        if same_kind and all(getattr(other, t, 0) == getattr(answer, t, 0) for t in target):
            continue
        with pytest.raises(LocalProtocolError):
            pair.device.send(other)

    assert pair.device_sends(answer) == [answer]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (READ, BulkPacket(1, 0x82, data=bytes(65))),
        (READ, BulkPacket(1, 0x82, data=b"a", stream_id=1)),
        (WRITE, BulkPacket(1, 0x01, 4)),
        (WRITE, BulkPacket(1, 0x01, 3, stream_id=1)),
        (GET, ControlPacket(1, 0x80, 6, 0x80, 0x0100, 0, data=bytes(19))),
        (GET, ControlPacket(1, 0x80, 7, 0x80, 0x0100, 0, data=b"a")),
        (GET, ControlPacket(1, 0x80, 6, 0x81, 0x0100, 0, data=b"a")),
        (GET, ControlPacket(1, 0x80, 6, 0x80, 0x0101, 0, data=b"a")),
        (GET, ControlPacket(1, 0x80, 6, 0x80, 0x0100, 1, data=b"a")),
        (SET, ControlPacket(1, 0x00, 9, 0x21, 0x0200, 0, 3)),
        (INTERRUPT, InterruptPacket(0x03, id=1, length=3)),
    ],
    ids=str,
)
def test_an_answer_repeats_its_request_and_is_no_longer(
    pair: Pair, request_: Request, answer: Answer
) -> None:
    pair.guest_sends(request_)

    refused_by_both(pair, answer)
    assert len(pair.device.pending) == 1


def test_an_answer_may_be_shorter_than_its_request(pair: Pair) -> None:
    for answer in (
        READ.answer(bytes(64)),
        READ.answer(b"a"),
        READ.answer(),
        READ.answer(status=STALL),
    ):
        pair.guest_sends(READ)
        assert pair.device_sends(answer) == [answer]
    pair.guest_sends(WRITE)
    assert pair.device_sends(BulkPacket(1, 0x01, 2)) == [BulkPacket(1, 0x01, 2)]


def test_requests_are_answered_in_any_order(pair: Pair) -> None:
    reads = [BulkPacket(i, 0x82, 64) for i in range(4)]
    pair.guest_sends(*reads)

    answers = [reads[i].answer(bytes([i])) for i in (2, 0, 3, 1)]

    assert pair.device_sends(*answers) == answers


def test_an_id_may_be_used_again_after_the_answer_only(pair: Pair) -> None:
    pair.guest_sends(READ)
    pair.device_sends(READ.answer(b"a"))
    pair.guest_sends(READ)

    refused_from_guest(pair, BulkPacket(READ.id, 0x01, data=b"a"))


@pytest.mark.parametrize("again", [GetConfiguration(1), GET, GetAltSetting(1, 0), READ])
def test_ids_of_transfers_of_different_kinds_differ_too(pair: Pair, again: GuestPacket) -> None:
    pair.guest_sends(WRITE)

    refused_from_guest(pair, again)


def test_interrupt_out_packets_may_share_an_id(pair: Pair) -> None:
    pair.guest_sends(INTERRUPT, InterruptPacket(0x03, b"abc", 1))

    answers = [INTERRUPT.answer(), InterruptPacket(0x03, id=1, length=3)]

    assert pair.device_sends(*answers) == answers


@pytest.mark.parametrize(("request_", "answer"), EXCHANGES, ids=str)
def test_no_more_than_64_requests_of_a_kind_wait(request_: Request, answer: Answer) -> None:
    pair = connected(GUEST_CAPABILITIES)
    requests = [replace(request_, id=number) for number in range(MAX_PENDING)]
    assert pair.guest_sends(*requests) == requests

    forge(pair.device, replace(request_, id=MAX_PENDING))

    with pytest.raises(RemoteProtocolError, match="64 such requests"):
        pair.device.next_event()


def test_reads_and_writes_wait_in_different_queues(pair: Pair) -> None:
    reads = [BulkPacket(i, 0x82, 64) for i in range(MAX_PENDING)]
    writes = [BulkPacket(100 + i, 0x01, data=b"a") for i in range(MAX_PENDING)]

    assert pair.guest_sends(*reads, *writes) == [*reads, *writes]


def test_a_guest_may_send_hundreds_of_writes_that_are_answered_at_once(pair: Pair) -> None:
    # As UHCI does with a long message.
    writes = [BulkPacket(i, 0x01, data=bytes(64)) for i in range(1024)]
    pair.device.receive_data(b"".join(pair.guest.send(write) for write in writes))

    for write in writes:
        assert pair.device.next_event() == write
        pair.guest.receive_data(pair.device.send(write.answer()))

    assert pair.device.next_event() is NEED_DATA
    assert drain(pair.guest) == [write.answer() for write in writes]


def test_what_waits_is_kept_without_its_data(pair: Pair) -> None:
    pair.guest_sends(WRITE)

    assert pair.device.pending == (BulkPacket(1, 0x01, 3),)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (SetConfiguration(1, 1), ConfigurationStatus(1, 0, 1)),
        (SetAltSetting(1, 0, 1), AltSettingStatus(1, 0, 0, 1)),
    ],
)
def test_a_new_setting_is_acknowledged_after_the_tables(
    pair: Pair, request_: Request, answer: Answer
) -> None:
    pair.guest_sends(request_)
    with pytest.raises(LocalProtocolError):
        pair.device.send(answer)
    pair.device_sends(INTERFACES)
    with pytest.raises(LocalProtocolError):
        pair.device.send(answer)
    pair.device_sends(ENDPOINTS)

    assert pair.device_sends(answer) == [answer]


def test_a_guest_refuses_a_new_setting_without_tables(pair: Pair) -> None:
    pair.guest_sends(SetConfiguration(1, 1))
    forge(pair.guest, ConfigurationStatus(1, 0, 1))

    with pytest.raises(RemoteProtocolError):
        pair.guest.next_event()


def test_a_refused_packet_changes_nothing(pair: Pair) -> None:
    pair.guest_sends(SetConfiguration(9, 1), READ, StartInterruptReceiving(0, 0x83))
    pair.device_sends(INTERFACES)
    before = (pair.device.pending, pair.device.session)
    for packet in (
        CONNECT,
        ConfigurationStatus(9, 0, 1),
        BulkPacket(1, 0x82, data=bytes(65)),
        BulkPacket(2, 0x82),
        InterruptPacket(0x84, b"a"),
        InterruptPacket(0x83, bytes(0x10000)),
        InterruptReceivingStatus(1, STALL, 0x83),
        Reset(),
    ):
        with pytest.raises(LocalProtocolError):
            pair.device.send(packet)

    assert (pair.device.pending, pair.device.session) == before
    assert pair.device_sends(InterruptPacket(0x83, b"a")) == [InterruptPacket(0x83, b"a")]
