# SPDX-License-Identifier: Apache-2.0
"""What is stored and what is refused."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest
import structlog

from ccidd.errors import UserError
from ccidd.service.state import (
    KeyFile,
    NewCard,
    ScryptCost,
    State,
    StoredMemory,
    default_directory,
    find_key_file,
)
from ccidd.service.state.directory import open_file
from ccidd.service.state.memory import apply_pin_file, destroy
from ccidd.service.state.pinhash import hash_pin, is_pin
from crash import CHEAP

GUID = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"
PIN = b"123456\xff\xff"
SECRET = b"a private key"
CARD = NewCard(GUID, "a-card", "piv", {0x80: PIN, 0x81: b"12345678"}, {"key/9A": SECRET})


def opened(directory: Path, key_file: KeyFile | None = None) -> State:
    return State(directory, key_file, CHEAP)


def refusal(directory: Path, key_file: KeyFile | None = None) -> str:
    with pytest.raises(UserError) as refused:
        opened(directory, key_file)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_state_is_for_its_user_alone(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "state"
    previous = os.umask(0)
    try:
        with opened(directory) as state:
            state.add_card(CARD)
            StoredMemory(state, state.card(GUID))
            modes = {p: stat.S_IMODE(p.stat().st_mode) for p in directory.rglob("*")}
    finally:
        os.umask(previous)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert modes.pop(directory / "locks") == 0o700
    assert set(modes.values()) == {0o600}
    assert {path.name for path in modes} == {"state.sqlite3", "state.key", f"{GUID}.lock"}


def test_when_a_transaction_has_ended_all_of_it_is_in_one_file(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.add_card(CARD)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["state.key", "state.sqlite3"]
        (synchronous,) = state._database.execute("PRAGMA synchronous").fetchone()
        assert synchronous == 3
        (mode,) = state._database.execute("PRAGMA journal_mode").fetchone()
        assert mode == "delete"


def test_cards_are_found_by_name_and_guid(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        assert state.find_card("a-card") is None
        assert state.add_card(CARD)
        state.note_card(OTHER, "piv")
    with opened(tmp_path) as state:
        record = state.card("a-card")
        assert (record.guid, record.name, record.type) == (GUID, "a-card", "piv")
        assert state.card(GUID.upper()) == record
        assert [each.name for each in state.cards()] == ["a-card", None]
        with pytest.raises(UserError, match="there is no card b-card"):
            state.card("b-card")


@pytest.mark.parametrize(("guid", "name"), [(GUID, "b-card"), (OTHER, "a-card")])
def test_a_card_is_stored_once(tmp_path: Path, guid: str, name: str) -> None:
    with opened(tmp_path) as state:
        assert state.add_card(CARD)
        assert not state.add_card(NewCard(guid, name, "piv", {0x80: b"654321\xff\xff"}, {}))
        assert state.contents(GUID) == {"key/9A": SECRET}
        assert len(state.cards()) == 1


def test_noting_a_card_twice_keeps_what_it_remembers(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.note_card(OTHER, "piv")
        state.set_max_tries(OTHER, 0x80, 5)
        state.note_card(OTHER, "cac")
        assert state.pins(OTHER) == [0x80]
        assert state.card(OTHER).type == "cac"


def test_noting_a_card_that_is_kept_here_does_not_change_its_kind(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.add_card(CARD)
        state.note_card(GUID, "cac")
        assert state.card(GUID).type == "piv"


def test_a_card_is_destroyed_with_all_that_it_had(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.add_card(CARD)
        destroy(state, state.card(GUID))
        assert state.cards() == []
        assert state.contents(GUID) == {}
        assert state.pins(GUID) == []
    assert not list((tmp_path / "locks").iterdir())


def test_secrets_stay_out_of_reprs_and_files(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.add_card(CARD)
        state.add_authority(b"certificate", b"the authority's key")
        record = state.pin(GUID, 0x80)
    assert record is not None
    assert record.hash is not None
    content = (tmp_path / "state.sqlite3").read_bytes()
    for secret in (SECRET, b"123456", b"12345678", record.hash, b"$scrypt", b"authority's key"):
        assert secret not in content
        for shown in (repr(CARD), repr(record)):
            assert secret.decode() not in shown


def test_what_was_deleted_is_overwritten(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.note_card(OTHER, "a kind of card that nobody has")
        state.forget_card(OTHER)
    assert b"nobody has" not in (tmp_path / "state.sqlite3").read_bytes()


def test_values_cannot_be_swapped(tmp_path: Path) -> None:
    second = NewCard(OTHER, "b-card", "piv", {0x80: PIN}, {"key/9A": b"another private key"})
    with opened(tmp_path) as state:
        state.add_card(CARD)
        state.add_card(second)
        state.store(GUID, {"key/9C": b"x"})
        first = state._database.execute(
            "SELECT value FROM content WHERE card = ? AND name = 'key/9C'", (GUID,)
        ).fetchone()
        for guid, name in ((GUID, "key/9A"), (OTHER, "key/9A")):
            state._database.execute("BEGIN")
            state._database.execute(
                "UPDATE content SET value = ? WHERE card = ? AND name = ?", (*first, guid, name)
            )
            with pytest.raises(UserError, match="is damaged"):
                state.contents(guid)
            state._database.execute("ROLLBACK")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE pin SET hash = (SELECT hash FROM pin ORDER BY card DESC)",
        "UPDATE pin SET hash = x'00'",
        "UPDATE pin SET hash = x''",
    ],
)
def test_the_hash_of_another_pin_is_refused(tmp_path: Path, change: str) -> None:
    with opened(tmp_path) as state:
        state.add_card(CARD)
        state.add_card(NewCard(OTHER, "b-card", "piv", {0x80: PIN}, {}))
        state._database.execute(change)
        with pytest.raises(UserError, match="is damaged"):
            state.spend_try(GUID, 0x80)


# PINs.


def test_a_hash_keeps_its_salt_and_its_cost() -> None:
    first, second = hash_pin(PIN, CHEAP), hash_pin(PIN, CHEAP)
    assert first != second
    costly = hash_pin(PIN, ScryptCost(log2_n=5, r=2, p=3))
    assert costly.startswith(b"$scrypt$ln=5,r=2,p=3$")
    for hashed in (first, second, costly):
        assert is_pin(PIN, hashed)
        assert not is_pin(b"123457\xff\xff", hashed)


def test_the_default_hash_is_slow_enough_to_matter() -> None:
    assert hash_pin(PIN, ScryptCost()).startswith(b"$scrypt$ln=15,r=8,p=1$")


def test_tries_outlive_the_process(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.add_card(CARD)
        spent = [state.spend_try(GUID, 0x80) for _ in range(4)]
        assert [record and record.tries_left for record in spent] == [2, 1, 0, None]
        assert state.spend_try(OTHER, 0x80) is None
    with opened(tmp_path) as state:
        assert state.spend_try(GUID, 0x80) is None
        state.restore_tries(GUID, 0x80)
        record = state.pin(GUID, 0x80)
        assert record is not None
        assert record.tries_left == 3


def tries(state: State) -> int:
    record = state.pin(OTHER, 0x80)
    assert record is not None
    return record.tries_left


def test_a_pin_file_says_something_once(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.note_card(OTHER, "piv")
        apply_pin_file(state, OTHER, 0x80, PIN)
        first = state.pin(OTHER, 0x80)
        assert first is not None
        assert first.hash is not None
        assert is_pin(PIN, first.hash)
        state.spend_try(OTHER, 0x80)
        # Started again with the same file: no try is given back.
        apply_pin_file(state, OTHER, 0x80, PIN)
        assert tries(state) == 2
        # The guest changed the PIN: that stands, as long as the file says what it said.
        changed = hash_pin(b"222222\xff\xff", CHEAP)
        state.set_pin(OTHER, 0x80, changed)
        state.spend_try(OTHER, 0x80)
        apply_pin_file(state, OTHER, 0x80, PIN)
        record = state.pin(OTHER, 0x80)
        assert record is not None
        assert (record.hash, record.tries_left) == (changed, 2)
        # The file says something new.
        with structlog.testing.capture_logs() as logs:
            apply_pin_file(state, OTHER, 0x80, b"333333\xff\xff")
        assert [entry["event"] for entry in logs] == ["pin_set_from_file"]
        record = state.pin(OTHER, 0x80)
        assert record is not None
        assert record.hash is not None
        assert is_pin(b"333333\xff\xff", record.hash)
        assert record.tries_left == 3


def test_a_blocked_pin_stays_blocked_with_the_same_file(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        state.note_card(OTHER, "piv")
        apply_pin_file(state, OTHER, 0x80, PIN)
        while state.spend_try(OTHER, 0x80):
            pass
        apply_pin_file(state, OTHER, 0x80, PIN)
        assert tries(state) == 0


# The key.


@pytest.mark.parametrize(
    "content", [bytes(range(32)), b"0A" * 32, b"0a" * 32 + b"\n", b"0a" * 32 + b"\r\n"]
)
def test_a_key_of_the_operator_s(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    with opened(tmp_path / "state", KeyFile(file)) as state:
        state.add_card(CARD)
    with opened(tmp_path / "state", KeyFile(file)) as state:
        assert state.contents(GUID) == {"key/9A": SECRET}
    assert not (tmp_path / "state/state.key").exists()


def test_a_wrong_key_is_refused(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for file, content in ((right, b"r" * 32), (wrong, b"w" * 32)):
        file.write_bytes(content)
        file.chmod(0o600)
    with opened(tmp_path / "state", KeyFile(right)):
        pass
    assert "encrypted under another key" in refusal(tmp_path / "state", KeyFile(wrong))
    # Not even with a key beside it, where one is looked for next.
    assert "state.key is gone" in refusal(tmp_path / "state")
    right.rename(tmp_path / "state/state.key")
    with opened(tmp_path / "state"):
        pass


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33, b"x" * 64, b"0a" * 32 + b"\n\n"])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    assert "key holds no key: 32 bytes" in refusal(tmp_path / "state", KeyFile(file))


def test_a_key_is_made_once_and_said_so(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            with opened(tmp_path):
                pass
    assert [(entry["event"], entry["path"]) for entry in logs] == [
        ("state_key_made", f"{tmp_path}/state.key")
    ]


def test_a_key_that_was_half_made_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "state.new").write_bytes(b"01234")
    with opened(tmp_path):
        pass
    assert len((tmp_path / "state.key").read_bytes()) == 65
    assert not (tmp_path / "state.new").exists()


def test_the_key_is_chosen_by_option_then_by_credential(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert find_key_file(None, {}) is None
    assert find_key_file(None, credentials) is None
    (tmp_path / "ccidd.state-key").touch()
    assert find_key_file(None, credentials) == KeyFile(tmp_path / "ccidd.state-key", private=False)
    assert find_key_file(chosen, credentials) == KeyFile(chosen)
    named = Path("credential:ccidd.state-key")
    assert find_key_file(named, credentials) == find_key_file(None, credentials)


def test_the_mode_of_a_credential_is_systemd_s_matter(tmp_path: Path) -> None:
    file = tmp_path / "ccidd.state-key"
    file.write_bytes(b"k" * 32)
    file.chmod(0o440)
    with opened(tmp_path / "state", KeyFile(file, private=False)):
        pass
    assert "chmod 400" in refusal(tmp_path / "state", KeyFile(file))


# What is refused.


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "state.sqlite3") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    before = (tmp_path / "state.sqlite3").read_bytes()
    assert "state.sqlite3 was written by a newer ccidd (schema 99)" in refusal(tmp_path)
    assert (tmp_path / "state.sqlite3").read_bytes() == before


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    with opened(directory) as state:
        state.add_card(CARD)
    return directory


@pytest.mark.parametrize("name", ["state.sqlite3", "state.key"])
def test_a_symbolic_link_is_refused(directory: Path, tmp_path: Path, name: str) -> None:
    (directory / name).rename(tmp_path / "elsewhere")
    (directory / name).symlink_to(tmp_path / "elsewhere")
    assert f"{name} is a symbolic link" in refusal(directory)
    (tmp_path / "elsewhere").unlink()
    assert f"{name} is a symbolic link" in refusal(directory)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["state.sqlite3", "state.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
def test_a_file_that_is_open_to_others_is_refused(directory: Path, name: str, mode: int) -> None:
    (directory / name).chmod(mode)
    expected = f"{name} is open to other users (mode {mode:03o}); run: chmod 600 {directory}/{name}"
    assert expected in refusal(directory)


@pytest.mark.parametrize("name", ["state.sqlite3", "state.key"])
def test_what_is_no_file_is_refused(directory: Path, name: str) -> None:
    (directory / name).unlink()
    os.mkfifo(directory / name, 0o600)
    assert f"{name} is no regular file" in refusal(directory)


def test_a_directory_that_is_a_symbolic_link_is_refused(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(directory)
    assert "link is a symbolic link" in refusal(tmp_path / "link")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_that_others_can_write_in_is_refused(directory: Path, mode: int) -> None:
    directory.chmod(mode)
    assert "is open to other users" in refusal(directory)


def test_a_directory_that_others_can_look_into_will_do(directory: Path) -> None:
    directory.chmod(0o755)
    with opened(directory) as state:
        assert state.card("a-card").guid == GUID


def test_what_belongs_to_somebody_else_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = os.getuid()
    monkeypatch.setattr("os.geteuid", lambda: mine + 1)
    assert f"{directory} belongs to user {mine}; run ccidd as that user" in refusal(directory)
    with pytest.raises(UserError, match="belongs to user"):
        open_file(directory / "state.key", os.O_RDONLY)


def test_what_cannot_hold_the_state_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"no database" * 100)
    assert "Not a directory" in refusal(file / "below")
    broken = tmp_path / "broken"
    broken.mkdir(mode=0o700)
    (broken / "state.sqlite3").write_bytes(file.read_bytes())
    (broken / "state.sqlite3").chmod(0o600)
    assert "not a database" in refusal(broken)


def test_a_damaged_database_is_refused(directory: Path) -> None:
    file = directory / "state.sqlite3"
    content = bytearray(file.read_bytes())
    # The header of the second page: the first table's root.
    content[4096 : 4096 + 64] = b"\xff" * 64
    file.write_bytes(content)
    message = refusal(directory)
    assert "damaged" in message or "malformed" in message


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "XDG_STATE_HOME": "/x"}, "/var/lib/a"),
        ({"XDG_STATE_HOME": "/x"}, "/x/ccidd"),
        ({"XDG_STATE_HOME": "x"}, f"{Path.home()}/.local/state/ccidd"),
        ({}, f"{Path.home()}/.local/state/ccidd"),
    ],
)
def test_the_default_directory(environ: dict[str, str], directory: str) -> None:
    assert default_directory(environ) == Path(directory)


def test_systemd_s_own_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "ccidd").symlink_to(tmp_path / "private")
    environ = {"STATE_DIRECTORY": str(tmp_path / "ccidd")}
    assert default_directory(environ) == tmp_path / "private"
