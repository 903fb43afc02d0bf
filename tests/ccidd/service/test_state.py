# SPDX-License-Identifier: Apache-2.0
import multiprocessing
import os
import signal
import sqlite3
import stat
from pathlib import Path

import pytest

from ccidd.errors import UserError
from ccidd.service import embedded
from ccidd.service.cards import stored_credentials
from ccidd.service.state import State, StoredCard, StoredKey, default_directory

CARD = StoredCard("a card", "123456", "12345678", (StoredKey(0x9A, b"key", b"certificate"),))


def test_the_state_is_for_its_user_alone(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "state"
    with State(directory) as state:
        state.spend_try("a card", 0x80)
        modes = {p: stat.S_IMODE(p.stat().st_mode) for p in (directory, *directory.iterdir())}
    assert modes.pop(directory) == 0o700
    assert set(modes.values()) == {0o600}


def test_tries_outlive_the_process(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        assert state.tries_left("a card", 0x80) == 3
        assert [state.spend_try("a card", 0x80) for _ in range(4)] == [True, True, True, False]
        assert state.tries_left("another", 0x80) == 3
        assert state.tries_left("a card", 0x00) == 3
    with State(tmp_path) as state:
        assert state.tries_left("a card", 0x80) == 0
        state.restore_tries("a card", 0x80)
        assert state.tries_left("a card", 0x80) == 3


def spend_and_die(directory: Path) -> None:
    State(directory).spend_try("a card", 0x80)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_try_that_was_spent_stays_spent_when_the_process_is_killed(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=spend_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with State(tmp_path) as state:
        assert state.tries_left("a card", 0x80) == 2


def test_two_processes_count_the_same_tries(tmp_path: Path) -> None:
    with State(tmp_path) as first, State(tmp_path) as second:
        assert first.spend_try("a card", 0x80)
        assert second.spend_try("a card", 0x80)
        assert first.tries_left("a card", 0x80) == second.tries_left("a card", 0x80) == 1


def test_a_card_is_stored_once(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        assert state.load_card("a card") is None
        assert state.add_card(CARD)
        assert not state.add_card(StoredCard("a card", "000000", "00000000", ()))
        assert state.load_card("a card") == CARD


def test_a_card_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    key = CARD.keys[0]
    with State(tmp_path) as state:
        with pytest.raises(sqlite3.IntegrityError):
            state.add_card(StoredCard("a card", "123456", "12345678", (key, key)))
        assert state.load_card("a card") is None


def test_secrets_stay_out_of_reprs() -> None:
    assert "123456" not in repr(CARD)
    assert "b'key'" not in repr(CARD)


def test_the_embedded_card_is_made_once(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        made, is_new = embedded.load_or_make(state)
        assert is_new
        assert embedded.load_or_make(state) == (made, False)
    assert {
        f"{reference:02X}": credential.key.algorithm.value
        for reference, credential in stored_credentials(made).items()
    } == {"9A": "P-256", "9C": "RSA-2048", "9D": "RSA-2048"}
    assert len(made.pin) == 6
    assert len(made.puk) == 8
    assert (made.pin + made.puk).isdigit()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with State(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "state.sqlite3") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(UserError, match=r"state\.sqlite3 was written by a newer ccidd"):
        State(tmp_path)


def test_what_cannot_hold_the_state_is_refused_in_one_line(tmp_path: Path) -> None:
    def refusal(directory: Path) -> str:
        with pytest.raises(UserError) as refused:
            State(directory)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    file = tmp_path / "file"
    file.write_bytes(b"no database" * 100)
    assert "Not a directory" in refusal(file / "below")

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "state.sqlite3").write_bytes(file.read_bytes())
    (broken / "state.sqlite3").chmod(0o600)
    assert "not a database" in refusal(broken)

    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "state.sqlite3").symlink_to(file)
    assert "symbolic link" in refusal(linked)

    loose = tmp_path / "loose"
    loose.mkdir()
    (loose / "state.sqlite3").touch(0o644)
    assert "chmod 600" in refusal(loose)


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "XDG_STATE_HOME": "/x"}, "/var/lib/a"),
        ({"XDG_STATE_HOME": "/x"}, "/x/ccidd"),
        ({}, f"{Path.home()}/.local/state/ccidd"),
    ],
)
def test_the_default_directory(environ: dict[str, str], directory: str) -> None:
    assert default_directory(environ) == Path(directory)
