# SPDX-License-Identifier: Apache-2.0
"""What a host sees of commands that take their time, or do not come to their end."""

from itertools import pairwise

import pytest
import structlog
import trio
import trio.testing

from cards import ScriptedCard, echo_card
from ccid_host import FAILED, SlowCard, Start, apdu, final_answers, outcome
from ccid_protocol import ccid
from ccid_protocol.ccid import (
    Abort,
    CommandStatus,
    DataBlock,
    GetParameters,
    GetSlotStatus,
    IccPowerOn,
    IccStatus,
    SlotError,
    XfrBlock,
)
from ccidd.card.card import Card
from ccidd.reader.profile import Level


class StubbornCard(ScriptedCard):
    """Works for 3 seconds even where it is cancelled, as work in a thread does."""

    def __init__(self) -> None:
        super().__init__(self._work)

    @staticmethod
    async def _work(command: bytes) -> bytes:
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
        return b"\x90\x00"


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
