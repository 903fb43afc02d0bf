# SPDX-License-Identifier: Apache-2.0
"""A card is served by one process at a time."""

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from ccidd.errors import UserError
from ccidd.service.state import State, StoredMemory
from ccidd.service.state.lock import CardLock
from ccidd.service.state.memory import destroy
from crash import CHEAP, GUID, make_card, open_state


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
