# SPDX-License-Identifier: Apache-2.0
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from ccidd.card.application import CardError
from ccidd.card.pin import Pin, PinMemory
from ccidd.service.state import State, StoredPin
from memory import VolatilePin

RIGHT = b"123456\xff\xff"
WRONG = b"654321\xff\xff"


@pytest.fixture(params=["volatile", "stored"])
async def memory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PinMemory]:
    """The fake, and what it stands for."""
    if request.param == "volatile":
        yield VolatilePin(RIGHT)
        return
    with State(tmp_path) as state:
        yield StoredPin(state, "a card", 0x80, RIGHT)


async def sw_of(pin: Pin, candidate: bytes) -> int:
    with pytest.raises(CardError) as refused:
        await pin.verify(candidate)
    return refused.value.sw


async def test_the_right_pin_verifies(memory: PinMemory) -> None:
    pin = Pin(memory)
    await pin.verify(RIGHT)
    assert pin.verified
    await pin.check_status()
    pin.end()


async def test_wrong_tries_are_counted_and_block_at_zero(memory: PinMemory) -> None:
    pin = Pin(memory)
    assert [await sw_of(pin, WRONG) for _ in range(4)] == [0x63C2, 0x63C1, 0x63C0, 0x6983]
    assert await sw_of(pin, RIGHT) == 0x6983
    assert not pin.verified
    with pytest.raises(CardError, match="6983"):
        await pin.check_status()


async def test_the_right_pin_gives_the_tries_back(memory: PinMemory) -> None:
    pin = Pin(memory)
    await sw_of(pin, WRONG)
    await sw_of(pin, WRONG)
    await pin.verify(RIGHT)
    assert await sw_of(pin, WRONG) == 0x63C2


async def test_a_wrong_try_ends_what_was_verified(memory: PinMemory) -> None:
    pin = Pin(memory)
    await pin.verify(RIGHT)
    await sw_of(pin, WRONG)
    with pytest.raises(CardError, match="63C2"):
        await pin.check_status()


async def test_a_host_that_goes_away_costs_the_right_pin_no_try(memory: PinMemory) -> None:
    pin = Pin(memory)
    with trio.CancelScope() as host:
        host.cancel()
        await pin.verify(RIGHT)
    assert await memory.tries_left() == 3


async def test_the_try_is_spent_before_the_pin_is_compared(memory: PinMemory) -> None:
    class CutsThePower(Exception):  # noqa: N818 (it is no error)
        pass

    async def cut(candidate: bytes) -> bool:
        raise CutsThePower

    matches = memory.matches
    memory.matches = cut  # type: ignore[method-assign] # it is what this test is about
    pin = Pin(memory)
    with pytest.raises(CutsThePower):
        await pin.verify(RIGHT)
    memory.matches = matches  # type: ignore[method-assign] # as before
    assert await memory.tries_left() == 2
