# SPDX-License-Identifier: Apache-2.0
"""What a card may count on: of the memory in the database, and of the fake that tests use."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ccidd.card.memory import CardMemory
from ccidd.card.pin import PinMemory
from ccidd.service.state import State, StoredMemory
from crash import CHEAP
from memory import VolatileMemory, VolatilePin

GUID = "00000000-0000-4000-8000-000000000001"
REFERENCE = 0x80
RIGHT = b"123456\xff\xff"
WRONG = b"654321\xff\xff"


@pytest.fixture(params=["volatile", "stored"])
async def memory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CardMemory]:
    if request.param == "volatile":
        yield VolatileMemory({REFERENCE: VolatilePin(b"")})
        return
    with State(tmp_path, cost=CHEAP) as state:
        state.note_card(GUID, "piv")
        yield StoredMemory(state, state.card(GUID))


@pytest.fixture
async def pin(memory: CardMemory) -> PinMemory:
    pin = memory.pin(REFERENCE)
    await pin.change(RIGHT)
    return pin


# Contents.


async def test_changes_are_made_together(memory: CardMemory) -> None:
    assert memory.contents == {}
    await memory.store({"a": b"1", "b": b"", "c": bytes(100_000)})
    assert memory.contents == {"a": b"1", "b": b"", "c": bytes(100_000)}
    await memory.store({"a": b"2", "b": None, "not there": None})
    assert memory.contents == {"a": b"2", "c": bytes(100_000)}
    await memory.store({})
    assert memory.contents == {"a": b"2", "c": bytes(100_000)}


async def test_names_can_be_anything(memory: CardMemory) -> None:
    names = {"", "piv/5FC102", "Ä", "a\0b", "a", "A", "%", "x" * 1000}
    await memory.store({name: name.encode() for name in names})
    assert memory.contents == {name: name.encode() for name in names}


async def test_a_cancelled_store_changes_nothing_or_all(memory: CardMemory) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await memory.store({"a": b"1", "b": b"2"})
    assert memory.contents in ({}, {"a": b"1", "b": b"2"})


# PINs.


async def test_a_comparison(pin: PinMemory) -> None:
    assert await pin.compare(RIGHT)
    assert not await pin.compare(WRONG)
    assert not await pin.compare(b"")
    assert await pin.compare(RIGHT)


async def test_wrong_tries_are_counted_and_a_match_gives_them_back(pin: PinMemory) -> None:
    assert await pin.tries_left() == await pin.max_tries() == 3
    await pin.compare(WRONG)
    await pin.compare(WRONG)
    assert await pin.tries_left() == 1
    await pin.compare(RIGHT)
    assert await pin.tries_left() == 3


async def test_a_blocked_pin_matches_nothing(pin: PinMemory) -> None:
    for _ in range(3):
        assert not await pin.compare(WRONG)
    assert await pin.tries_left() == 0
    assert not await pin.compare(RIGHT)
    assert await pin.tries_left() == 0


async def test_a_change_gives_the_tries_back(pin: PinMemory) -> None:
    for _ in range(3):
        await pin.compare(WRONG)
    await pin.change(WRONG)
    assert await pin.tries_left() == 3
    assert not await pin.compare(RIGHT)
    assert await pin.compare(WRONG)


async def test_how_many_tries_there_are_can_be_set(pin: PinMemory) -> None:
    await pin.compare(WRONG)
    for count in (15, 1, 5):
        await pin.set_max_tries(count)
        assert await pin.tries_left() == await pin.max_tries() == count
        assert await pin.compare(RIGHT)
    await pin.compare(WRONG)
    await pin.change(WRONG)
    assert await pin.tries_left() == await pin.max_tries() == 5


async def test_a_pin_is_remembered_by_its_reference(memory: CardMemory, pin: PinMemory) -> None:
    await pin.compare(WRONG)
    assert await memory.pin(REFERENCE).tries_left() == 2


# What only the memory in the database can do.


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(tmp_path, cost=CHEAP) as state:
        state.note_card(GUID, "piv")
        yield state


async def test_all_of_it_outlives_the_process(state: State, tmp_path: Path) -> None:
    memory = StoredMemory(state, state.card(GUID))
    await memory.store({"a": b"1", "b": b"2"})
    await memory.store({"b": None})
    await memory.pin(0x80).change(RIGHT)
    await memory.pin(0x80).compare(WRONG)
    await memory.pin(0x81).set_max_tries(7)
    state.resources.close()
    with State(tmp_path, cost=CHEAP) as again:
        memory = StoredMemory(again, again.card(GUID))
        assert memory.contents == {"a": b"1"}
        assert await memory.pin(0x80).tries_left() == 2
        assert await memory.pin(0x81).tries_left() == 7
        assert not await memory.pin(0x81).compare(RIGHT)


async def test_a_pin_that_was_never_set_is_blocked(state: State) -> None:
    pin = StoredMemory(state, state.card(GUID)).pin(0x00)
    assert (await pin.tries_left(), await pin.max_tries()) == (0, 3)
    assert not await pin.compare(RIGHT)
    await pin.change(RIGHT)
    assert await pin.compare(RIGHT)


async def test_the_try_is_spent_before_the_pin_is_compared(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutsThePower(Exception):  # noqa: N818 (it is no error)
        pass

    def cut(candidate: bytes, hashed: bytes) -> bool:
        raise CutsThePower

    pin = StoredMemory(state, state.card(GUID)).pin(0x80)
    await pin.change(RIGHT)
    monkeypatch.setattr("ccidd.service.state.memory.is_pin", cut)
    with pytest.raises(CutsThePower):
        await pin.compare(RIGHT)
    assert await pin.tries_left() == 2


async def test_contents_that_cannot_be_stored_are_an_error_and_nothing_changes(
    state: State,
) -> None:
    memory = StoredMemory(state, state.card(GUID))
    await memory.store({"a": b"1"})
    (pages,) = state._database.execute("PRAGMA page_count").fetchone()
    state._database.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    with pytest.raises(OSError, match="cannot be stored") as refused:
        await memory.store({"a": b"2", "b": bytes(100_000)})
    assert refused.value.errno == 28
    assert memory.contents == state.contents(GUID) == {"a": b"1"}
    state._database.execute("PRAGMA max_page_count = 1000000").fetchall()
    await memory.store({"a": b"2"})
    assert state.contents(GUID) == {"a": b"2"}


async def test_a_pin_can_be_remembered_elsewhere(state: State) -> None:
    elsewhere = VolatilePin(RIGHT)
    memory = StoredMemory(state, state.card(GUID), {0x80: elsewhere})
    assert memory.pin(0x80) is elsewhere
    assert memory.pin(0x81) is not elsewhere


changes = st.dictionaries(st.sampled_from("abc"), st.none() | st.binary(max_size=10), max_size=3)


@given(st.lists(changes, max_size=8))
def test_both_memories_hold_the_same(
    tmp_path_factory: pytest.TempPathFactory, all_changes: list[dict[str, bytes | None]]
) -> None:
    async def store_in_both() -> None:
        volatile = VolatileMemory({})
        with State(directory, cost=CHEAP) as state:
            state.note_card(GUID, "piv")
            stored = StoredMemory(state, state.card(GUID))
            for each in all_changes:
                await volatile.store(each)
                await stored.store(each)
                assert stored.contents == volatile.contents == state.contents(GUID)

    directory = tmp_path_factory.mktemp("state")
    trio.run(store_in_both)
