# SPDX-License-Identifier: Apache-2.0
"""What a host sees of a CCID reader, message by message."""

from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
import structlog
import trio
import trio.testing

from cards import ScriptedCard, echo_card
from ccid_protocol import ccid
from ccid_protocol.atr import ATR, InterfaceBytes
from ccid_protocol.ccid import (
    Abort,
    BadMessage,
    ClockCommand,
    ClockStatus,
    Command,
    CommandStatus,
    DataBlock,
    Escape,
    GetParameters,
    GetSlotStatus,
    IccClock,
    IccPowerOff,
    IccPowerOn,
    IccStatus,
    Mechanical,
    MechanicalFunction,
    NotifySlotChange,
    Response,
    SetDataRateAndClockFrequency,
    SetParameters,
    SlotChange,
    SlotError,
    T0Apdu,
    T0Changes,
    T0Parameters,
    T1Parameters,
    XfrBlock,
)
from ccid_protocol.pps import PPS
from ccid_protocol.t1 import InterfaceDevice, ResponseReady
from ccidd.card.card import Card, CardGoneError
from ccidd.reader.ccid_reader import CcidReader
from ccidd.reader.profile import Level, ReaderProfile, default_profile
from ccidd.reader.slot import Slot

T0_AND_T1 = (
    InterfaceBytes(ta=0x11, protocol=0),
    InterfaceBytes(protocol=1),
    InterfaceBytes(ta=0xFE, tb=0x45),
)


class SlowCard(ScriptedCard):
    """Works as many seconds as P1 says."""

    def __init__(self) -> None:
        super().__init__(self._work)

    @staticmethod
    async def _work(command: bytes) -> bytes:
        await trio.sleep(command[2])
        return b"\x90\x00"


class StubbornCard(ScriptedCard):
    """Works for 3 seconds even where it is cancelled, as work in a thread does."""

    def __init__(self) -> None:
        super().__init__(self._work)

    @staticmethod
    async def _work(command: bytes) -> bytes:
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
        return b"\x90\x00"


class DualCard(ScriptedCard):
    """An echo card with T=0 and T=1."""

    def __init__(self) -> None:
        super().__init__(echo_card().transmit)
        self._atr = ATR(b"dual", T0_AND_T1)


class Host:
    """Sends commands to a reader and collects its answers."""

    def __init__(self, slots: list[Slot], profile: ReaderProfile) -> None:
        self.slots = slots
        self.answers_in, self.answers = trio.open_memory_channel[Response](1000)
        self.announcements = 0
        self.reader = CcidReader(slots, profile, self.answers_in.send_nowait, self._announced)
        self._seq = 0

    def _announced(self) -> None:
        self.announcements += 1

    def send(self, kind: Callable[..., Command], *fields: object, slot: int = 0) -> int:
        self._seq += 1
        self.reader.submit(kind(slot, self._seq, *fields))
        return self._seq

    async def ask(self, kind: Callable[..., Command], *fields: object, slot: int = 0) -> Response:
        """Sends a command and gives its final answer."""
        seq = self.send(kind, *fields, slot=slot)
        while (
            answer := await self.answers.receive()
        ).command_status is CommandStatus.TIME_EXTENSION:
            assert answer.icc_status is IccStatus.ACTIVE
        assert (answer.slot, answer.seq) == (slot, seq)
        # What is answered can be sent.
        assert ccid.decode_response(ccid.encode(answer)) == answer
        return answer

    async def power_on(self, slot: int = 0) -> bytes:
        answer = await self.ask(IccPowerOn, slot=slot)
        assert isinstance(answer, DataBlock)
        assert outcome(answer) == (IccStatus.ACTIVE, CommandStatus.OK, 0)
        return answer.data

    async def transfer(self, data: bytes, level: int = 0) -> tuple[bytes, int]:
        answer = await self.ask(XfrBlock, data, 0, level)
        assert isinstance(answer, DataBlock)
        assert outcome(answer) == (IccStatus.ACTIVE, CommandStatus.OK, 0)
        return answer.data, answer.chain


def outcome(answer: Response) -> tuple[IccStatus, CommandStatus, int]:
    return answer.icc_status, answer.command_status, answer.error


Start = Callable[..., Awaitable[Host]]
FAILED = CommandStatus.FAILED


@pytest.fixture
def start(nursery: trio.Nursery) -> Start:
    async def start(
        *cards: Card | None, level: Level = Level.EXTENDED_APDU, max_message: int | None = None
    ) -> Host:
        slots = [Slot(card, f"slot {index}") for index, card in enumerate(cards)]
        host = Host(slots, default_profile(len(slots), "1", level))
        nursery.start_soon(host.reader.run)
        await trio.testing.wait_all_tasks_blocked()
        return host

    return start


def apdu(length: int) -> bytes:
    """A command that an echo card answers with so many bytes."""
    return bytes([0x00, 0x10, *divmod(length, 256)])


# Power and status.


async def test_a_card_is_inactive_until_it_is_powered(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card(), None)
    assert outcome(await host.ask(GetSlotStatus)) == (IccStatus.INACTIVE, CommandStatus.OK, 0)
    assert outcome(await host.ask(GetSlotStatus, slot=1)) == (IccStatus.ABSENT, CommandStatus.OK, 0)
    assert await host.power_on() == bytes.fromhex("3B04") + b"test"
    assert outcome(await host.ask(GetSlotStatus)) == (IccStatus.ACTIVE, CommandStatus.OK, 0)
    assert outcome(await host.ask(IccPowerOff)) == (IccStatus.INACTIVE, CommandStatus.OK, 0)


@pytest.mark.parametrize("kind", [IccPowerOn, XfrBlock, GetParameters])
async def test_without_a_card_commands_for_it_fail(
    start: Start, kind: type[Command], autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(None)
    answer = await host.ask(kind)
    assert outcome(answer) == (IccStatus.ABSENT, FAILED, SlotError.ICC_MUTE)


async def test_without_power_commands_for_the_card_fail(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    for kind in (XfrBlock, GetParameters):
        answer = await host.ask(kind)
        assert outcome(answer) == (IccStatus.INACTIVE, FAILED, SlotError.ICC_MUTE)
    answer = await host.ask(IccClock, ClockCommand.STOP)
    assert outcome(answer) == (IccStatus.INACTIVE, FAILED, SlotError.ICC_MUTE)


async def test_a_slot_that_does_not_exist_is_named_by_its_offset(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    for kind in (GetSlotStatus, IccPowerOn, Abort):
        answer = await host.ask(kind, slot=1)
        assert outcome(answer) == (IccStatus.ABSENT, FAILED, 5)


async def test_bad_messages_are_answered_with_their_error(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    host.reader.submit(BadMessage(0x62, 0, 9, 7))
    answer = await host.answers.receive()
    assert isinstance(answer, DataBlock)
    assert outcome(answer) == (IccStatus.INACTIVE, FAILED, 7)
    host.reader.submit(BadMessage(0x33, 0, 10, 0))
    assert isinstance(await host.answers.receive(), ccid.SlotStatus)


async def test_a_card_that_is_slow_to_start_is_mute_before_the_host_loses_patience(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    class SlowToStart(ScriptedCard):
        async def power_on(self) -> ATR:
            await trio.sleep(10)
            return await super().power_on()

    card = SlowToStart(echo_card().transmit)
    host = await start(card)
    seq = host.send(IccPowerOn)
    # No time extension: libccid would take it for an ATR.
    answer = await host.answers.receive()
    assert (answer.seq, outcome(answer)) == (seq, (IccStatus.INACTIVE, FAILED, SlotError.ICC_MUTE))
    assert trio.current_time() < 5
    await trio.testing.wait_all_tasks_blocked()
    # What it was about to have, it has no more.
    assert card.history == ["off"]


async def test_power_off_waits_for_nothing(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    class SlowToStop(ScriptedCard):
        async def power_off(self) -> None:
            await trio.sleep(10)
            await super().power_off()

    card = SlowToStop(echo_card().transmit)
    host = await start(card)
    await host.power_on()
    assert outcome(await host.ask(IccPowerOff)) == (IccStatus.INACTIVE, CommandStatus.OK, 0)
    assert trio.current_time() == 0
    await trio.sleep(20)
    assert card.history == ["on", "off"]


async def test_a_card_without_a_protocol_of_the_reader_is_refused(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(ScriptedCard(echo_card().transmit, interface=(InterfaceBytes(protocol=14),)))
    answer = await host.ask(IccPowerOn)
    assert outcome(answer) == (IccStatus.INACTIVE, FAILED, SlotError.ICC_PROTOCOL_NOT_SUPPORTED)


# Extended APDUs.


@pytest.mark.parametrize("length", [2, 258, 259, 4096, 65535])
async def test_apdus_of_any_length_pass(
    start: Start, length: int, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    await host.power_on()
    data, chain = await host.transfer(apdu(length))
    assert (len(data), chain) == (length, 0)


async def test_a_command_in_pieces_is_one_command(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    received: list[bytes] = []

    async def answer(command: bytes) -> bytes:
        received.append(command)
        return b"\x90\x00"

    host = await start(ScriptedCard(answer))
    await host.power_on()
    assert await host.transfer(b"ab", 1) == (b"", 0x10)
    assert await host.transfer(b"cd", 3) == (b"", 0x10)
    assert await host.transfer(b"ef", 2) == (b"\x90\x00", 0)
    assert received == [b"abcdef"]


@pytest.mark.parametrize("levels", [(3,), (2,), (0x10,), (1, 0), (1, 1), (1, 0x10), (0, 0x10)])
async def test_pieces_out_of_order_are_refused(
    start: Start, levels: tuple[int, ...], autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    await host.power_on()
    *before, last = levels
    for level in before:
        await host.transfer(apdu(2), level)
    answer = await host.ask(XfrBlock, b"" if last == 0x10 else apdu(2), 0, last)
    assert outcome(answer) == (IccStatus.ACTIVE, FAILED, 8)
    assert await host.transfer(apdu(2)) == (b"\x90\x00", 0)


async def test_a_command_that_is_too_long_overruns(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    await host.power_on()
    await host.transfer(bytes(65000), 1)
    answer = await host.ask(XfrBlock, bytes(1000), 0, 3)
    assert outcome(answer) == (IccStatus.ACTIVE, FAILED, SlotError.XFR_OVERRUN)


# Short APDUs and TPDUs.


async def test_short_responses_are_cut(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card(), level=Level.SHORT_APDU)
    await host.power_on()
    data, _chain = await host.transfer(apdu(300))
    assert (len(data), data[-2:]) == (258, bytes([0x61, 300 - 258]))
    rest, _chain = await host.transfer(bytes([0, 0xC0, 0, 0, 300 - 258]))
    assert data[:-2] + rest == (await echo_card().transmit(apdu(300)))


async def test_tpdus_over_t0(start: Start, autojump_clock: trio.testing.MockClock) -> None:
    host = await start(DualCard(), level=Level.TPDU)
    await host.power_on()
    assert await host.transfer(apdu(2) + b"\0") == (b"\x90\x00", 0)


async def test_pps_chooses_t1_and_blocks_carry_apdus(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(DualCard(), level=Level.TPDU)
    await host.power_on()
    request = PPS(1).encode()
    assert await host.transfer(request) == (request, 0)
    answer = await host.ask(SetParameters, T1Parameters(ifsc=254))
    assert outcome(answer) == (IccStatus.ACTIVE, CommandStatus.OK, 0)
    device = InterfaceDevice(ifsc=254)
    block: object = device.send_command(apdu(1000))
    while not isinstance(block, ResponseReady):
        assert isinstance(block, bytes)
        reply, _chain = await host.transfer(block)
        block = device.receive_block(reply)
    assert block.apdu == await echo_card().transmit(apdu(1000))


async def test_a_card_is_mute_to_a_pps_that_it_does_not_accept(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card(), level=Level.TPDU)
    await host.power_on()
    answer = await host.ask(XfrBlock, PPS(1).encode())
    assert outcome(answer) == (IccStatus.ACTIVE, FAILED, SlotError.ICC_MUTE)


# Parameters, clock, and what is answered at once.


async def test_parameters_follow_the_atr_and_are_kept(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(DualCard())
    await host.power_on()
    answer = await host.ask(GetParameters)
    assert isinstance(answer, ccid.Parameters)
    assert isinstance(answer.parameters, T1Parameters)
    assert answer.parameters.ifsc == 0xFE
    wanted = T1Parameters(ifsc=100)
    assert (await host.ask(SetParameters, wanted)).error == 0
    answer = await host.ask(GetParameters)
    assert isinstance(answer, ccid.Parameters)
    assert answer.parameters == wanted
    answer = await host.ask(ccid.ResetParameters)
    assert isinstance(answer, ccid.Parameters)
    assert answer.parameters == T1Parameters()
    await host.power_on()
    answer = await host.ask(GetParameters)
    assert isinstance(answer, ccid.Parameters)
    assert answer.parameters != T1Parameters()


async def test_parameters_of_a_protocol_that_the_card_has_not_are_refused(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    await host.power_on()
    answer = await host.ask(SetParameters, T1Parameters())
    assert outcome(answer) == (IccStatus.ACTIVE, FAILED, 7)
    assert (await host.ask(SetParameters, T0Parameters())).error == 0


@pytest.mark.parametrize(
    ("parameters", "offset"),
    [
        (T0Parameters(findex=9, dindex=7), 10),
        (T1Parameters(findex=9, dindex=7), 10),
        (T1Parameters(crc=True), 11),
        (T1Parameters(nad=0x21), 16),
    ],
)
async def test_parameters_that_the_reader_cannot_use_are_named_by_their_offset(
    start: Start,
    parameters: T0Parameters | T1Parameters,
    offset: int,
    autojump_clock: trio.testing.MockClock,
) -> None:
    host = await start(DualCard())
    await host.power_on()
    answer = await host.ask(SetParameters, parameters)
    assert outcome(answer) == (IccStatus.ACTIVE, FAILED, offset)


async def test_the_clock_stops_as_the_parameters_say(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    await host.power_on()
    await host.ask(SetParameters, T0Parameters(clock_stop=ccid.ClockStop.HIGH))
    answer = await host.ask(IccClock, ClockCommand.STOP)
    assert isinstance(answer, ccid.SlotStatus)
    assert answer.clock_status is ClockStatus.STOPPED_HIGH


async def test_the_clock_stops_and_starts(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    await host.power_on()
    answer = await host.ask(IccClock, ClockCommand.STOP)
    assert isinstance(answer, ccid.SlotStatus)
    assert answer.clock_status is ClockStatus.STOPPED_LOW
    answer = await host.ask(GetSlotStatus)
    assert isinstance(answer, ccid.SlotStatus)
    assert answer.clock_status is ClockStatus.STOPPED_LOW
    await host.transfer(apdu(2))
    answer = await host.ask(GetSlotStatus)
    assert isinstance(answer, ccid.SlotStatus)
    assert answer.clock_status is ClockStatus.RUNNING


async def test_the_data_rate_is_the_next_that_the_reader_has(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    for wanted, given in ((9600, 10752), (10752, 10752), (100_000, 86021), (10**6, 344086)):
        answer = await host.ask(SetDataRateAndClockFrequency, 5000, wanted)
        assert isinstance(answer, ccid.DataRateAndClockFrequency)
        assert (answer.clock_frequency, answer.data_rate) == (4000, given)


async def test_what_the_reader_has_not_is_not_supported(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    for kind, *fields in (
        (Mechanical, MechanicalFunction.EJECT),
        (ccid.Secure, bytes(20)),
        (Escape, b"\x6a"),
        (Escape, b"\x01"),
        (Escape, b""),
    ):
        assert outcome(await host.ask(kind, *fields)) == (IccStatus.INACTIVE, FAILED, 0)


async def test_t0apdu_is_for_apdu_levels(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    answer = await host.ask(T0Apdu, T0Changes.GET_RESPONSE, 0, 0)
    assert outcome(answer) == (IccStatus.INACTIVE, CommandStatus.OK, 0)
    host = await start(echo_card(), level=Level.TPDU)
    answer = await host.ask(T0Apdu, T0Changes.GET_RESPONSE, 0, 0)
    assert outcome(answer) == (IccStatus.INACTIVE, FAILED, 0)


async def test_escape_tells_firmware_and_slot(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card(), None)
    answer = await host.ask(Escape, b"\x02")
    assert isinstance(answer, ccid.EscapeResponse)
    assert answer.data.startswith(b"ccidd ")
    answer = await host.ask(Escape, b"\xcc\x01", slot=1)
    assert isinstance(answer, ccid.EscapeResponse)
    assert answer.data == b"slot 1"


# Time.


async def test_a_host_hears_each_second_from_a_card_that_works(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(SlowCard())
    await host.power_on()
    seq = host.send(XfrBlock, bytes([0, 0x10, 5, 0]))
    times = []
    while True:
        answer = await host.answers.receive()
        assert (answer.seq, answer.icc_status) == (seq, IccStatus.ACTIVE)
        if answer.command_status is not CommandStatus.TIME_EXTENSION:
            break
        assert isinstance(answer, DataBlock)
        assert (answer.error, answer.data) == (1, b"")
        times.append(trio.current_time())
    assert len(times) == 5
    assert all(b - a <= 1 for a, b in pairwise(times))
    assert outcome(answer) == (IccStatus.ACTIVE, CommandStatus.OK, 0)


async def test_a_busy_slot_takes_no_other_command_but_tells_its_status(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(SlowCard(), echo_card())
    await host.power_on()
    await host.power_on(slot=1)
    host.send(XfrBlock, bytes([0, 0x10, 9, 0]))
    await trio.testing.wait_all_tasks_blocked()
    for kind in (XfrBlock, IccPowerOn, GetParameters):
        answer = await host.ask(kind)
        assert outcome(answer) == (IccStatus.ACTIVE, FAILED, SlotError.CMD_SLOT_BUSY)
    started = trio.current_time()
    assert outcome(await host.ask(GetSlotStatus)) == (IccStatus.ACTIVE, CommandStatus.OK, 0)
    answer = await host.ask(XfrBlock, apdu(2), slot=1)
    assert answer.error == 0
    assert trio.current_time() - started < 0.1


# Abort.


async def final_answers(host: Host, count: int) -> list[Response]:
    answers: list[Response] = []
    while len(answers) < count:
        answer = await host.answers.receive()
        if answer.command_status is not CommandStatus.TIME_EXTENSION:
            answers.append(answer)
    return answers


@pytest.mark.parametrize("control_first", [True, False])
async def test_both_halves_of_an_abort_in_either_order(
    start: Start, autojump_clock: trio.testing.MockClock, *, control_first: bool
) -> None:
    host = await start(SlowCard())
    await host.power_on()
    xfr = host.send(XfrBlock, bytes([0, 0x10, 9, 0]))
    await trio.testing.wait_all_tasks_blocked()
    if control_first:
        assert host.reader.abort(0, 77)
        host.reader.submit(GetSlotStatus(0, 50))
        host.reader.submit(Abort(0, 77))
    else:
        host.reader.submit(Abort(0, 77))
        host.reader.submit(GetSlotStatus(0, 50))
        assert host.reader.abort(0, 77)
    answers = {answer.seq: answer for answer in await final_answers(host, 3)}
    assert outcome(answers[50]) == (IccStatus.ACTIVE, FAILED, SlotError.CMD_ABORTED)
    assert outcome(answers[xfr]) == (IccStatus.ACTIVE, FAILED, SlotError.CMD_ABORTED)
    assert isinstance(answers[77], ccid.SlotStatus)
    assert outcome(answers[77]) == (IccStatus.ACTIVE, CommandStatus.OK, 0)
    assert (await host.ask(XfrBlock, bytes([0, 0x10, 0, 0]))).error == 0


async def test_an_abort_of_nothing_succeeds(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    host.reader.abort(0, 5)
    host.reader.submit(Abort(0, 5))
    (answer,) = await final_answers(host, 1)
    assert outcome(answer) == (IccStatus.INACTIVE, CommandStatus.OK, 0)
    assert not host.reader.abort(1, 5)


async def test_halves_that_do_not_match_do_not_make_an_abort(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    host.reader.abort(0, 5)
    host.reader.submit(Abort(0, 6))
    host.reader.submit(Abort(0, 5))
    first, second = await final_answers(host, 2)
    assert (first.seq, first.error) == (6, SlotError.CMD_ABORTED)
    assert (second.seq, second.error) == (5, 0)
    host.reader.submit(Abort(0, 7))
    host.reader.abort(0, 8)
    host.reader.submit(Abort(0, 8))
    first, second = await final_answers(host, 2)
    assert (first.seq, first.error) == (7, SlotError.CMD_ABORTED)
    assert (second.seq, second.error) == (8, 0)


async def test_an_abort_amid_a_chain_leaves_the_slot_ready_for_another_command(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    await host.power_on()
    assert await host.transfer(b"ab", 1) == (b"", 0x10)
    host.reader.abort(0, 9)
    host.reader.submit(Abort(0, 9))
    (answer,) = await final_answers(host, 1)
    assert answer.error == 0
    assert await host.transfer(apdu(2)) == (b"\x90\x00", 0)


async def test_the_last_of_two_bulk_halves_is_the_one_that_counts(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    host.reader.submit(Abort(0, 5))
    host.reader.submit(Abort(0, 6))
    host.reader.abort(0, 6)
    first, second = await final_answers(host, 2)
    assert (first.seq, first.error) == (5, SlotError.CMD_ABORTED)
    assert (second.seq, second.error) == (6, 0)
    assert (await host.ask(GetSlotStatus)).error == 0


async def test_a_host_that_begins_anew_finds_nothing_of_another(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(SlowCard(), echo_card())
    await host.power_on()
    host.send(XfrBlock, bytes([0, 0x10, 9, 0]))
    host.reader.submit(Abort(1, 5))
    await trio.testing.wait_all_tasks_blocked()
    host.reader.forget_commands()
    for slot, status in ((0, IccStatus.ACTIVE), (1, IccStatus.INACTIVE)):
        assert outcome(await host.ask(GetSlotStatus, slot=slot)) == (status, CommandStatus.OK, 0)
    assert (await host.ask(XfrBlock, bytes([0, 0x10, 0, 0]))).error == 0


@pytest.mark.parametrize("card", [echo_card(), None])
@pytest.mark.parametrize("ticks", range(6))
async def test_a_command_is_answered_once_whenever_it_is_aborted(
    start: Start, card: Card | None, ticks: int, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(card)
    seq = host.send(IccPowerOn)
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    host.reader.abort(0, 9)
    host.reader.submit(Abort(0, 9))
    await trio.testing.wait_all_tasks_blocked()
    answers = await final_answers(host, 2)
    assert [answer.seq for answer in answers] == [seq, 9]
    with pytest.raises(trio.WouldBlock):
        host.answers.receive_nowait()


async def test_a_command_that_is_aborted_before_it_begins_has_not_begun(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    await host.power_on()
    host.send(XfrBlock, b"ab", 0, 1)
    host.reader.abort(0, 9)
    host.reader.submit(Abort(0, 9))
    await final_answers(host, 2)
    assert await host.transfer(apdu(2)) == (b"\x90\x00", 0)


async def test_a_card_that_fails_when_it_is_gone_is_no_hardware_error(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    async def fail(command: bytes) -> bytes:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        raise ZeroDivisionError

    host = await start(ScriptedCard(fail))
    await host.power_on()
    host.send(XfrBlock, apdu(2))
    await trio.testing.wait_all_tasks_blocked()
    host.slots[0].remove()
    with structlog.testing.capture_logs():
        await trio.sleep(5)
    assert host.reader.take_hardware_error() is None


@pytest.mark.parametrize("level", [Level.EXTENDED_APDU, Level.TPDU])
async def test_a_card_that_cannot_be_stopped_is_waited_for_by_its_next_command_alone(
    start: Start, level: Level, autojump_clock: trio.testing.MockClock
) -> None:
    card = StubbornCard()
    host = await start(card, level=level)
    await host.power_on()
    started = trio.current_time()
    seq = host.send(XfrBlock, bytes([0, 0x10, 0, 0, 0]))
    await trio.testing.wait_all_tasks_blocked()
    host.reader.abort(0, 9)
    host.reader.submit(Abort(0, 9))
    aborted, done = await final_answers(host, 2)
    assert (aborted.seq, aborted.error, done.error) == (seq, SlotError.CMD_ABORTED, 0)
    assert trio.current_time() == started
    host.slots[0].insert(echo_card())
    await trio.testing.wait_all_tasks_blocked()
    await host.power_on()
    assert trio.current_time() == started
    host.slots[0].insert(card)
    await trio.testing.wait_all_tasks_blocked()
    await host.power_on()
    assert card.history == ["on", "off", "on"]


async def test_resets_do_not_pile_up_behind_a_card_that_cannot_be_stopped(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    card = StubbornCard()
    host = await start(card)
    await host.power_on()
    host.send(XfrBlock, apdu(2))
    await trio.testing.wait_all_tasks_blocked()
    before = trio.lowlevel.current_statistics().tasks_living
    for _ in range(100):
        host.reader.reset()
    assert trio.lowlevel.current_statistics().tasks_living <= before + 1
    await trio.sleep(4)
    assert card.history == ["on", "off"]
    # The power is cut again where it is there again.
    await host.power_on()
    host.reader.reset()
    await trio.testing.wait_all_tasks_blocked()
    assert card.history == ["on", "off", "on", "off"]


# Cards that come and go.


async def test_changes_are_notified_once_and_never_lost(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card(), None)
    assert host.reader.take_notification() == NotifySlotChange(
        (SlotChange(present=True, changed=True), SlotChange(present=False, changed=False))
    )
    assert host.reader.take_notification() is None
    host.slots[1].insert(echo_card())
    await trio.testing.wait_all_tasks_blocked()
    host.slots[1].remove()
    await trio.testing.wait_all_tasks_blocked()
    assert host.announcements == 2
    assert host.reader.take_notification() == NotifySlotChange(
        (SlotChange(present=True, changed=False), SlotChange(present=False, changed=True))
    )
    host.reader.repeat_notification()
    assert host.reader.take_notification() is not None


async def test_a_card_that_is_pulled_at_work_leaves_an_answer(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    card = SlowCard()
    host = await start(card)
    await host.power_on()
    host.send(XfrBlock, bytes([0, 0x10, 9, 0]))
    await trio.testing.wait_all_tasks_blocked()
    host.slots[0].remove()
    (answer,) = await final_answers(host, 1)
    assert outcome(answer) == (IccStatus.ABSENT, FAILED, SlotError.ICC_MUTE)
    await trio.testing.wait_all_tasks_blocked()
    assert card.history == ["on", "off"]


async def test_a_card_that_is_swapped_is_inactive(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(echo_card())
    await host.power_on()
    host.slots[0].insert(echo_card())
    await trio.testing.wait_all_tasks_blocked()
    assert outcome(await host.ask(GetSlotStatus)) == (IccStatus.INACTIVE, CommandStatus.OK, 0)


async def test_a_fault_of_the_card_is_a_failure_of_the_command(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    async def answer(command: bytes) -> bytes:
        raise ZeroDivisionError

    host = await start(ScriptedCard(answer))
    await host.power_on()
    with structlog.testing.capture_logs() as logs:
        reply = await host.ask(XfrBlock, apdu(2))
    assert outcome(reply) == (IccStatus.ACTIVE, FAILED, SlotError.HW_ERROR)
    assert [entry["event"] for entry in logs] == ["card_fault"]


async def test_a_card_that_is_gone_is_mute(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    async def answer(command: bytes) -> bytes:
        raise CardGoneError

    host = await start(ScriptedCard(answer))
    await host.power_on()
    with structlog.testing.capture_logs() as logs:
        reply = await host.ask(XfrBlock, apdu(2))
    assert outcome(reply) == (IccStatus.ACTIVE, FAILED, SlotError.ICC_MUTE)
    assert not logs


async def test_a_reset_leaves_nothing_to_answer_and_everything_to_notify(
    start: Start, autojump_clock: trio.testing.MockClock
) -> None:
    host = await start(SlowCard())
    await host.power_on()
    host.reader.take_notification()
    host.send(XfrBlock, bytes([0, 0x10, 9, 0]))
    await trio.testing.wait_all_tasks_blocked()
    host.reader.reset()
    await trio.sleep(20)
    with pytest.raises(trio.WouldBlock):
        host.answers.receive_nowait()
    assert host.reader.take_notification() is not None
    assert outcome(await host.ask(GetSlotStatus)) == (IccStatus.INACTIVE, CommandStatus.OK, 0)
    await host.power_on()
