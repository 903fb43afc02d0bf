# SPDX-License-Identifier: Apache-2.0
import pytest

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.usbredir import (
    GUEST_CAPABILITIES,
    MAX_PENDING,
    MAX_REMEMBERED,
    AltSettingStatus,
    Answer,
    BufferedBulkPacket,
    BulkPacket,
    BulkReceivingStatus,
    CancelDataPacket,
    Cancelled,
    ConfigurationStatus,
    ControlPacket,
    DeviceDisconnect,
    DeviceDisconnectAck,
    DevicePacket,
    GetAltSetting,
    GetConfiguration,
    GuestPacket,
    InterruptPacket,
    InterruptReceivingStatus,
    IsoPacket,
    IsoStreamStatus,
    LostData,
    Request,
    Reset,
    SetAltSetting,
    SetConfiguration,
    StartBulkReceiving,
    StartInterruptReceiving,
    StartIsoStream,
    Status,
    StopBulkReceiving,
    StopInterruptReceiving,
    StopIsoStream,
    TransferAnswer,
)
from usbredir_pair import (
    CONNECT,
    ENDPOINTS,
    GET,
    INTERFACES,
    READ,
    STALL,
    WRITE,
    Pair,
    connected,
    drain,
    forge,
    refused_by_both,
)

# --- streams ---

START, STOP = StartInterruptReceiving(0, 0x83), StopInterruptReceiving(0, 0x83)
DONE = InterruptReceivingStatus(0, Status.SUCCESS, 0x83)
STOPPED = InterruptReceivingStatus(0, STALL, 0x83)

STREAMS: list[tuple[Request, Request, Answer, DevicePacket]] = [
    (START, STOP, DONE, InterruptPacket(0x83, b"a")),
    (
        StartIsoStream(5, 0x84, 8, 2),
        StopIsoStream(5, 0x84),
        IsoStreamStatus(5, 0, 0x84),
        IsoPacket(0x84, b"a"),
    ),
    (
        StartBulkReceiving(5, 0, 64, 0x82, 2),
        StopBulkReceiving(5, 0, 0x82),
        BulkReceivingStatus(5, 0, 0x82, 0),
        BufferedBulkPacket(0x82, b"a"),
    ),
]


@pytest.mark.parametrize(("start", "stop", "done", "piece"), STREAMS, ids=str)
def test_pieces_are_sent_between_start_and_stop_only(
    start: Request, stop: Request, done: Answer, piece: DevicePacket
) -> None:
    pair = connected(GUEST_CAPABILITIES)
    with pytest.raises(LocalProtocolError):
        pair.device.send(piece)

    pair.guest_sends(start)
    assert pair.device_sends(done, piece) == [done, piece]
    pair.guest_sends(stop)
    with pytest.raises(LocalProtocolError):
        pair.device.send(piece)
    assert pair.device_sends(done) == [done]

    refused_by_both(pair, piece)


@pytest.mark.parametrize(("start", "stop", "done", "piece"), STREAMS, ids=str)
def test_pieces_may_cross_the_stop(
    start: Request, stop: Request, done: Answer, piece: DevicePacket
) -> None:
    pair = connected(GUEST_CAPABILITIES)
    pair.guest_sends(start)
    pair.device_sends(done)

    crossing = pair.device.send(piece)
    pair.guest_sends(stop)
    pair.guest.receive_data(crossing)

    assert drain(pair.guest) == [piece]
    assert pair.device_sends(done) == [done]


@pytest.mark.parametrize("piece", [InterruptPacket(0x84, b"a"), IsoPacket(0x83, b"a")])
def test_nothing_else_may_cross_the_stop(pair: Pair, piece: DevicePacket) -> None:
    pair.guest_sends(START)
    pair.device_sends(DONE)
    pair.guest.send(STOP)

    refused_by_both(pair, piece)


def test_pieces_are_counted_from_0_at_each_start(pair: Pair) -> None:
    def send_three() -> list[int]:
        pieces = pair.device_sends(DONE, *[InterruptPacket(0x83, b"a", id=77)] * 3)
        return [piece.id for piece in pieces if isinstance(piece, InterruptPacket)]

    pair.guest_sends(START)
    assert send_three() == [0, 1, 2]
    pair.guest_sends(STOP)
    pair.device_sends(DONE)
    pair.guest_sends(START)
    assert send_three() == [0, 1, 2]


def test_each_endpoint_is_counted_by_itself(pair: Pair) -> None:
    pair.guest_sends(START, StartInterruptReceiving(0, 0x84))

    events = pair.device_sends(
        InterruptPacket(0x83, b"a"), InterruptPacket(0x84, b"b"), InterruptPacket(0x83, b"c")
    )

    assert events == [
        InterruptPacket(0x83, b"a", 0),
        InterruptPacket(0x84, b"b", 0),
        InterruptPacket(0x83, b"c", 1),
    ]


def test_the_number_of_a_piece_has_32_bits(pair: Pair) -> None:
    pair.guest_sends(START)
    assert pair.device._exchange is not None
    pair.device._exchange._streams[InterruptPacket, 0x83] = 0xFFFFFFFF

    events = pair.device_sends(*[InterruptPacket(0x83, b"a")] * 2)

    assert [event.id for event in events if isinstance(event, InterruptPacket)] == [0xFFFFFFFF, 0]


def test_stop_and_start_with_the_same_id_are_answered_in_turn(pair: Pair) -> None:
    pair.guest_sends(START)
    pair.device_sends(DONE)

    assert pair.guest_sends(STOP, START, STOP, START) == [STOP, START, STOP, START]

    assert pair.device_sends(*[DONE] * 4) == [DONE] * 4
    refused_by_both(pair, DONE)


def test_a_start_that_fails_starts_nothing(pair: Pair) -> None:
    pair.guest_sends(START)
    assert pair.device_sends(STOPPED) == [STOPPED]

    refused_by_both(pair, InterruptPacket(0x83, b"a"))


def test_a_device_may_stop_a_stream_by_itself(pair: Pair) -> None:
    pair.guest_sends(START)
    pair.device_sends(DONE)

    assert pair.device_sends(STOPPED) == [STOPPED]

    assert not pair.device.is_receiving(0x83)
    refused_by_both(pair, InterruptPacket(0x83, b"a"))


def test_a_device_stops_only_streams_that_are_started(pair: Pair) -> None:
    with pytest.raises(LocalProtocolError):
        pair.device.send(STOPPED)
    pair.guest_sends(START)
    pair.device_sends(DONE)
    with pytest.raises(LocalProtocolError):
        pair.device.send(InterruptReceivingStatus(1, STALL, 0x83))

    refused_by_both(pair, DONE)


def test_iso_out_packets_need_no_answer(pair: Pair) -> None:
    piece = IsoPacket(0x04, b"a", 9)

    assert pair.guest_sends(piece, piece) == [piece, piece]
    assert pair.device.pending == ()


# --- cancelling ---


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (READ, BulkPacket(1, 0x82, 0, Status.CANCELLED)),
        (WRITE, BulkPacket(1, 0x01, 0, Status.CANCELLED)),
        (GET, ControlPacket(1, 0x80, 6, 0x80, 0x0100, 0, 0, Status.CANCELLED)),
        (SetConfiguration(1, 2), ConfigurationStatus(1, Status.CANCELLED, 2)),
        (GetConfiguration(1), ConfigurationStatus(1, Status.CANCELLED, 0)),
        (SetAltSetting(1, 0, 2), AltSettingStatus(1, Status.CANCELLED, 0, 2)),
        (GetAltSetting(1, 5), AltSettingStatus(1, Status.CANCELLED, 5, 0)),
    ],
    ids=str,
)
def test_a_request_that_waits_is_answered_as_cancelled(
    pair: Pair, request_: Request, answer: TransferAnswer
) -> None:
    pair.guest_sends(request_)

    assert pair.guest_sends(CancelDataPacket(1)) == [Cancelled(1, answer=answer)]
    assert pair.device_sends(answer) == [answer]

    assert pair.device.pending == ()
    assert pair.guest.pending == ()
    refused_by_both(pair, answer)


def test_a_cancelled_request_is_answered_with_nothing_else(pair: Pair) -> None:
    pair.guest_sends(READ, CancelDataPacket(1))

    with pytest.raises(LocalProtocolError):
        pair.device.send(READ.answer(b"a"))
    assert pair.device_sends(READ.answer(status=Status.CANCELLED))


def test_the_id_of_a_cancelled_request_may_be_used_before_the_answer(pair: Pair) -> None:
    cancelled = READ.answer(status=Status.CANCELLED)
    events = pair.guest_sends(READ, CancelDataPacket(1), READ)
    assert events == [READ, Cancelled(1, answer=cancelled), READ]
    with pytest.raises(LocalProtocolError):
        pair.device.send(READ.answer(b"a"))

    answers = [cancelled, READ.answer(b"a")]

    assert pair.device_sends(*answers) == answers
    assert pair.device.pending == ()
    assert pair.guest.pending == ()


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (WRITE, WRITE.answer()),
        (GET, GET.answer(b"a")),
        (GetConfiguration(1), ConfigurationStatus(1, 0, 1)),
    ],
    ids=str,
)
def test_a_cancelled_request_is_answered_before_any_other_with_its_id(
    pair: Pair, request_: Request, answer: TransferAnswer
) -> None:
    # QEMU takes the first answer with that id for the cancelled one, whatever its endpoint.
    pair.guest_sends(READ, CancelDataPacket(1), request_)
    with pytest.raises(LocalProtocolError):
        pair.device.send(answer)

    answers = [READ.answer(status=Status.CANCELLED), answer]

    assert pair.device_sends(*answers) == answers


def test_data_that_crosses_a_cancel_comes_back(pair: Pair) -> None:
    pair.guest_sends(READ)
    crossing = pair.device.send(READ.answer(b"abc"))

    events = pair.guest_sends(CancelDataPacket(1))
    pair.guest.receive_data(crossing)

    assert events == [Cancelled(1, lost=LostData(0x82, b"abc", 1))]
    assert drain(pair.guest) == [READ.answer(b"abc")]
    assert pair.device.pending == ()
    assert pair.guest.pending == ()
    with pytest.raises(LocalProtocolError):
        pair.device.send(READ.answer(status=Status.CANCELLED))


def test_after_a_crossing_the_id_is_free(pair: Pair) -> None:
    pair.guest_sends(READ)
    crossing = pair.device.send(READ.answer(b"abc"))
    pair.guest_sends(CancelDataPacket(1), READ)
    answer = pair.device.send(READ.answer(b"def"))

    pair.guest.receive_data(crossing + answer)

    assert drain(pair.guest) == [READ.answer(b"abc"), READ.answer(b"def")]
    assert pair.guest.pending == ()


def test_lost_pieces_say_in_which_order_they_were_sent(pair: Pair) -> None:
    reads = [BulkPacket(i, 0x82, 64) for i in range(3)]
    pair.guest_sends(*reads)
    for read in reads:
        pair.device.send(read.answer(bytes([read.id])))

    events = pair.guest_sends(*[CancelDataPacket(i) for i in (2, 0, 1)])

    lost = [event.lost for event in events if isinstance(event, Cancelled) and event.lost]
    assert [piece.data for piece in lost] == [b"\2", b"\0", b"\1"]
    assert [piece.data for piece in sorted(lost, key=lambda piece: piece.order)] == [
        b"\0",
        b"\1",
        b"\2",
    ]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (WRITE, WRITE.answer()),
        (READ, READ.answer()),
        (READ, READ.answer(status=STALL)),
        (GET, GET.answer(b"a")),
        (GetConfiguration(1), ConfigurationStatus(1, 0, 1)),
    ],
    ids=str,
)
def test_only_bulk_in_data_can_be_lost(pair: Pair, request_: Request, answer: Answer) -> None:
    pair.guest_sends(request_)
    pair.device.send(answer)

    assert pair.guest_sends(CancelDataPacket(1)) == [Cancelled(1)]


def test_data_is_lost_once(pair: Pair) -> None:
    pair.guest_sends(READ)
    pair.device.send(READ.answer(b"abc"))
    pair.guest_sends(CancelDataPacket(1))

    forge(pair.device, CancelDataPacket(1))

    assert drain(pair.device) == [Cancelled(1)]


def test_a_request_with_the_same_id_shows_that_the_data_was_seen(pair: Pair) -> None:
    pair.guest_sends(READ)
    pair.device_sends(READ.answer(b"abc"))

    events = pair.guest_sends(READ, CancelDataPacket(1))

    assert events == [READ, Cancelled(1, answer=READ.answer(status=Status.CANCELLED))]


def test_data_that_was_seen_is_not_lost_by_a_second_cancel(pair: Pair) -> None:
    pair.guest_sends(READ)
    pair.device_sends(READ.answer(b"abc"))
    pair.guest_sends(READ, CancelDataPacket(1))

    forge(pair.device, CancelDataPacket(1))

    assert drain(pair.device) == [Cancelled(1)]


@pytest.mark.parametrize("end", [Reset(), SetConfiguration(9, 1), SetAltSetting(9, 0, 0)])
def test_data_from_before_a_reset_or_a_new_setting_is_forgotten(
    pair: Pair, end: GuestPacket
) -> None:
    pair.guest_sends(READ)
    pair.device.send(READ.answer(b"abc"))

    assert pair.guest_sends(end, CancelDataPacket(1)) == [end, Cancelled(1)]


def test_data_of_a_device_that_left_is_forgotten(pair: Pair) -> None:
    pair.guest_sends(READ)
    pair.device_sends(READ.answer(b"abc"), DeviceDisconnect())
    pair.guest_sends(DeviceDisconnectAck())
    pair.device_sends(INTERFACES, ENDPOINTS, CONNECT)

    forge(pair.device, CancelDataPacket(1))

    assert drain(pair.device) == [Cancelled(1)]


def test_the_last_64_answers_are_remembered(pair: Pair) -> None:
    for number in range(MAX_REMEMBERED + 1):
        read = BulkPacket(number, 0x82, 64)
        pair.guest_sends(read)
        pair.device_sends(read.answer(b"abc"))

    forge(pair.device, CancelDataPacket(0))
    forge(pair.device, CancelDataPacket(1))

    assert drain(pair.device) == [Cancelled(0), Cancelled(1, lost=LostData(0x82, b"abc", 2))]


def test_other_answers_than_those_to_transfers_are_not_remembered(pair: Pair) -> None:
    pair.guest_sends(READ)
    pair.device.send(READ.answer(b"abc"))
    for number in range(100, 100 + MAX_REMEMBERED):
        interrupt = InterruptPacket(0x03, b"a", number)
        pair.guest_sends(interrupt)
        pair.device.send(interrupt.answer())

    assert pair.guest_sends(CancelDataPacket(1)) == [Cancelled(1, lost=LostData(0x82, b"abc", 1))]


def test_the_cancel_of_an_id_that_was_never_seen_needs_no_answer(pair: Pair) -> None:
    forge(pair.device, CancelDataPacket(7))

    assert drain(pair.device) == [Cancelled(7)]
    with pytest.raises(LocalProtocolError):
        pair.device.send(BulkPacket(7, 0x82, status=Status.CANCELLED))


def test_a_guest_cancels_only_what_waits(pair: Pair) -> None:
    with pytest.raises(LocalProtocolError):
        pair.guest.send(CancelDataPacket(1))
    pair.guest_sends(READ)
    pair.device_sends(READ.answer(b"a"))

    with pytest.raises(LocalProtocolError):
        pair.guest.send(CancelDataPacket(1))


def test_a_device_may_cancel_by_itself(pair: Pair) -> None:
    pair.guest_sends(READ)
    cancelled = READ.answer(status=Status.CANCELLED)

    assert pair.device_sends(cancelled) == [cancelled]


def test_cancelled_requests_count_until_they_are_answered(pair: Pair) -> None:
    for _ in range(MAX_PENDING):
        pair.guest_sends(READ, CancelDataPacket(1))

    forge(pair.device, READ)

    with pytest.raises(RemoteProtocolError):
        pair.device.next_event()


def test_lost_data_is_in_no_repr() -> None:
    assert "secret" not in repr(Cancelled(1, lost=LostData(0x82, b"secret", 1)))
