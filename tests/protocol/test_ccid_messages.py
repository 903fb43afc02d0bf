# SPDX-License-Identifier: Apache-2.0
"""CCID bulk and interrupt messages against bytes laid out by Rev 1.1, 6.1 to 6.3."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ccid_protocol import LocalProtocolError, RemoteProtocolError
from ccid_protocol.ccid import (
    Abort,
    BadMessage,
    ClockCommand,
    ClockStatus,
    ClockStop,
    Command,
    CommandStatus,
    DataBlock,
    DataRateAndClockFrequency,
    Escape,
    EscapeResponse,
    GetParameters,
    GetSlotStatus,
    HardwareError,
    IccClock,
    IccPowerOff,
    IccPowerOn,
    IccStatus,
    LevelParameter,
    Mechanical,
    MechanicalFunction,
    MessageType,
    Notification,
    NotifySlotChange,
    Parameters,
    PowerSelect,
    ResetParameters,
    Response,
    Secure,
    SetDataRateAndClockFrequency,
    SetParameters,
    SlotChange,
    SlotError,
    SlotStatus,
    T0Apdu,
    T0Changes,
    T0Parameters,
    T1Parameters,
    XfrBlock,
    decode_command,
    decode_notification,
    decode_response,
    encode,
    encode_notification,
    failure,
    response_type,
)

ATR = bytes.fromhex("3BD518FF8091FE1FC38073C8211308")

COMMANDS: dict[str, Command] = {
    "62 00000000 02 07 01 0000": IccPowerOn(2, 7, PowerSelect.V5),
    "63 00000000 00 01 00 0000": IccPowerOff(0, 1),
    "65 00000000 0F FF 00 0000": GetSlotStatus(15, 255),
    "6F 05000000 00 02 00 0000 00A4040000": XfrBlock(0, 2, bytes.fromhex("00A4040000")),
    "6F 02000000 00 02 07 0100 00A4": XfrBlock(
        0, 2, bytes.fromhex("00A4"), 7, LevelParameter.BEGINS
    ),
    "6C 00000000 01 03 00 0000": GetParameters(1, 3),
    "6D 00000000 01 03 00 0000": ResetParameters(1, 3),
    "61 05000000 00 04 00 0000 1100000A00": SetParameters(0, 4, T0Parameters()),
    "61 07000000 00 04 01 0000 96110455 03FE12": SetParameters(
        0, 4, T1Parameters(9, 6, True, False, 4, 5, 5, ClockStop.EITHER, 254, 0x12)
    ),
    "6B 03000000 00 05 00 0000 010101": Escape(0, 5, b"\1\1\1"),
    "6E 00000000 00 06 01 0000": IccClock(0, 6, ClockCommand.STOP),
    "6A 00000000 00 07 03 C0FF": T0Apdu(
        0, 7, T0Changes.GET_RESPONSE | T0Changes.ENVELOPE, 0xC0, 0xFF
    ),
    "69 01000000 00 08 02 0000 04": Secure(0, 8, b"\4", 2),
    "71 00000000 00 09 05 0000": Mechanical(0, 9, MechanicalFunction.UNLOCK),
    "72 00000000 03 0A 00 0000": Abort(3, 10),
    "73 08000000 00 0B 00 0000 A00F0000 002A0000": SetDataRateAndClockFrequency(0, 11, 4000, 10752),
}

RESPONSES: dict[str, Response] = {
    "80 0F000000 00 07 00 00 00" + ATR.hex(): DataBlock(0, 7, IccStatus.ACTIVE, ATR),
    "80 00000000 01 07 42 FE 00": DataBlock(
        1,
        7,
        IccStatus.ABSENT,
        command_status=CommandStatus.FAILED,
        error=SlotError.ICC_MUTE,
    ),
    "80 00000000 00 07 80 01 00": DataBlock(
        0, 7, IccStatus.ACTIVE, command_status=CommandStatus.TIME_EXTENSION, error=1
    ),
    "80 02000000 00 07 00 00 03 9000": DataBlock(0, 7, IccStatus.ACTIVE, b"\x90\0", 3),
    "81 00000000 00 01 01 00 00": SlotStatus(0, 1, IccStatus.INACTIVE),
    "81 00000000 00 01 00 00 02": SlotStatus(0, 1, IccStatus.ACTIVE, ClockStatus.STOPPED_HIGH),
    "82 05000000 00 02 00 00 00 1100000A00": Parameters(0, 2, IccStatus.ACTIVE, T0Parameters()),
    "82 07000000 00 02 00 00 01 1110004D002000": Parameters(0, 2, IccStatus.ACTIVE, T1Parameters()),
    "82 00000000 00 02 40 0A 00": Parameters(
        0, 2, IccStatus.ACTIVE, command_status=CommandStatus.FAILED, error=10
    ),
    "83 02000000 00 03 02 00 00 3132": EscapeResponse(0, 3, IccStatus.ABSENT, b"12"),
    "84 08000000 00 04 00 00 00 A00F0000 002A0000": DataRateAndClockFrequency(
        0, 4, IccStatus.ACTIVE, 4000, 10752
    ),
}

bytes_of_one = st.integers(0, 255)
double_words = st.integers(0, 2**32 - 1)
payloads = st.binary(max_size=300)
headers = {"slot": bytes_of_one, "seq": bytes_of_one}

factors = {
    "findex": st.sampled_from([0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13]),
    "dindex": st.integers(1, 9),
    "inverse": st.booleans(),
    "guard_time": bytes_of_one,
    "clock_stop": st.sampled_from(ClockStop),
}
t0_parameters = st.builds(T0Parameters, **factors, waiting_integer=st.integers(1, 255))
t1_parameters = st.builds(
    T1Parameters,
    **factors,
    crc=st.booleans(),
    bwi=st.integers(0, 9),
    cwi=st.integers(0, 15),
    ifsc=st.integers(1, 254),
    nad=st.sampled_from([0, 0x01, 0x10, 0x12, 0x21, 0x76, 0x67]),
)
transfers = {**headers, "data": payloads, "bwi": bytes_of_one, "level": st.integers(0, 0xFFFF)}
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(IccPowerOn, **headers, power_select=st.sampled_from(PowerSelect)),
    st.builds(IccPowerOff, **headers),
    st.builds(GetSlotStatus, **headers),
    st.builds(XfrBlock, **transfers),
    st.builds(GetParameters, **headers),
    st.builds(ResetParameters, **headers),
    st.builds(SetParameters, **headers, parameters=t0_parameters | t1_parameters),
    st.builds(Escape, **headers, data=payloads),
    st.builds(IccClock, **headers, clock_command=st.sampled_from(ClockCommand)),
    st.builds(
        T0Apdu,
        **headers,
        changes=st.integers(0, 3).map(T0Changes),
        class_get_response=bytes_of_one,
        class_envelope=bytes_of_one,
    ),
    st.builds(Secure, **transfers),
    st.builds(Mechanical, **headers, function=st.sampled_from(MechanicalFunction)),
    st.builds(Abort, **headers),
    st.builds(
        SetDataRateAndClockFrequency,
        **headers,
        clock_frequency=double_words,
        data_rate=double_words,
    ),
)


@st.composite
def responses(draw: st.DrawFn) -> Response:
    status = draw(st.sampled_from(CommandStatus))
    outcome = {
        **headers,
        "icc_status": st.sampled_from(IccStatus),
        "command_status": st.just(status),
        "error": st.just(0) if status is CommandStatus.OK else bytes_of_one,
    }
    structures: st.SearchStrategy[T0Parameters | T1Parameters | None] = (
        t0_parameters | t1_parameters
    )
    if status is CommandStatus.FAILED:
        structures = structures | st.none()
    strategy: st.SearchStrategy[Response] = st.one_of(
        st.builds(DataBlock, **outcome, data=payloads, chain=bytes_of_one),
        st.builds(SlotStatus, **outcome, clock_status=st.sampled_from(ClockStatus)),
        st.builds(Parameters, **outcome, parameters=structures),
        st.builds(EscapeResponse, **outcome, data=payloads),
        st.builds(
            DataRateAndClockFrequency,
            **outcome,
            clock_frequency=double_words,
            data_rate=double_words,
        ),
    )
    return draw(strategy)


notifications: st.SearchStrategy[Notification] = st.one_of(
    st.builds(HardwareError, **headers, code=bytes_of_one),
    st.lists(st.builds(SlotChange, st.booleans(), st.booleans()), min_size=1, max_size=28).map(
        lambda slots: NotifySlotChange(tuple(slots))
    ),
)


@pytest.mark.parametrize(("raw", "command"), COMMANDS.items())
def test_a_message_to_the_reader_has_the_bytes_of_the_specification(
    raw: str, command: Command
) -> None:
    assert encode(command) == bytes.fromhex(raw)
    assert decode_command(bytes.fromhex(raw)) == command


@pytest.mark.parametrize(("raw", "response"), RESPONSES.items())
def test_a_message_to_the_host_has_the_bytes_of_the_specification(
    raw: str, response: Response
) -> None:
    assert encode(response) == bytes.fromhex(raw)
    assert decode_response(bytes.fromhex(raw)) == response


def test_the_vectors_hold_every_message() -> None:
    sent = {command.message_type for command in COMMANDS.values()}
    sent |= {response.message_type for response in RESPONSES.values()}
    assert sent == set(MessageType) - {MessageType.NOTIFY_SLOT_CHANGE, MessageType.HARDWARE_ERROR}


@given(commands)
def test_a_message_to_the_reader_survives_its_encoding(command: Command) -> None:
    assert decode_command(encode(command)) == command


@given(responses())
def test_a_message_to_the_host_survives_its_encoding(response: Response) -> None:
    assert decode_response(encode(response)) == response


@given(notifications)
def test_a_notification_survives_its_encoding(notification: Notification) -> None:
    slots = len(notification.slots) if isinstance(notification, NotifySlotChange) else 1
    assert decode_notification(encode_notification(notification), slots) == notification


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ("00 00000000 01 02 000000", 0),
        ("80 00000000 01 02 000000", 0),
        ("00 05000000 01 02 000000", 0),
        ("62 01000000 01 02 000000 00", 1),
        ("62 01000000 01 02 000000", 1),
        ("62 00000000 01 02 000000 00", 1),
        ("62 00000000 01 02 040000", 7),
        ("63 01000000 01 02 000000 00", 1),
        ("65 01000000 01 02 000000 00", 1),
        ("6C 01000000 01 02 000000 00", 1),
        ("6D 01000000 01 02 000000 00", 1),
        ("61 05000000 01 02 020000 1100000A00", 7),
        ("61 05000000 01 02 800000 1100000A00", 7),
        ("61 00000000 01 02 000000", 1),
        ("61 07000000 01 02 000000 1110004D002000", 1),
        ("61 05000000 01 02 010000 1100000A00", 1),
        ("61 05000000 01 02 000000 7100000A00", 10),
        ("61 05000000 01 02 000000 1101000A00", 11),
        ("61 05000000 01 02 000000 1100000000", 13),
        ("61 05000000 01 02 000000 1100000A04", 14),
        ("61 07000000 01 02 010000 1110004D00FF00", 15),
        ("61 07000000 01 02 010000 1110004D002011", 16),
        ("6E 01000000 01 02 000000 00", 1),
        ("6E 00000000 01 02 020000", 7),
        ("6A 01000000 01 02 000000 00", 1),
        ("6A 00000000 01 02 040000", 7),
        ("71 01000000 01 02 010000 00", 1),
        ("71 00000000 01 02 000000", 7),
        ("71 00000000 01 02 060000", 7),
        ("72 01000000 01 02 000000 00", 1),
        ("73 07000000 01 02 000000 A00F0000002A00", 1),
    ],
)
def test_a_bad_message_is_told_by_the_offset_of_its_bad_field(raw: str, error: int) -> None:
    message = bytes.fromhex(raw)
    assert decode_command(message) == BadMessage(message[0], 1, 2, error)


@pytest.mark.parametrize("message_type", ["6F", "69"])
def test_wlevelparameter_is_checked_at_the_extended_apdu_level_only(message_type: str) -> None:
    message = bytes.fromhex(f"{message_type} 01000000 01 02 00 0400 00")
    bad = BadMessage(message[0], 1, 2, 8)
    assert decode_command(message, extended_apdu=True) == bad
    assert not isinstance(decode_command(message), BadMessage)
    for level in LevelParameter:
        good = message[:8] + level.to_bytes(2, "little")
        empty = good[:1] + bytes(4) + good[5:]
        assert not isinstance(decode_command(empty, extended_apdu=True), BadMessage)


def test_the_request_for_a_piece_of_the_response_has_no_data() -> None:
    message = encode(XfrBlock(1, 2, b"\0", level=LevelParameter.NEXT_RESPONSE_PIECE))
    bad = BadMessage(MessageType.XFR_BLOCK, 1, 2, 1)
    assert decode_command(message, extended_apdu=True) == bad


def test_rfu_bytes_of_a_message_to_the_reader_are_ignored() -> None:
    raw = bytes.fromhex("65 00000000 00 01 FF FFFF")
    assert decode_command(raw) == GetSlotStatus(0, 1)


@given(st.binary(min_size=10, max_size=40))
@example(bytes.fromhex("FF FFFFFFFF FF FF FF FFFF"))
def test_every_message_with_a_header_can_be_answered(raw: bytes) -> None:
    message = decode_command(raw, extended_apdu=True)
    answer = failure(message, IccStatus.ACTIVE, SlotError.HW_ERROR)
    encoded = encode(answer)
    assert (encoded[5], encoded[6]) == (raw[5], raw[6])
    assert decode_response(encoded) == answer


@given(st.binary(max_size=9))
def test_a_message_without_a_header_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{len(raw)} bytes"):
        decode_command(raw)


ANSWERS = {
    MessageType.ICC_POWER_ON: MessageType.DATA_BLOCK,
    MessageType.ICC_POWER_OFF: MessageType.SLOT_STATUS,
    MessageType.GET_SLOT_STATUS: MessageType.SLOT_STATUS,
    MessageType.XFR_BLOCK: MessageType.DATA_BLOCK,
    MessageType.GET_PARAMETERS: MessageType.PARAMETERS,
    MessageType.RESET_PARAMETERS: MessageType.PARAMETERS,
    MessageType.SET_PARAMETERS: MessageType.PARAMETERS,
    MessageType.ESCAPE: MessageType.ESCAPE_RESPONSE,
    MessageType.ICC_CLOCK: MessageType.SLOT_STATUS,
    MessageType.T0_APDU: MessageType.SLOT_STATUS,
    MessageType.SECURE: MessageType.DATA_BLOCK,
    MessageType.MECHANICAL: MessageType.SLOT_STATUS,
    MessageType.ABORT: MessageType.SLOT_STATUS,
    MessageType.SET_DATA_RATE_AND_CLOCK_FREQUENCY: MessageType.DATA_RATE_AND_CLOCK_FREQUENCY,
}


@pytest.mark.parametrize("command", COMMANDS.values())
def test_each_message_is_answered_by_its_own_type(command: Command) -> None:
    answer = failure(command, IccStatus.ABSENT, SlotError.ICC_MUTE)
    assert answer.message_type == ANSWERS[command.message_type]
    assert type(answer) is response_type(command.message_type)
    assert (answer.slot, answer.seq) == (command.slot, command.seq)
    assert encode(answer)[7:9] == b"\x42\xfe"


def test_an_unknown_message_is_answered_by_slot_status() -> None:
    bad = decode_command(bytes.fromhex("99 00000000 07 08 000000"))
    answer = failure(bad, IccStatus.INACTIVE, SlotError.CMD_NOT_SUPPORTED)
    assert encode(answer) == bytes.fromhex("81 00000000 07 08 41 00 00")


def test_the_failure_of_setting_a_data_rate_has_its_eight_bytes() -> None:
    answer = failure(SetDataRateAndClockFrequency(0, 1, 1, 1), IccStatus.ACTIVE, 0)
    assert encode(answer) == bytes.fromhex("84 08000000 00 01 40 00 00") + bytes(8)


@pytest.mark.parametrize(
    "message",
    [
        IccPowerOff(256, 0),
        IccPowerOff(0, -1),
        XfrBlock(0, 0, b"", 256),
        XfrBlock(0, 0, b"", 0, 0x10000),
        T0Apdu(0, 0, T0Changes.ENVELOPE, 0, 256),
        SetDataRateAndClockFrequency(0, 0, 2**32, 0),
        SetParameters(0, 0, T0Parameters(findex=7)),
        DataBlock(0, 0, IccStatus.ACTIVE, b"", 256),
        DataBlock(0, 0, IccStatus.ACTIVE, error=1),
        SlotStatus(0, 0, IccStatus.ACTIVE, command_status=CommandStatus.FAILED, error=256),
        Parameters(0, 0, IccStatus.ACTIVE),
        DataRateAndClockFrequency(0, 0, IccStatus.ACTIVE, 0, -1),
    ],
)
def test_a_message_that_cannot_be_is_not_encoded(message: Command | Response) -> None:
    with pytest.raises(LocalProtocolError):
        encode(message)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "81 00000000 00 00 00 00",
        "81 01000000 00 00 00 00 00",
        "81 01000000 00 00 00 00 00 00",
        "81 00000000 00 00 03 00 00",
        "81 00000000 00 00 C0 00 00",
        "81 00000000 00 00 00 01 00",
        "81 00000000 00 00 00 00 04",
        "82 00000000 00 00 00 00 00",
        "82 05000000 00 00 00 00 02 1100000A00",
        "82 05000000 00 00 00 00 01 1100000A00",
        "82 05000000 00 00 00 00 00 7100000A00",
        "84 00000000 00 00 00 00 00",
        "65 00000000 00 00 00 00 00",
    ],
)
def test_a_bad_message_to_the_host_is_refused(raw: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_response(bytes.fromhex(raw))


@given(st.binary(max_size=32), st.integers(1, 28))
def test_whatever_comes_to_the_host_only_the_protocol_error_leaves_the_decoders(
    raw: bytes, slots: int
) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode_response(raw)
    with contextlib.suppress(RemoteProtocolError):
        decode_notification(raw, slots)


@pytest.mark.parametrize(
    ("raw", "slots"),
    [
        ("50 00", ((False, False),)),
        ("50 03", ((True, True),)),
        ("50 02", ((False, True),)),
        ("50 0D", ((True, False), (True, True))),
        ("50 00 03", (*((False, False),) * 4, (True, True))),
        ("50 00 00 00 C0", (*((False, False),) * 15, (True, True))),
    ],
)
def test_slot_changes_are_two_bits_a_slot(raw: str, slots: tuple[tuple[bool, bool], ...]) -> None:
    notification = NotifySlotChange(tuple(SlotChange(*slot) for slot in slots))
    assert encode_notification(notification) == bytes.fromhex(raw)
    assert decode_notification(bytes.fromhex(raw), len(slots)) == notification


def test_a_hardware_error_is_four_bytes_without_a_header() -> None:
    raw = bytes.fromhex("51 02 09 01")
    assert encode_notification(HardwareError(2, 9)) == raw
    assert decode_notification(raw, 3) == HardwareError(2, 9)


@pytest.mark.parametrize("notification", [NotifySlotChange(()), HardwareError(0, 256)])
def test_a_notification_that_cannot_be_is_not_encoded(notification: Notification) -> None:
    with pytest.raises(LocalProtocolError):
        encode_notification(notification)


@pytest.mark.parametrize("raw", ["", "50", "50 03 00", "50 04", "51 00 00", "51 00 00 01 00", "52"])
def test_a_bad_notification_is_refused(raw: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_notification(bytes.fromhex(raw), 1)


def test_what_goes_to_and_from_a_card_is_not_in_a_repr() -> None:
    messages = (
        XfrBlock(0, 0, b"123456"),
        Secure(0, 0, b"123456"),
        Escape(0, 0, b"123456"),
        DataBlock(0, 0, IccStatus.ACTIVE, b"123456"),
        EscapeResponse(0, 0, IccStatus.ACTIVE, b"123456"),
    )
    for message in messages:
        assert "123456" not in repr(message)
