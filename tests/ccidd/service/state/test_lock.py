# SPDX-License-Identifier: Apache-2.0
"""A card is served by one process at a time, or by several that share it."""

import multiprocessing
import os
import subprocess
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from ccidd.errors import UserError
from ccidd.service.state import CardRecord, State, StoredMemory
from ccidd.service.state.lock import CardLock
from ccidd.service.state.memory import destroy
from ccidd.service.state.pinhash import hash_pin
from crash import CHEAP, GUID, make_card, open_state

TOKEN_GUID = GUID.replace("1", "2")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_card(tmp_path)
    return tmp_path


def test_a_card_that_is_served_is_served_once(directory: Path) -> None:
    with open_state(directory) as state:
        assert state.served_by(GUID) is None
        StoredMemory(state, state.card(GUID))
        assert state.served_by(GUID) == os.getpid()
        with pytest.raises(UserError, match="the card a card is being served by this process"):
            StoredMemory(state, state.card(GUID))
        with State(directory, cost=CHEAP) as another, pytest.raises(UserError):
            StoredMemory(another, another.card(GUID))
    with open_state(directory) as state:
        assert state.served_by(GUID) is None
        StoredMemory(state, state.card(GUID))


def test_another_card_can_be_served_meanwhile(directory: Path) -> None:
    other = GUID.replace("1", "2")
    with open_state(directory) as state, open_state(directory) as another:
        StoredMemory(state, state.card(GUID))
        another.note_card(other, "piv")
        StoredMemory(another, another.card(other))
        assert state.served_by(other) == another.served_by(GUID) == os.getpid()


def test_a_card_that_was_destroyed_meanwhile_is_not_served(directory: Path) -> None:
    with open_state(directory) as state, open_state(directory) as another:
        card = state.card(GUID)
        destroy(another, another.card(GUID))
        with pytest.raises(UserError, match="there is no card"):
            StoredMemory(state, card)


def note_token_card(state: State) -> CardRecord:
    """Makes a card without contents, as those of tokens are."""
    state.note_card(TOKEN_GUID, "piv")
    return state.card(TOKEN_GUID)


def test_a_shared_card_is_served_by_all_who_share_it(directory: Path) -> None:
    with open_state(directory) as state, open_state(directory) as another:
        card = note_token_card(state)
        first = StoredMemory(state, card, shared=True)
        second = StoredMemory(another, card, shared=True)
        for _ in range(2):
            with pytest.raises(UserError, match="is being served by this process"):
                StoredMemory(state, card)
            with pytest.raises(UserError, match="is being served by this process"):
                destroy(state, card)
            assert state.served_by(TOKEN_GUID) == os.getpid()
            first.close()
        second.close()
        assert state.served_by(TOKEN_GUID) is None
        StoredMemory(state, card)
        with pytest.raises(UserError, match="is being served by this process"):
            StoredMemory(another, card, shared=True)


async def test_a_shared_card_has_tries_in_common_and_nothing_is_stored_on_it(
    directory: Path,
) -> None:
    with open_state(directory) as state, open_state(directory) as another:
        card = note_token_card(state)
        state.set_pin(TOKEN_GUID, 0x80, hash_pin(b"123456\xff\xff", CHEAP))
        first = StoredMemory(state, card, shared=True)
        pins = [first.pin(0x80), StoredMemory(another, card, shared=True).pin(0x80)]
        for pin in pins:
            assert not await pin.compare(b"000000\xff\xff")
        assert [await pin.tries_left() for pin in pins] == [1, 1]
        with pytest.raises(OSError, match="nothing is stored"):
            await first.store({"name": b"value"})
        assert first.contents == state.contents(TOKEN_GUID) == {}


async def test_a_card_with_contents_is_not_shared(directory: Path) -> None:
    with open_state(directory) as state, open_state(directory) as another:
        card = state.card(GUID)
        memory = StoredMemory(state, card, shared=True)
        with pytest.raises(UserError, match="is being served by this process"):
            StoredMemory(another, card, shared=True)
        await memory.store({"name": b"value"})
        memory.close()
        # Somebody who shares it, and has not looked at what is on it.
        lock = CardLock(directory, GUID, "the card", shared=True)
        with pytest.raises(UserError, match="is being served by this process"):
            StoredMemory(another, card, shared=True)
        lock.close()
        StoredMemory(another, card, shared=True)


def hold(directory: Path, ready: Connection) -> None:
    with open_state(directory) as state:
        StoredMemory(state, state.card(GUID))
        ready.send(None)
        ready.recv()


def test_the_lock_of_a_process_ends_with_it(directory: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(directory, theirs))
    process.start()
    ours.recv()
    with open_state(directory) as state:
        assert state.served_by(GUID) == process.pid
        with pytest.raises(UserError, match=f"is being served by process {process.pid}"):
            StoredMemory(state, state.card(GUID))
        with pytest.raises(UserError, match=f"is being served by process {process.pid}"):
            destroy(state, state.card(GUID))
        assert state.find_card(GUID) is not None
        process.kill()
        process.join()
        assert state.served_by(GUID) is None
        StoredMemory(state, state.card(GUID))


def test_a_process_that_has_ended_is_not_named(directory: Path) -> None:
    """The one that began last of several that share a card may be the first to end."""
    with open_state(directory) as state:
        card = note_token_card(state)
        StoredMemory(state, card, shared=True)
        process = subprocess.Popen(["true"])
        process.wait()
        (directory / f"locks/{TOKEN_GUID}.lock").write_text(f"{process.pid}\n")
        assert state.served_by(TOKEN_GUID) == 0
        with pytest.raises(UserError, match="is being served by another process"):
            destroy(state, card)


def test_looking_does_not_keep_a_process_out(directory: Path) -> None:
    with open_state(directory) as state:
        lock = CardLock(directory, GUID, "the card")
        lock.close()
        for _ in range(3):
            assert state.served_by(GUID) is None
            CardLock(directory, GUID, "the card").close()


def test_a_lock_on_a_file_that_is_gone_is_none(directory: Path) -> None:
    first = CardLock(directory, GUID, "the card")
    first.remove()
    second = CardLock(directory, GUID, "the card")
    with pytest.raises(UserError, match="is being served"):
        CardLock(directory, GUID, "the card")
    first.close()
    with pytest.raises(UserError, match="is being served"):
        CardLock(directory, GUID, "the card")
    second.close()


@pytest.mark.parametrize("what", ["link", "directory"])
def test_a_symbolic_link_is_refused(directory: Path, tmp_path: Path, what: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    if what == "directory":
        elsewhere.mkdir()
        (directory / "locks").symlink_to(elsewhere)
    else:
        (directory / "locks").mkdir(mode=0o700)
        (directory / f"locks/{GUID}.lock").symlink_to(elsewhere)
    with pytest.raises(UserError, match="is a symbolic link"):
        CardLock(directory, GUID, "the card")
    assert what == "directory" or not elsewhere.exists()
