# SPDX-License-Identifier: Apache-2.0
"""What a host sees of the reader's USB device, request by request and transfer by transfer."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import structlog
import trio
import trio.testing

from cards import ScriptedCard, echo_card
from ccid_protocol import ccid, usb
from ccid_protocol.ccid import (
    Abort,
    AbortRequest,
    BadMessage,
    CommandStatus,
    GetClockFrequencies,
    GetDataRates,
    GetSlotStatus,
    IccPowerOn,
    IccStatus,
    SlotError,
    XfrBlock,
    encode_control_request,
)
from ccid_protocol.usb import SetupPacket
from ccidd.card.card import Card
from ccidd.reader.profile import CLOCK, DATA_RATES, Level, default_profile
from ccidd.reader.slot import Slot
from ccidd.reader.usb_reader import BULK_IN, BULK_OUT, INTERRUPT_IN, MAX_UNREAD, UsbReader
from ccidd.reader.witness import Witness

PROFILE = replace(default_profile(1, "0123"), manufacturer="Maker", product="Thing", serial="0123")
ENDPOINTS = (BULK_OUT, BULK_IN, INTERRUPT_IN)


def reader(*cards: Card | None, configured: bool = True) -> UsbReader:
    """A reader whose cards do not work: nobody runs it."""
    slots = [Slot(card) for card in cards or (None,)]
    device = UsbReader(slots, replace(PROFILE, slots=len(slots)))
    if configured:
        assert device.set_configuration(1)
    return device


Start = Callable[..., Awaitable[UsbReader]]


@pytest.fixture
def start(nursery: trio.Nursery) -> Start:
    async def start(*cards: Card | None, configured: bool = True) -> UsbReader:
        device = reader(*cards, configured=configured)
        nursery.start_soon(device.run)
        await trio.testing.wait_all_tasks_blocked()
        return device

    return start


def read_bulk_in(device: UsbReader, size: int = 65556) -> bytes | None:
    piece = device.read_bulk_in(size)
    return None if piece is None else piece.data


async def ask(device: UsbReader, command: ccid.Command) -> ccid.Response:
    assert device.write_bulk_out(ccid.encode(command))
    await trio.testing.wait_all_tasks_blocked()
    answer = read_bulk_in(device, 65556)
    assert answer is not None
    return ccid.decode_response(answer)


# Descriptors.


def get_descriptor(kind: int, index: int = 0, length: int = 255, recipient: int = 0) -> SetupPacket:
    language = 0x0409 if kind == 3 else 0
    return SetupPacket(0x80 | recipient, 6, kind << 8 | index, language, length)


def test_the_device_descriptor_names_the_reader() -> None:
    raw = reader(configured=False).control(get_descriptor(1))
    assert raw is not None
    device = usb.DeviceDescriptor.decode(raw)
    assert (device.vendor_id, device.product_id) == (0x0E0F, 0x0004)
    # Class, subclass and protocol are the interface's.
    assert raw[4:7] == bytes(3)


def test_the_configuration_is_that_of_a_ccid_with_three_endpoints() -> None:
    raw = reader(configured=False).control(get_descriptor(2))
    assert raw is not None
    assert len(raw) == int.from_bytes(raw[2:4], "little") == 9 + 9 + 54 + 3 * 7
    (interface,) = usb.Configuration.decode(raw).interfaces
    assert interface.interface_class == 0x0B
    assert interface.class_descriptors == (PROFILE.class_descriptor().encode(),)
    assert [endpoint.address for endpoint in interface.endpoints] == list(ENDPOINTS)
    assert [endpoint.max_packet_size for endpoint in interface.endpoints] == [64, 64, 8]


@pytest.mark.parametrize(("index", "text"), [(1, "Maker"), (2, "Thing"), (3, "0123"), (4, "CCID")])
def test_strings_are_those_of_the_profile(index: int, text: str) -> None:
    raw = reader(configured=False).control(get_descriptor(3, index))
    assert raw is not None
    assert usb.decode_string(raw) == text


def test_the_only_language_is_english() -> None:
    assert reader().control(get_descriptor(3)) == b"\x04\x03\x09\x04"


def test_the_class_descriptor_can_be_asked_for() -> None:
    raw = reader().control(get_descriptor(0x21, recipient=1))
    assert raw == PROFILE.class_descriptor().encode()
    assert len(raw) == 54


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param(get_descriptor(1, 1), id="a second device"),
        pytest.param(get_descriptor(2, 1), id="a second configuration"),
        pytest.param(get_descriptor(3, 5), id="a string that is not there"),
        pytest.param(get_descriptor(3, 0xEE), id="the Microsoft OS string"),
        pytest.param(get_descriptor(4), id="an interface by itself"),
        pytest.param(get_descriptor(5), id="an endpoint by itself"),
        pytest.param(get_descriptor(6), id="the device qualifier"),
        pytest.param(get_descriptor(7), id="the other speed"),
        pytest.param(get_descriptor(0x0F), id="the BOS"),
        pytest.param(get_descriptor(0x21), id="a class descriptor of the device"),
        pytest.param(get_descriptor(0x22, recipient=1), id="a report"),
        pytest.param(SetupPacket(0x00, 7, 0x0100, 0, 18), id="SET_DESCRIPTOR"),
        pytest.param(SetupPacket(0x82, 12, 0, BULK_IN, 2), id="SYNCH_FRAME"),
        pytest.param(SetupPacket(0x00, 6, 0x0100, 0, 18), id="GET_DESCRIPTOR to the device"),
        pytest.param(SetupPacket(0x80, 9, 1), id="SET_CONFIGURATION from the device"),
        pytest.param(SetupPacket(0xC0, 1, 0, 0, 8), id="a vendor's request"),
        pytest.param(SetupPacket(0xE0, 0, 0, 0, 8), id="a reserved kind"),
        pytest.param(SetupPacket(0x80, 255, 0, 0, 8), id="an unknown request"),
        pytest.param(SetupPacket(0x01, 9, 0), id="SET_CONFIGURATION to an interface"),
        pytest.param(SetupPacket(0x82, 8, 0, 0, 1), id="GET_CONFIGURATION of an endpoint"),
        pytest.param(SetupPacket(0x00, 11, 0, 0), id="SET_INTERFACE to the device"),
        pytest.param(SetupPacket(0x80, 10, 0, 0, 1), id="GET_INTERFACE of the device"),
        pytest.param(get_descriptor(1, recipient=1), id="the device, asked of an interface"),
        pytest.param(get_descriptor(1, recipient=2), id="the device, asked of an endpoint"),
        pytest.param(SetupPacket(0x80, 0, 0, 1, 2), id="the status of a second device"),
    ],
)
@pytest.mark.parametrize("configured", [False, True])
def test_what_the_device_does_not_know_is_stalled(setup: SetupPacket, *, configured: bool) -> None:
    device = reader(configured=configured)
    assert device.control(setup) is None
    assert device.control(get_descriptor(1)) is not None


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("length", [0, 1, 4, 8, 9])
def test_no_more_is_given_than_wlength(kind: int, length: int) -> None:
    device = reader()
    whole = device.control(get_descriptor(kind, 2 if kind == 3 else 0, 65535))
    assert whole is not None
    assert device.control(get_descriptor(kind, 2 if kind == 3 else 0, length)) == whole[:length]


# Status, features, configurations, settings.


def get_status(recipient: int, index: int) -> SetupPacket:
    return SetupPacket(0x80 | recipient, 0, 0, index, 2)


def feature(request: int, recipient: int, selector: int, index: int) -> SetupPacket:
    return SetupPacket(recipient, request, selector, index)


CLEAR, SET = 1, 3


@pytest.mark.parametrize(
    ("recipient", "index", "unconfigured", "configured"),
    [
        (0, 0, b"\0\0", b"\0\0"),
        (1, 0, None, b"\0\0"),
        (1, 1, None, None),
        (2, 0x00, b"\0\0", b"\0\0"),
        (2, 0x80, b"\0\0", b"\0\0"),
        (2, BULK_OUT, None, b"\0\0"),
        (2, BULK_IN, None, b"\0\0"),
        (2, INTERRUPT_IN, None, b"\0\0"),
        (2, 0x02, None, None),
        (2, 0x81, None, None),
        (3, 0, None, None),
        (31, 0, None, None),
    ],
)
def test_status(
    recipient: int, index: int, unconfigured: bytes | None, configured: bytes | None
) -> None:
    device = reader(configured=False)
    assert device.control(get_status(recipient, index)) == unconfigured
    device.set_configuration(1)
    assert device.control(get_status(recipient, index)) == configured


@pytest.mark.parametrize("index", [0x0100, 0x4380, 0xFF00])
def test_an_endpoint_whose_upper_byte_is_not_zero_does_not_exist(index: int) -> None:
    assert reader().control(get_status(2, index)) is None


def test_the_class_descriptor_of_another_interface_does_not_exist() -> None:
    assert reader().control(replace(get_descriptor(0x21, recipient=1), index=3)) is None


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_halt_is_set_told_and_cleared(endpoint: int) -> None:
    device = reader()
    assert device.control(feature(SET, 2, 0, endpoint)) == b""
    assert device.is_halted(endpoint)
    assert device.control(get_status(2, endpoint)) == b"\x01\0"
    assert not any(device.is_halted(other) for other in ENDPOINTS if other != endpoint)
    assert device.control(feature(CLEAR, 2, 0, endpoint)) == b""
    assert not device.is_halted(endpoint)
    assert device.control(get_status(2, endpoint)) == b"\0\0"


@pytest.mark.parametrize(
    "end",
    [
        lambda device: device.set_configuration(1),
        lambda device: device.set_interface(0, 0),
        lambda device: (device.reset(), device.set_configuration(1)),
    ],
)
def test_a_new_setting_ends_all_halts(end: Callable[[UsbReader], object]) -> None:
    device = reader()
    for endpoint in ENDPOINTS:
        device.control(feature(SET, 2, 0, endpoint))
    end(device)
    assert not any(device.is_halted(endpoint) for endpoint in ENDPOINTS)


@pytest.mark.parametrize("request_number", [CLEAR, SET])
@pytest.mark.parametrize(
    ("recipient", "selector", "index"),
    [(0, 1, 0), (0, 2, 0x100), (0, 0, 0), (1, 0, 0), (2, 1, BULK_IN), (2, 0, 0x84), (3, 0, 0)],
)
def test_other_features_do_not_exist(
    request_number: int, recipient: int, selector: int, index: int
) -> None:
    assert reader().control(feature(request_number, recipient, selector, index)) is None


@pytest.mark.parametrize("request_number", [CLEAR, SET])
def test_endpoints_have_no_features_before_a_configuration(request_number: int) -> None:
    device = reader(configured=False)
    assert device.control(feature(request_number, 2, 0, BULK_IN)) is None
    assert device.control(feature(request_number, 2, 0, 0)) == b""


def test_endpoint_zero_is_never_halted() -> None:
    device = reader()
    assert device.control(feature(SET, 2, 0, 0x80)) == b""
    assert device.control(get_status(2, 0x80)) == b"\0\0"


def test_configurations_are_chosen_and_told() -> None:
    device = reader(configured=False)
    get = SetupPacket(0x80, 8, 0, 0, 1)
    for value, answer, told in ((1, b"", 1), (2, None, 1), (0, b"", 0), (0x0101, None, 0)):
        assert device.control(SetupPacket(0x00, 9, value)) == answer
        assert device.control(get) == bytes([told])


def test_there_is_one_interface_with_one_setting() -> None:
    get, put = SetupPacket(0x81, 10, 0, 0, 1), SetupPacket(0x01, 11, 0, 0)
    device = reader(configured=False)
    assert device.control(get) is None
    assert device.control(put) is None
    device.set_configuration(1)
    assert device.control(get) == b"\0"
    assert device.control(put) == b""
    assert device.control(replace(put, value=1)) is None
    assert device.control(replace(put, index=1)) is None
    assert device.control(replace(get, index=1)) is None


# Class requests.


def test_clocks_and_data_rates_are_those_of_the_descriptor() -> None:
    device = reader()
    clocks = device.control(encode_control_request(GetClockFrequencies(1024)))
    rates = device.control(encode_control_request(GetDataRates(1024)))
    assert clocks is not None
    assert rates is not None
    assert ccid.decode_rates(clocks) == (CLOCK,)
    assert ccid.decode_rates(rates) == DATA_RATES
    descriptor = PROFILE.class_descriptor()
    assert len(clocks) // 4 == descriptor.clocks_supported
    assert len(rates) // 4 == descriptor.data_rates_supported
    assert device.control(encode_control_request(GetDataRates(4))) == rates[:4]


@pytest.mark.parametrize(
    "setup",
    [
        encode_control_request(AbortRequest(0, 0)),
        encode_control_request(GetClockFrequencies(4)),
        encode_control_request(GetDataRates(4)),
    ],
)
def test_class_requests_need_the_interface_and_a_configuration(setup: SetupPacket) -> None:
    assert reader().control(setup) is not None
    assert reader(configured=False).control(setup) is None
    assert reader().control(replace(setup, index=1)) is None
    assert reader().control(replace(setup, request_type=setup.request_type ^ 0x80)) is None
    assert reader().control(replace(setup, request_type=setup.request_type ^ 0x01)) is None


def test_a_slot_that_is_not_there_cannot_be_aborted() -> None:
    assert reader().control(encode_control_request(AbortRequest(1, 0))) is None


async def test_an_abort_has_its_other_half_on_the_bulk_endpoint(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    async def never(command: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    device = await start(ScriptedCard(never))
    await ask(device, IccPowerOn(0, 1))
    assert device.write_bulk_out(ccid.encode(XfrBlock(0, 2, b"\0\0\0\0")))
    assert device.control(encode_control_request(AbortRequest(0, 3))) == b""
    assert device.write_bulk_out(ccid.encode(Abort(0, 3)))
    await trio.testing.wait_all_tasks_blocked()
    answers = []
    while (raw := read_bulk_in(device, 100)) is not None:
        answers.append(ccid.decode_response(raw))
    assert [(a.seq, a.error) for a in answers] == [(2, SlotError.CMD_ABORTED), (3, 0)]


# Bulk transfers.


def test_before_a_configuration_all_endpoints_stall() -> None:
    device = reader(configured=False)
    assert all(device.is_halted(endpoint) for endpoint in ENDPOINTS)
    assert not device.write_bulk_out(ccid.encode(GetSlotStatus(0, 1)))
    assert read_bulk_in(device, 100) is None


@pytest.mark.parametrize("size", [1, 9])
def test_a_runt_halts_bulk_out(size: int) -> None:
    device = reader()
    assert not device.write_bulk_out(bytes([0x65]) * size)
    assert device.control(get_status(2, BULK_OUT)) == b"\x01\0"
    assert read_bulk_in(device, 100) is None
    device.control(feature(CLEAR, 2, 0, BULK_OUT))
    assert device.write_bulk_out(ccid.encode(GetSlotStatus(0, 1)))
    assert read_bulk_in(device, 100) is not None


def test_a_cleared_halt_forgets_half_a_message() -> None:
    device = reader()
    whole = ccid.encode(XfrBlock(0, 1, bytes(100)))
    assert device.write_bulk_out(whole[:64])
    device.control(feature(CLEAR, 2, 0, BULK_OUT))
    assert device.write_bulk_out(ccid.encode(GetSlotStatus(0, 2)))
    answer = read_bulk_in(device, 100)
    assert answer is not None
    assert ccid.decode_response(answer).seq == 2


def test_an_empty_packet_between_messages_is_nothing() -> None:
    device = reader()
    assert device.write_bulk_out(b"")
    assert read_bulk_in(device, 100) is None


def test_unread_answers_halt_bulk_out_and_are_kept() -> None:
    device = reader()
    for seq in range(MAX_UNREAD):
        assert device.write_bulk_out(ccid.encode(GetSlotStatus(0, seq)))
    assert not device.write_bulk_out(ccid.encode(GetSlotStatus(0, 200)))
    assert device.is_halted(BULK_OUT)
    answers = [read_bulk_in(device, 64) for _ in range(MAX_UNREAD + 1)]
    assert [answer[6] for answer in answers if answer] == list(range(MAX_UNREAD))
    assert answers[-1] is None


def test_messages_are_never_joined_in_one_read() -> None:
    device = reader()
    for seq in (1, 2):
        device.write_bulk_out(ccid.encode(GetSlotStatus(0, seq)))
    assert read_bulk_in(device, 4) == b"\x81\0\0\0"
    rest, second = read_bulk_in(device, 100), read_bulk_in(device, 100)
    assert rest is not None
    assert (len(rest), rest[2]) == (6, 1)
    assert second is not None
    assert (len(second), second[6]) == (10, 2)


def test_what_is_taken_back_comes_first() -> None:
    device = reader()
    for seq in (1, 2):
        device.write_bulk_out(ccid.encode(GetSlotStatus(0, seq)))
    first = device.read_bulk_in(100)
    assert first is not None
    device.unread_bulk_in(first)
    assert device.read_bulk_in(100) == first


@pytest.mark.parametrize("end", [UsbReader.reset, lambda device: device.set_configuration(1)])
def test_answers_do_not_outlive_their_configuration(end: Callable[[UsbReader], object]) -> None:
    device = reader()
    device.write_bulk_out(ccid.encode(GetSlotStatus(0, 1)))
    device.write_bulk_out(ccid.encode(XfrBlock(0, 2, bytes(100)))[:64])
    end(device)
    device.set_configuration(1)
    assert read_bulk_in(device, 100) is None
    assert device.write_bulk_out(ccid.encode(GetSlotStatus(0, 3)))


async def test_a_card_is_inactive_after_a_reset_and_stays_active_in_a_new_setting(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    device = await start(echo_card())
    await ask(device, IccPowerOn(0, 1))
    device.set_interface(0, 0)
    assert (await ask(device, GetSlotStatus(0, 2))).icc_status is IccStatus.ACTIVE
    device.reset()
    device.set_configuration(1)
    assert (await ask(device, GetSlotStatus(0, 3))).icc_status is IccStatus.INACTIVE


def test_a_host_that_opens_the_reader_finds_nothing_that_was_meant_for_another() -> None:
    device = reader()
    device.write_bulk_out(ccid.encode(GetSlotStatus(0, 1)))
    device.control(encode_control_request(AbortRequest(0, 5)))
    assert device.control(SetupPacket(0x01, 11, 0, 0)) == b""
    assert device.read_bulk_in(100) is None
    device.write_bulk_out(ccid.encode(GetSlotStatus(0, 2)))
    answer = read_bulk_in(device, 100)
    assert answer is not None
    assert ccid.decode_response(answer).error == 0


async def test_a_host_that_does_not_read_gets_one_time_extension_and_the_answer(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    async def slow(command: bytes) -> bytes:
        await trio.sleep(30)
        return b"\x90\0"

    device = await start(ScriptedCard(slow))
    await ask(device, IccPowerOn(0, 1))
    device.write_bulk_out(ccid.encode(XfrBlock(0, 2, b"\0\0\0\0")))
    await trio.sleep(60)
    statuses = []
    while (raw := read_bulk_in(device, 100)) is not None:
        statuses.append(ccid.decode_response(raw).command_status)
    assert statuses == [CommandStatus.TIME_EXTENSION, CommandStatus.OK]


async def test_a_message_longer_than_the_longest_is_refused_by_its_length(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    device = await start(echo_card())
    too_long = b"\x6f" + (65545).to_bytes(4, "little") + bytes([0, 7]) + bytes(3)
    assert device.write_bulk_out(too_long)
    raw = read_bulk_in(device, 100)
    assert raw is not None
    answer = ccid.decode_response(raw)
    assert (answer.seq, answer.error) == (7, BadMessage(0x6F, 0, 7, 1).error)


# Interrupts.


async def test_each_card_is_told_at_the_beginning_and_no_change_twice(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    device = await start(echo_card(), None)
    assert device.read_interrupt_in() == b"\x50\x03"
    assert device.read_interrupt_in() is None


def test_a_notification_in_doubt_is_repeated_until_the_host_hears_of_the_slot() -> None:
    device = reader(echo_card(), echo_card())
    assert device.read_interrupt_in() == b"\x50\x0f"
    device.restart_interrupt_in()
    assert device.read_interrupt_in() == b"\x50\x0f"
    assert device.read_interrupt_in() is None
    device.write_bulk_out(ccid.encode(GetSlotStatus(0, 1)))
    device.restart_interrupt_in()
    assert device.read_interrupt_in() == b"\x50\x0d"
    device.write_bulk_out(ccid.encode(GetSlotStatus(1, 2)))
    device.restart_interrupt_in()
    assert device.read_interrupt_in() is None


def test_a_restart_without_a_notification_before_repeats_nothing() -> None:
    device = reader(echo_card())
    device.restart_interrupt_in()
    assert device.read_interrupt_in() == b"\x50\x03"
    device.write_bulk_out(ccid.encode(GetSlotStatus(0, 1)))
    for _ in range(3):
        device.restart_interrupt_in()
    assert device.read_interrupt_in() is None


def test_a_halted_interrupt_endpoint_gives_nothing_and_loses_nothing() -> None:
    device = reader(echo_card())
    device.control(feature(SET, 2, 0, INTERRUPT_IN))
    assert device.read_interrupt_in() is None
    device.control(feature(CLEAR, 2, 0, INTERRUPT_IN))
    assert device.read_interrupt_in() == b"\x50\x03"


async def test_a_fault_of_a_card_is_notified_as_a_hardware_error(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    async def fail(command: bytes) -> bytes:
        raise ZeroDivisionError

    device = await start(ScriptedCard(fail))
    assert device.read_interrupt_in() is not None
    await ask(device, IccPowerOn(0, 1))
    with structlog.testing.capture_logs():
        answer = await ask(device, XfrBlock(0, 2, b"\0\0\0\0"))
    assert answer.error == SlotError.HW_ERROR
    assert device.read_interrupt_in() == bytes([0x51, 0, 2, 1])
    assert device.read_interrupt_in() is None


async def test_a_reader_that_takes_part_in_a_session_it_does_not_know_has_its_cards_off(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    device = await start(echo_card(), configured=False)
    device.resume()
    assert device.configuration == 1
    assert device.read_interrupt_in() == b"\x50\x03"
    await ask(device, IccPowerOn(0, 1))
    device.resume()
    assert (await ask(device, GetSlotStatus(0, 2))).icc_status is IccStatus.ACTIVE


# Profiles.


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("slots", [1, 2, 16])
def test_a_profile_says_one_level_and_its_slots(level: Level, slots: int) -> None:
    descriptor = default_profile(slots, "1", level).class_descriptor()
    raw = descriptor.encode()
    assert len(raw) == 54
    assert raw[4] == slots - 1 == descriptor.max_slot_index
    assert raw[53] == slots
    features = int.from_bytes(raw[40:44], "little")
    assert (features & 0x70000).bit_count() == 1
    # At the APDU levels the reader sets the parameters by itself.
    assert bool(features & 0xC0) is (level is not Level.TPDU)
    assert bool(features & 0x02) is (level is not Level.TPDU)
    assert int.from_bytes(raw[44:48], "little") == default_profile(1, "1", level).max_message_length


class Onlooker(Witness):
    def __init__(self) -> None:
        self.seen: list[object] = []

    def command(self, command: ccid.Command | BadMessage) -> None:
        self.seen.append(command)

    def response(self, response: ccid.Response) -> None:
        self.seen.append(response)

    def notification(self, notification: ccid.Notification) -> None:
        self.seen.append(notification)


async def test_a_witness_sees_all_that_is_said() -> None:
    witness = Onlooker()
    device = UsbReader([Slot(echo_card())], PROFILE, None, witness)
    device.set_configuration(1)
    device.read_interrupt_in()
    device.write_bulk_out(ccid.encode(GetSlotStatus(0, 7)))
    device.write_bulk_out(ccid.encode(GetSlotStatus(9, 8)))
    assert witness.seen == [
        ccid.NotifySlotChange((ccid.SlotChange(present=True, changed=True),)),
        GetSlotStatus(0, 7),
        ccid.SlotStatus(0, 7, IccStatus.INACTIVE, ccid.ClockStatus.STOPPED_LOW),
        GetSlotStatus(9, 8),
        ccid.SlotStatus(9, 8, IccStatus.ABSENT, command_status=CommandStatus.FAILED, error=5),
    ]
