# SPDX-License-Identifier: Apache-2.0
"""Killed at any instant, the state opens again: no try regained, nothing half-written."""

import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import crash
from ccidd.service.cardkeys import keys_in
from ccidd.service.state import State, StoredPin
from crash import GUID, NEW, OLD, OTHER_PIN, PIN, PIN_REFERENCE

SCHEMA_1 = Path(__file__).parents[3] / "data/state-1.sql"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("state")
    crash.make_card(directory)
    return directory


def crashes(directory: Path, tmp_path: Path, operation: str, kind: str) -> Iterator[State]:
    """Gives the state after a fault at each write of an operation, from the first to the last."""
    copies = tmp_path / "copies"
    statuses = crash.run_with_faults(directory, copies, operation, kind)
    assert len(statuses) > 4, "SQLite's writes were not seen"
    for number, status in enumerate(statuses[:-1], start=1):
        # SQLite cannot say that a commit failed which was on the disk already.
        assert status in ({3, 4} if kind == "full" else {-9})
        with crash.open_state(copies / f"{number}") as state:
            yield state


def tries(state: State) -> int:
    record = state.pin(GUID, PIN_REFERENCE)
    assert record is not None
    return record.tries_left


def is_pin(state: State, pin: bytes) -> bool:
    return trio.run(StoredPin(state, GUID, PIN_REFERENCE).compare, pin)


kinds = pytest.mark.parametrize("kind", ["killed", "torn", "full"])


@kinds
def test_contents_are_the_old_or_the_new(directory: Path, tmp_path: Path, kind: str) -> None:
    seen = [state.contents(GUID) for state in crashes(directory, tmp_path, "store", kind)]
    assert all(contents in (OLD, NEW) for contents in seen)
    assert seen[0] == OLD


def test_what_is_said_to_be_stored_is_and_what_is_not_is_not(
    directory: Path, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    for number, status in enumerate(crash.run_with_faults(directory, copies, "store", "full"), 1):
        with crash.open_state(copies / f"{number}") as state:
            assert state.contents(GUID) == (OLD if status == 3 else NEW)


@kinds
def test_a_wrong_try_is_never_regained(directory: Path, tmp_path: Path, kind: str) -> None:
    seen = [tries(state) for state in crashes(directory, tmp_path, "compare_wrong", kind)]
    assert sorted(seen, reverse=True) == seen
    assert set(seen) <= {2, 1}


@kinds
def test_the_right_pin_gives_the_tries_back_or_costs_one(
    directory: Path, tmp_path: Path, kind: str
) -> None:
    seen = [tries(state) for state in crashes(directory, tmp_path, "compare_right", kind)]
    assert set(seen) <= {3, 2, 1}
    assert 1 in seen


@kinds
def test_a_pin_is_the_old_one_with_its_tries_or_the_new_one(
    directory: Path, tmp_path: Path, kind: str
) -> None:
    for state in crashes(directory, tmp_path, "change", kind):
        left = tries(state)
        assert left in {2, 3}
        assert is_pin(state, PIN if left == 2 else OTHER_PIN)


@kinds
def test_a_card_is_there_whole_or_not_at_all(directory: Path, tmp_path: Path, kind: str) -> None:
    for state in crashes(directory, tmp_path, "add_another", kind):
        assert state.contents(GUID) == OLD
        for record in state.cards():
            assert state.contents(record.guid) == OLD
            assert is_pin(state, PIN)


@kinds
def test_a_card_is_forgotten_whole_or_not_at_all(
    directory: Path, tmp_path: Path, kind: str
) -> None:
    for state in crashes(directory, tmp_path, "forget", kind):
        is_there = state.find_card(GUID) is not None
        assert state.contents(GUID) == (OLD if is_there else {})
        assert state.pins(GUID) == ([PIN_REFERENCE] if is_there else [])


@kinds
def test_an_older_schema_is_migrated_whole_or_not_at_all(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "old"
    directory.mkdir()
    file = directory / "state.sqlite3"
    file.touch(mode=0o600)
    with sqlite3.connect(file) as database:
        database.executescript(SCHEMA_1.read_text())
    database.close()
    for state in crashes(directory, tmp_path, "just_open", kind):
        record = state.card("default")
        assert len(keys_in(state.contents(record.guid))) == 3
        assert state.pins(record.guid) == [0x80, 0x81]


@kinds
def test_a_new_state_is_made_whole_or_not_at_all(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "new"
    directory.mkdir(mode=0o700)
    for state in crashes(directory, tmp_path, "just_open", kind):
        assert state.cards() == []


@pytest.mark.parametrize("seed", range(8))
def test_killed_at_random(directory: Path, tmp_path: Path, seed: int) -> None:
    copy = tmp_path / "state"
    shutil.copytree(directory, copy)
    delay = random.Random(seed).uniform(0, 0.2)  # noqa: S311 (it need not be secret)
    said = crash.work_until_killed(copy, delay)
    with crash.open_state(copy) as state:
        contents = state.contents(GUID)
        left = tries(state)
    assert contents["a"] == contents["b"] or contents == OLD
    # What was said to be done is done; what comes next may be, but nothing after that.
    done = dict(said)
    stored = done.get("stored", 0)
    allowed = [b"%d" % number * 500 for number in (stored, stored + 1)]
    assert contents["a"] in allowed or (stored == 0 and contents == OLD)
    match said[-1][0]:
        case "opened":
            assert left == 2
        case "stored":
            assert left in ({2, 1} if said[-1][1] == 1 else {3, 2})
        case "spent":
            assert left in ({1, 3} if said[-1][1] == 1 else {2, 3})
        case "changed":
            assert left == 3
