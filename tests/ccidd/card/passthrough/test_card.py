# SPDX-License-Identifier: Apache-2.0
"""One card, shared by guests and programs of the host, in a real pcscd."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from smartcard import scard
from structlog.testing import capture_logs

from cards import response_of_length
from ccidd.card.card import Card, CardGoneError
from ccidd.card.passthrough.card import PassthroughCard, Sharing
from ccidd.reader.slot import Slot
from host_program import HostProgram, PcscCallError, connected
from passthrough import (
    PATIENCE,
    READER,
    bench,
    following,
    inserted,
    new_piv_card,
    powered,
    scripted_card,
)
from piv import SELECT, selected, verify

PIN = "123456"
PIN_STATUS = bytes.fromhex("00200080")
GET_DISCOVERY = bytes.fromhex("00CB3FFF035C017E00")
ECHO = bytes.fromhex("0010000a08")


async def is_verified(transmit: Callable[[bytes], Awaitable[bytes]]) -> bool:
    """Whether the PIN of the PIV card application is verified."""
    assert (await transmit(bytes.fromhex(SELECT))).endswith(b"\x90\0")
    return await transmit(PIN_STATUS) == b"\x90\0"


@asynccontextmanager
async def host_program(slot: Slot) -> AsyncIterator[HostProgram]:
    """A program that connects to the card that the slot follows, once it is there."""
    await inserted(slot)
    async with connected(READER) as program:
        yield program


async def test_a_guest_does_not_find_what_a_host_program_has_opened(tmp_path: Path) -> None:
    async with (
        bench(tmp_path, new_piv_card()),
        following() as slot,
        host_program(slot) as program,
    ):
        await program.transmit(bytes.fromhex(SELECT))
        await program.transmit(bytes.fromhex("0020008008") + PIN.encode() + b"\xff\xff")
        assert await is_verified(program.transmit)
        guest = await powered(slot)
        assert not await is_verified(guest.transmit)
        await guest.power_off()
        # That is told as PC/SC tells it.
        with pytest.raises(PcscCallError) as told:
            await program.transmit(PIN_STATUS)
        assert told.value.code == scard.SCARD_W_RESET_CARD


@pytest.mark.parametrize("end", ["powers it off", "leaves it alone"])
async def test_a_host_program_waits_its_turn_and_finds_nothing_open(
    end: str, tmp_path: Path
) -> None:
    sharing = Sharing(idle_release=1)
    async with bench(tmp_path, new_piv_card()), following(sharing=sharing) as slot:
        guest = await selected(await powered(slot))
        assert await verify(guest, PIN) == 0x9000
        begun = trio.current_time()
        with trio.move_on_after(0.7):
            async with connected(READER):
                pytest.fail("the guest has the card")
        if end == "powers it off":
            await guest.power_off()
        async with connected(READER) as program:
            assert trio.current_time() - begun < 3
            assert not await is_verified(program.transmit)


async def test_a_guest_whose_turn_has_ended_sees_the_card_inserted_anew(tmp_path: Path) -> None:
    sharing = Sharing(idle_release=0.3)
    async with bench(tmp_path, new_piv_card()), following(sharing=sharing) as slot:
        first = await inserted(slot)
        guest = await selected(first)
        assert await verify(guest, PIN) == 0x9000
        await trio.sleep(1)
        # Nothing tells a guest that does not ask.
        assert slot.insertion is first
        for _ in range(2):
            with pytest.raises(CardGoneError):
                await guest.transmit(PIN_STATUS)
        second = await powered(slot, after=first)
        assert not await is_verified(second.transmit)
        assert await verify(second, PIN) == 0x9000


async def test_what_a_guest_had_selected_is_selected_again(tmp_path: Path) -> None:
    sharing = Sharing(idle_release=0.3)
    async with bench(tmp_path, new_piv_card()) as host, following(sharing=sharing) as slot:
        insertion = await inserted(slot)
        guest = await selected(insertion)
        discovery = await guest.transmit(GET_DISCOVERY)
        assert discovery.endswith(b"\x90\0")
        async with host_program(slot) as program:
            # After the reset that comes first, no application is selected.
            assert await program.transmit(GET_DISCOVERY) == b"\x6a\x82"
        assert await guest.transmit(GET_DISCOVERY) == discovery
        # Be it before the PIN.
        await trio.sleep(0.7)
        assert await verify(guest, PIN) == 0x9000
        assert slot.insertion is insertion
        assert host.reader.commands.count(bytes.fromhex(SELECT)) == 3


async def test_a_card_that_answers_otherwise_is_another(tmp_path: Path) -> None:
    answers = iter((b"\1\x90\0", b"\2\x90\0", b"\2\x90\0"))

    async def answer(_command: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return next(answers)

    sharing = Sharing(idle_release=0.2)
    async with bench(tmp_path, scripted_card(answer)), following(sharing=sharing) as slot:
        first = await inserted(slot)
        await selected(first)
        await trio.sleep(0.5)
        with pytest.raises(CardGoneError):
            await first.transmit(GET_DISCOVERY)
        await inserted(slot, after=first)


async def test_a_guest_that_begins_anew_finds_its_pin_asked_for(tmp_path: Path) -> None:
    sharing = Sharing(idle_release=0.3)
    async with bench(tmp_path, new_piv_card()), following(sharing=sharing) as slot:
        insertion = await inserted(slot)
        guest = await selected(insertion)
        assert await verify(guest, PIN) == 0x9000
        await trio.sleep(0.7)
        assert not await is_verified(guest.transmit)
        assert await verify(guest, PIN) == 0x9000
        assert slot.insertion is insertion


async def test_a_guest_that_powers_the_card_off_itself_sees_nothing_of_it(tmp_path: Path) -> None:
    sharing = Sharing(idle_release=0.3)
    async with bench(tmp_path, new_piv_card()), following(sharing=sharing) as slot:
        insertion = await inserted(slot)
        for end in (insertion.power_off, partial(trio.sleep, 1)):
            guest = await selected(insertion)
            assert await verify(guest, PIN) == 0x9000
            await end()
            # It is the same to a guest that resets the card.
            await guest.power_on()
            assert not await is_verified(guest.transmit)
        assert slot.insertion is insertion


async def test_a_reset_by_the_guest_closes_what_its_pin_has_opened(tmp_path: Path) -> None:
    async with bench(tmp_path, new_piv_card()), following() as slot:
        guest = await selected(await powered(slot))
        assert await verify(guest, PIN) == 0x9000
        assert await is_verified(guest.transmit)
        await guest.power_on()
        assert not await is_verified(guest.transmit)
        assert await verify(guest, PIN) == 0x9000
        # It is not used any more, but it was.
        await guest.power_on()
        await guest.power_off()
        async with host_program(slot) as program:
            assert not await is_verified(program.transmit)


async def test_a_power_off_that_is_cancelled_closes_what_the_pin_has_opened(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    threads = trio.CapacityLimiter(1)
    card = new_piv_card()
    async with bench(tmp_path, card), following() as slot:
        await inserted(slot)
        guest = PassthroughCard(READER, await card.power_on(), Sharing(), threads)
        assert not await is_verified(guest.transmit)
        assert await verify(guest, PIN) == 0x9000
        # A reader that is to end is cancelled at any moment: here, before the card is reset.
        threads.acquire_on_behalf_of_nowait("another")
        scope = trio.CancelScope()
        nursery.start_soon(_within, scope, guest.power_off)
        await trio.testing.wait_all_tasks_blocked(0.1)
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked(0.1)
        threads.release_on_behalf_of("another")
        async with connected(READER) as program:
            assert not await is_verified(program.transmit)


async def _within(scope: trio.CancelScope, function: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await function()


async def test_a_guest_that_does_not_use_the_card_disturbs_nobody(tmp_path: Path) -> None:
    async with (
        bench(tmp_path, new_piv_card()),
        following() as slot,
        host_program(slot) as program,
    ):
        await program.transmit(bytes.fromhex(SELECT))
        await program.transmit(bytes.fromhex("0020008008") + PIN.encode() + b"\xff\xff")
        guest = await powered(slot)
        await guest.power_off()
        assert await program.transmit(PIN_STATUS) == b"\x90\0"


# Nobody starves.


async def test_a_host_program_that_never_ends_makes_a_command_fail_in_time(tmp_path: Path) -> None:
    sharing = Sharing(patience=1)
    async with bench(tmp_path, new_piv_card()), following(sharing=sharing) as slot:
        guest = await powered(slot)
        async with connected(READER) as program:
            await program.begin()
            with capture_logs() as log:
                begun = trio.current_time()
                for _ in range(3):
                    with pytest.raises(CardGoneError):
                        await guest.transmit(bytes.fromhex(SELECT))
                assert 2.9 < trio.current_time() - begun < 6
            assert [entry["event"] for entry in log] == ["card_busy"] * 3
            # Whoever gave up does not come between later.
            await program.end()
            await program.begin()
            assert not await is_verified(program.transmit)
        assert not await is_verified(guest.transmit)


@pytest.mark.parametrize("way", ["without an end", "from power-on to power-off"])
async def test_a_guest_that_never_stops_is_stopped(way: str, tmp_path: Path) -> None:
    sharing = Sharing(idle_release=5, max_hold=1)
    async with (
        bench(tmp_path, new_piv_card()),
        following(sharing=sharing) as slot,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(never_stop, slot, way)
        await inserted(slot)
        await trio.sleep(0.2)
        for _ in range(2):
            begun = trio.current_time()
            async with connected(READER) as program:
                assert trio.current_time() - begun < 4
                await program.begin()
                assert not await is_verified(program.transmit)
                await trio.sleep(0.5)
                await program.end()
            await trio.sleep(0.5)
        nursery.cancel_scope.cancel()


async def never_stop(slot: Slot, way: str) -> None:
    while True:
        insertion = await inserted(slot)
        try:
            await use_without_pause(await powered(slot), way)
        except CardGoneError:
            await inserted(slot, after=insertion)


async def use_without_pause(guest: Card, way: str) -> None:
    while True:
        await guest.transmit(bytes.fromhex(SELECT))
        assert await verify(guest, PIN) == 0x9000
        if way == "from power-on to power-off":
            await guest.power_off()


async def test_a_turn_does_not_end_amid_a_chain_of_commands(tmp_path: Path) -> None:
    sharing = Sharing(idle_release=5, max_hold=1)
    card = scripted_card(response_of_length)
    async with bench(tmp_path, card), following(sharing=sharing) as slot:
        first = await inserted(slot)
        guest = await powered(slot)
        chained = bytes.fromhex("1010000a08")
        begun = trio.current_time()
        while trio.current_time() - begun < 1.5:
            await guest.transmit(chained)
        await guest.transmit(ECHO)
        # It is over as soon as the chain is.
        await trio.sleep(0.3)
        with pytest.raises(CardGoneError):
            await guest.transmit(ECHO)
        # A chain without an end is none.
        guest = await powered(slot, after=first)
        with trio.fail_after(4), pytest.raises(CardGoneError):
            await repeat(guest, chained)


async def repeat(guest: Card, command: bytes) -> None:
    while True:
        await guest.transmit(command)


async def test_an_exclusive_card_is_the_guest_s_alone_while_it_has_power(tmp_path: Path) -> None:
    sharing = Sharing(exclusive=True, idle_release=0.2, max_hold=0.2)
    async with bench(tmp_path, new_piv_card()), following(sharing=sharing) as slot:
        guest = await selected(await powered(slot))
        assert await verify(guest, PIN) == 0x9000
        await trio.sleep(0.7)
        with pytest.raises(PcscCallError) as refused:
            async with connected(READER):
                pass
        assert refused.value.code == scard.SCARD_E_SHARING_VIOLATION
        assert await is_verified(guest.transmit)
        await guest.power_off()
        async with connected(READER) as program:
            assert not await is_verified(program.transmit)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guest.transmit, bytes.fromhex(SELECT))
                await trio.sleep(0.5)
                await program.disconnect()


async def test_two_guests_and_a_host_program_take_turns(tmp_path: Path) -> None:
    async with (
        bench(tmp_path, new_piv_card()) as host,
        following() as first,
        following() as second,
        trio.open_nursery() as nursery,
    ):
        done: list[Slot | None] = []
        await inserted(first)
        nursery.start_soon(use_by_turns, first, done)
        nursery.start_soon(use_by_turns, second, done)
        for _ in range(3):
            with trio.fail_after(PATIENCE):
                name = await host.host.run("opensc-tool", "--name")
            assert "Personal Identity Verification Card" in name
            done.append(None)
        with trio.fail_after(PATIENCE):
            while done.count(first) < 3 or done.count(second) < 3:  # noqa: ASYNC110 (lists tell nobody)
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


async def use_by_turns(slot: Slot, done: list[Slot | None]) -> None:
    while True:
        guest = await powered(slot)
        assert not await is_verified(guest.transmit)
        assert await verify(guest, PIN) == 0x9000
        assert await is_verified(guest.transmit)
        await guest.power_off()
        done.append(slot)
        await trio.sleep(0.1)


# Whatever hangs is left alone.


async def test_a_command_that_is_given_up_leaves_no_trace(tmp_path: Path) -> None:
    released = trio.Event()

    async def answer(command: bytes) -> bytes:
        if command == ECHO:
            await released.wait()
        return await response_of_length(command)

    async with bench(tmp_path, scripted_card(answer)), following() as slot:
        first = await inserted(slot)
        guest = await powered(slot)
        with trio.move_on_after(0.5) as given_up:
            await guest.transmit(ECHO)
        assert given_up.cancelled_caught
        second = await powered(slot, after=first)
        with trio.move_on_after(0.5) as waiting:
            await second.transmit(bytes.fromhex("0010000b09"))
        # The card is still at work, for nobody.
        assert waiting.cancelled_caught
        released.set()
        with trio.fail_after(PATIENCE):
            assert len(await second.transmit(bytes.fromhex("0010000b09"))) == 11


async def test_a_card_that_never_answers_is_given_up(tmp_path: Path) -> None:
    async def answer(command: bytes) -> bytes:
        await trio.sleep(math.inf)
        return command

    sharing = Sharing(longest_command=0.5)
    async with bench(tmp_path, scripted_card(answer)), following(sharing=sharing) as slot:
        first = await inserted(slot)
        guest = await powered(slot)
        with pytest.raises(CardGoneError):
            await guest.transmit(ECHO)
        await inserted(slot, after=first)
