# SPDX-License-Identifier: Apache-2.0
"""The exchange levels where test_ccid_reader.py does not reach them."""

from collections.abc import Callable
from functools import reduce
from operator import xor

import pytest
import trio
import trio.testing

from cards import ScriptedCard, echo_card
from ccid_protocol.atr import ATR, InterfaceBytes
from ccid_protocol.ccid import BadFieldError, ChainParameter, Offset, SlotError
from ccid_protocol.pps import PPS
from ccidd.reader.exchange import (
    MAX_APDU,
    ExtendedApduExchange,
    ShortApduExchange,
    SlotFailure,
    TpduExchange,
)

T0_AND_T1 = ATR(
    b"dual",
    (
        InterfaceBytes(ta=0x11, protocol=0),
        InterfaceBytes(protocol=1),
        InterfaceBytes(ta=0x40, tb=0x45),
    ),
)
T1 = ATR(b"one", (InterfaceBytes(protocol=1), InterfaceBytes(protocol=1)))


def apdu(length: int) -> bytes:
    """A command that an echo card answers with so many bytes."""
    return bytes([0x00, 0x10, *divmod(length, 256)])


def block(pcb: int, data: bytes = b"", nad: int = 0) -> bytes:
    raw = bytes([nad, pcb, len(data)]) + data
    return raw + bytes([reduce(xor, raw)])


# Responses in pieces.


async def test_a_response_longer_than_a_message_comes_in_pieces(
    autojump_clock: trio.testing.MockClock,
) -> None:
    exchange = ExtendedApduExchange(echo_card(), 100)
    pieces = [await exchange.transfer(apdu(250), 0)]
    while pieces[-1][1] in {ChainParameter.BEGINS, ChainParameter.CONTINUES}:
        pieces.append(await exchange.transfer(b"", 0x10))
    assert [(len(data), chain) for data, chain in pieces] == [(100, 1), (100, 3), (50, 2)]
    assert b"".join(data for data, _chain in pieces) == await echo_card().transmit(apdu(250))
    with pytest.raises(BadFieldError) as caught:
        await exchange.transfer(b"", 0x10)
    assert caught.value.offset == Offset.LEVEL_PARAMETER


@pytest.mark.parametrize("length", [99, 100])
async def test_a_response_that_fits_is_whole(
    length: int, autojump_clock: trio.testing.MockClock
) -> None:
    data, chain = await ExtendedApduExchange(echo_card(), 100).transfer(apdu(length), 0)
    assert (len(data), chain) == (length, ChainParameter.WHOLE)


async def test_a_new_command_forgets_the_rest_of_a_response(
    autojump_clock: trio.testing.MockClock,
) -> None:
    exchange = ExtendedApduExchange(echo_card(), 100)
    await exchange.transfer(apdu(250), 0)
    assert await exchange.transfer(apdu(2), 0) == (b"\x90\0", ChainParameter.WHOLE)
    with pytest.raises(BadFieldError):
        await exchange.transfer(b"", 0x10)


async def test_a_command_in_pieces_can_have_a_response_in_pieces(
    autojump_clock: trio.testing.MockClock,
) -> None:
    exchange = ExtendedApduExchange(echo_card(), 100)
    assert await exchange.transfer(apdu(150)[:2], 1) == (b"", ChainParameter.NEXT_COMMAND_PIECE)
    data, chain = await exchange.transfer(apdu(150)[2:], 2)
    assert (len(data), chain) == (100, ChainParameter.BEGINS)
    data, chain = await exchange.transfer(b"", 0x10)
    assert (len(data), chain) == (50, ChainParameter.ENDS)


async def test_a_command_of_the_longest_length_passes_and_one_more_byte_does_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def length_of(command: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return len(command).to_bytes(4)

    exchange = ExtendedApduExchange(ScriptedCard(length_of), 100000)
    data, _chain = await exchange.transfer(bytes(MAX_APDU), 0)
    assert int.from_bytes(data) == MAX_APDU
    await exchange.transfer(bytes(MAX_APDU), 1)
    with pytest.raises(SlotFailure) as caught:
        await exchange.transfer(b"\0", 2)
    assert caught.value.error == SlotError.XFR_OVERRUN
    assert await exchange.transfer(b"abc", 0) == (bytes([0, 0, 0, 3]), ChainParameter.WHOLE)


# Short APDUs.


@pytest.mark.parametrize("level", [0x0001, 0x0002, 0x0003, 0x0010, 0xFFFF])
async def test_a_piece_never_reaches_a_card_as_a_short_apdu(
    level: int, autojump_clock: trio.testing.MockClock
) -> None:
    async def fail(command: bytes) -> bytes:
        raise AssertionError(command.hex())

    with pytest.raises(BadFieldError) as caught:
        await ShortApduExchange(ScriptedCard(fail)).transfer(apdu(2), level)
    assert caught.value.offset == Offset.LEVEL_PARAMETER


# TPDUs.


@pytest.mark.parametrize(("atr", "is_block"), [(T1, True), (T0_AND_T1, False)])
async def test_without_pps_the_first_protocol_is_in_use(
    atr: ATR, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, *, is_block: bool
) -> None:
    exchange = TpduExchange(echo_card(), atr, nursery)
    sent = block(0x00, apdu(2)) if is_block else apdu(2)
    expected = block(0x00, b"\x90\0") if is_block else b"\x90\0"
    assert await exchange.transfer(sent, 0) == (expected, ChainParameter.WHOLE)


async def test_pps_comes_first_or_not_at_all(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    exchange = TpduExchange(echo_card(), T0_AND_T1, nursery)
    request = PPS(1).encode()
    assert await exchange.transfer(request, 0) == (request, ChainParameter.WHOLE)
    # Now it is a block, whose check fails.
    answer, _chain = await exchange.transfer(request, 0)
    assert answer[1] & 0xC0 == 0x80


async def test_a_pps_with_a_wrong_check_finds_a_mute_card(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    exchange = TpduExchange(echo_card(), T0_AND_T1, nursery)
    with pytest.raises(SlotFailure) as caught:
        await exchange.transfer(b"\xff\x01\x00", 0)
    assert caught.value.error == SlotError.ICC_MUTE


async def test_the_card_takes_blocks_of_its_own_size(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    exchange = TpduExchange(echo_card(), T0_AND_T1, nursery)
    exchange.select(1)
    too_long = block(0x00, apdu(2) + bytes(0x41 - 4))
    answer, _chain = await exchange.transfer(too_long, 0)
    assert answer[1] & 0xC0 == 0x80
    fits = block(0x00, apdu(2) + bytes(0x40 - 4))
    answer, _chain = await exchange.transfer(fits, 0)
    assert answer == block(0x00, b"\x90\0")


async def test_a_response_that_is_longer_than_a_block_is_chained(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    exchange = TpduExchange(echo_card(), T1, nursery)
    answer, _chain = await exchange.transfer(block(0x00, apdu(50)), 0)
    assert (answer[1], answer[2]) == (0x20, 32)
    rest, _chain = await exchange.transfer(block(0x90), 0)
    assert (rest[1], rest[2]) == (0x40, 18)
    assert answer[3:-1] + rest[3:-1] == await echo_card().transmit(apdu(50))


class SlowCard(ScriptedCard):
    """Works for some seconds on each command; `at_work` counts those that it works on."""

    def __init__(self, seconds: float) -> None:
        super().__init__(self._work)
        self._seconds = seconds
        self.at_work = 0

    async def _work(self, command: bytes) -> bytes:
        self.at_work += 1
        try:
            await trio.sleep(self._seconds)
        finally:
            self.at_work -= 1
        return b"\x90\0"


WTX_REQUEST, WTX_RESPONSE, RESYNCH_REQUEST = 0xC3, 0xE3, 0xC0


async def test_a_card_that_works_for_long_asks_for_more_time_before_its_time_is_over(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    exchange = TpduExchange(SlowCard(5), T1, nursery)
    block_waiting_time = 16 * 960 * 372 / 4_000_000
    sent = block(0x00, apdu(2))
    requests = 0
    while True:
        started = trio.current_time()
        answer, _chain = await exchange.transfer(sent, 0)
        assert trio.current_time() - started < block_waiting_time
        if answer[1] != WTX_REQUEST:
            break
        requests += 1
        sent = block(WTX_RESPONSE, answer[3:-1])
    assert answer == block(0x00, b"\x90\0")
    assert requests == 4


async def test_a_card_that_must_resynchronize_forgets_what_it_works_on(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    card = SlowCard(5)
    exchange = TpduExchange(card, T1, nursery)
    answer, _chain = await exchange.transfer(block(0x00, apdu(2)), 0)
    assert (answer[1], card.at_work) == (WTX_REQUEST, 1)
    answer, _chain = await exchange.transfer(block(RESYNCH_REQUEST), 0)
    assert answer == block(0xE0)
    await trio.testing.wait_all_tasks_blocked()
    assert card.at_work == 0


async def test_a_card_without_power_works_on_nothing(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    card = SlowCard(5)
    exchange = TpduExchange(card, T1, nursery)
    await exchange.transfer(block(0x00, apdu(2)), 0)
    exchange.close()
    await trio.testing.wait_all_tasks_blocked()
    assert card.at_work == 0


async def test_a_command_that_is_cancelled_is_not_worked_on(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    card = SlowCard(5)
    exchange = TpduExchange(card, T1, nursery)
    with trio.move_on_after(0.1):
        await exchange.transfer(block(0x00, apdu(2)), 0)
    await trio.testing.wait_all_tasks_blocked()
    assert card.at_work == 0


@pytest.mark.parametrize("end", [TpduExchange.abort, TpduExchange.close])
async def test_a_card_whose_command_was_given_up_still_takes_part_in_t1(
    end: Callable[[TpduExchange], None],
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    exchange = TpduExchange(SlowCard(5), T1, nursery)
    await exchange.transfer(block(0x00, apdu(2)), 0)
    end(exchange)
    answer, _chain = await exchange.transfer(block(0x80), 0)
    assert answer[1] & 0xC0 == 0x80
    answer, _chain = await exchange.transfer(block(0x40, apdu(2)), 0)
    assert answer[1] == WTX_REQUEST


async def test_a_card_that_does_not_accept_pps_is_mute_until_its_reset(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    exchange = TpduExchange(echo_card(), T0_AND_T1, nursery)
    for data in (PPS(5).encode(), apdu(2)):
        with pytest.raises(SlotFailure) as caught:
            await exchange.transfer(data, 0)
        assert caught.value.error == SlotError.ICC_MUTE


async def test_in_specific_mode_ta2_names_the_protocol(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    groups = (
        InterfaceBytes(ta=0x11, protocol=0),
        InterfaceBytes(ta=0x81, protocol=1),
        InterfaceBytes(ta=0xFE, tb=0x45),
    )
    exchange = TpduExchange(echo_card(), ATR(b"", groups), nursery)
    answer, _chain = await exchange.transfer(block(0x00, apdu(2)), 0)
    assert answer == block(0x00, b"\x90\0")


async def test_what_is_no_tpdu_is_refused_by_its_length(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    exchange = TpduExchange(echo_card(), T0_AND_T1, nursery)
    with pytest.raises(BadFieldError) as caught:
        await exchange.transfer(apdu(2) + b"\5\0", 0)
    assert caught.value.offset == 1


async def test_a_fault_of_a_card_at_work_is_not_lost(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def fail(command: bytes) -> bytes:
        raise ZeroDivisionError

    exchange = TpduExchange(ScriptedCard(fail), T1, nursery)
    with pytest.raises(ZeroDivisionError):
        await exchange.transfer(block(0x00, apdu(2)), 0)


# PIN entry.


async def test_a_pin_command_is_wrapped_as_its_level_demands(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    prologue = bytes([0x00, 0x00, 0x00])
    extended = ExtendedApduExchange(echo_card(), 100)
    assert await extended.transfer_secure(apdu(2), prologue) == b"\x90\0"
    assert await ShortApduExchange(echo_card()).transfer_secure(apdu(2), prologue) == b"\x90\0"
    t0 = TpduExchange(echo_card(), T0_AND_T1, nursery)
    assert await t0.transfer_secure(apdu(2), prologue) == b"\x90\0"
    t1 = TpduExchange(echo_card(), T1, nursery)
    assert await t1.transfer_secure(apdu(2), prologue) == block(0x00, b"\x90\0")
    assert await t1.transfer_secure(apdu(2), b"\x00\x40\x00") == block(0x40, b"\x90\0")
