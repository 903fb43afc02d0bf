# SPDX-License-Identifier: Apache-2.0
"""A state that an older ccidd wrote: tests/data/state-1.sql."""

import sqlite3
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding

from ccidd.service.cardkeys import keys_in
from ccidd.service.state import State, StoredPin
from ccidd.service.state.memory import apply_pin_file
from crash import CHEAP

FIXTURE = Path(__file__).parents[3] / "data/state-1.sql"

# What that ccidd showed.
GUID = "9b4a32c8-f909-5536-b543-7594d767ee9e"
PIN, PUK = b"518900\xff\xff", b"55938738"

OF_FILES = "11111111-2222-5333-8444-555555555555"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    file = tmp_path / "state.sqlite3"
    file.touch(mode=0o600)
    with sqlite3.connect(file) as database:
        database.executescript(FIXTURE.read_text())
    database.close()
    return tmp_path


def test_the_fixture_is_of_schema_1(directory: Path) -> None:
    with sqlite3.connect(directory / "state.sqlite3") as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
    database.close()
    content = (directory / "state.sqlite3").read_bytes()
    assert b"518900" in content
    assert b"BEGIN PRIVATE KEY" in content


def test_the_embedded_card_keeps_keys_pins_and_tries(directory: Path) -> None:
    with sqlite3.connect(directory / "state.sqlite3") as database:
        certificates = database.execute("SELECT reference, certificate FROM key").fetchall()
    database.close()
    with State(directory, cost=CHEAP) as state:
        record = state.card("default")
        assert (record.guid, record.type) == (GUID, "piv")
        keys = keys_in(state.contents(GUID))
        assert [f"{key.reference:02X} {key.algorithm.value}" for key in keys] == [
            "9A P-256",
            "9C RSA-2048",
            "9D RSA-2048",
        ]
        for key in keys:
            assert key.certificate is not None
            assert key.credential is not None
            assert (key.reference, key.certificate.public_bytes(Encoding.PEM)) in certificates
        pin, puk = StoredPin(state, GUID, 0x80), StoredPin(state, GUID, 0x81)
        assert trio.run(pin.tries_left) == 2
        assert trio.run(puk.tries_left) == 3
        assert trio.run(pin.compare, PIN)
        assert trio.run(puk.compare, PUK)


def test_the_tries_of_other_cards_are_kept(directory: Path) -> None:
    with State(directory, cost=CHEAP) as state:
        pin = StoredPin(state, OF_FILES, 0x80)
        assert trio.run(pin.tries_left) == 0
        apply_pin_file(state, OF_FILES, 0x80, b"123456\xff\xff")
        assert trio.run(pin.tries_left) == 0
        state.restore_tries(OF_FILES, 0x80)
        assert trio.run(pin.compare, b"123456\xff\xff")


def test_nothing_is_left_in_clear(directory: Path) -> None:
    with State(directory, cost=CHEAP):
        pass
    content = (directory / "state.sqlite3").read_bytes()
    for secret in (b"518900", b"55938738", b"PRIVATE KEY", b"$scrypt"):
        assert secret not in content


def test_it_is_migrated_once(directory: Path) -> None:
    for _ in range(2):
        with State(directory, cost=CHEAP) as state:
            assert len(state.cards()) == 2
    with sqlite3.connect(directory / "state.sqlite3") as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)
    database.close()
