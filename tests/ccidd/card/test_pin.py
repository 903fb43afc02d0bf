# SPDX-License-Identifier: Apache-2.0
import pytest
import trio

from ccidd.card.application import CardError
from ccidd.card.pin import Pin
from memory import VolatilePin

RIGHT = b"123456\xff\xff"
WRONG = b"654321\xff\xff"


@pytest.fixture
def pin() -> Pin:
    return Pin(VolatilePin(RIGHT))


async def sw_of(pin: Pin, candidate: bytes) -> int:
    with pytest.raises(CardError) as refused:
        await pin.verify(candidate)
    return refused.value.sw


async def test_the_right_pin_verifies(pin: Pin) -> None:
    await pin.verify(RIGHT)
    assert pin.verified
    await pin.check_status()
    pin.end()
    with pytest.raises(CardError, match="63C3"):
        await pin.check_status()


async def test_wrong_tries_are_counted_and_block_at_zero(pin: Pin) -> None:
    assert [await sw_of(pin, WRONG) for _ in range(4)] == [0x63C2, 0x63C1, 0x63C0, 0x6983]
    assert await sw_of(pin, RIGHT) == 0x6983
    assert not pin.verified
    with pytest.raises(CardError, match="6983"):
        await pin.check_status()


async def test_the_right_pin_gives_the_tries_back(pin: Pin) -> None:
    await sw_of(pin, WRONG)
    await sw_of(pin, WRONG)
    await pin.verify(RIGHT)
    assert await sw_of(pin, WRONG) == 0x63C2


async def test_a_wrong_try_ends_what_was_verified(pin: Pin) -> None:
    await pin.verify(RIGHT)
    await sw_of(pin, WRONG)
    with pytest.raises(CardError, match="63C2"):
        await pin.check_status()


async def test_a_host_that_goes_away_costs_the_right_pin_no_try(pin: Pin) -> None:
    with trio.CancelScope() as host:
        host.cancel()
        await pin.verify(RIGHT)
    assert await pin.memory.tries_left() == 3
