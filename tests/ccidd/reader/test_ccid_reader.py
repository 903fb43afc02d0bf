# SPDX-License-Identifier: Apache-2.0
"""What a host sees of a CCID reader, message by message."""

import pytest
import trio
import trio.testing

from cards import ScriptedCard, echo_card
from ccid_host import FAILED, Start, apdu, outcome
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
    SetDataRateAndClockFrequency,
    SetParameters,
    SlotError,
    T0Apdu,
    T0Changes,
    T0Parameters,
    T1Parameters,
    XfrBlock,
)
from ccid_protocol.pps import PPS
from ccid_protocol.t1 import InterfaceDevice, ResponseReady
from ccidd.reader.profile import Level

T0_AND_T1 = (
    InterfaceBytes(ta=0x11, protocol=0),
    InterfaceBytes(protocol=1),
    InterfaceBytes(ta=0xFE, tb=0x45),
)


class DualCard(ScriptedCard):
    """An echo card with T=0 and T=1."""

    def __init__(self) -> None:
        super().__init__(echo_card().transmit)
        self._atr = ATR(b"dual", T0_AND_T1)


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
