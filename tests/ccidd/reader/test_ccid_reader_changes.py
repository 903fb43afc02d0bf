# SPDX-License-Identifier: Apache-2.0
"""What a host sees of cards that come, go and fail."""

import pytest
import structlog
import trio
import trio.testing

from cards import ScriptedCard, echo_card
from ccid_host import FAILED, SlowCard, Start, apdu, final_answers, outcome
from ccid_protocol.ccid import (
    CommandStatus,
    GetSlotStatus,
    IccStatus,
    NotifySlotChange,
    SlotChange,
    SlotError,
    XfrBlock,
)
from ccidd.card.card import CardGoneError


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
