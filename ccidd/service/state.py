# SPDX-License-Identifier: Apache-2.0
"""What ccidd remembers: retry counters, and the cards that it made itself.

One SQLite database in a state directory. A change is on the disk before its method returns.
"""

import contextlib
import hmac
import os
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeVar

import trio

from ccidd.card.pin import PinMemory
from ccidd.errors import UserError

MAX_TRIES: Final = 3
"""Wrong tries in a row that block a PIN."""

_FILE_NAME: Final = "state.sqlite3"
_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE tries (
    card TEXT NOT NULL,            -- the card's GUID
    reference INTEGER NOT NULL,    -- the PIN's key reference
    tries_left INTEGER NOT NULL,
    PRIMARY KEY (card, reference)
) STRICT;
CREATE TABLE card (
    name TEXT PRIMARY KEY,
    pin TEXT NOT NULL,
    puk TEXT NOT NULL
) STRICT;
CREATE TABLE key (
    card TEXT NOT NULL REFERENCES card (name),
    reference INTEGER NOT NULL,
    private_key BLOB NOT NULL,     -- PKCS#8 in PEM
    certificate BLOB NOT NULL,     -- X.509 in PEM
    PRIMARY KEY (card, reference)
) STRICT;
"""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A private key with its certificate, as it is stored.

    Attributes:
        reference: the key reference on the card.
        private_key: PKCS#8 in PEM.
        certificate: X.509 in PEM.
    """

    reference: int
    private_key: bytes = field(repr=False)
    certificate: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredCard:
    """A card that ccidd made.

    Attributes:
        name: what it is stored under.
        pin: its PIN as made.
        puk: its PIN unblocking key as made.
        keys: its keys, by key reference.
    """

    name: str
    pin: str = field(repr=False)
    puk: str = field(repr=False)
    keys: tuple[StoredKey, ...]


def _make_private_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        mode = os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)
    if mode & 0o077:
        raise UserError(f"{path} is open to other users (mode {mode:03o}); run: chmod 600 {path}")


class State:
    """The open database. Its methods block; `StoredPin` calls them from worker threads.

    Args:
        directory: the state directory, which is made (for this user alone) if it is not there.

    Raises:
        UserError: The directory or the database cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / _FILE_NAME
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite gives its own files the permissions of the database.
            _make_private_file(path)
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            with contextlib.ExitStack() as failing:
                failing.callback(self._database.close)
                self._open_schema(path)
                failing.pop_all()
        except OSError as error:
            raise UserError(f"cannot use the state in {path}: {error.strerror}") from error
        except sqlite3.Error as error:
            raise UserError(f"cannot use the state in {path}: {error}") from error
        # One thread at a time: SQLite would make others wait anyway.
        self._limiter = trio.CapacityLimiter(1)

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether a directory holds a state already."""
        return (directory / _FILE_NAME).exists()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._database.close()

    def _open_schema(self, path: Path) -> None:
        # EXTRA also syncs the directory, without which a commit may be lost with the power.
        self._database.execute("PRAGMA synchronous = EXTRA")
        self._database.execute("PRAGMA foreign_keys = ON")
        self._database.execute("BEGIN IMMEDIATE")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            self._database.execute("ROLLBACK")
            raise UserError(f"{path} was written by a newer ccidd (schema {version})")
        if version == 0:
            for statement in _SCHEMA.split(";"):
                self._database.execute(statement)
            self._database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION:d}")
        self._database.execute("COMMIT")

    async def in_thread(self, operation: Callable[[], _T]) -> _T:
        """Runs one of the blocking methods in a worker thread."""
        return await trio.to_thread.run_sync(operation, limiter=self._limiter)

    # Retry counters.

    def tries_left(self, card: str, reference: int) -> int:
        """Tells how many tries a PIN has left."""
        row = self._database.execute(
            "SELECT tries_left FROM tries WHERE card = ? AND reference = ?", (card, reference)
        ).fetchone()
        return MAX_TRIES if row is None else int(row[0])

    def spend_try(self, card: str, reference: int) -> bool:
        """Takes one try of a PIN; False if there was none left."""
        changed = self._database.execute(
            "INSERT INTO tries VALUES (?, ?, ?) ON CONFLICT DO"
            " UPDATE SET tries_left = tries_left - 1 WHERE tries_left > 0",
            (card, reference, MAX_TRIES - 1),
        )
        return changed.rowcount == 1

    def restore_tries(self, card: str, reference: int) -> None:
        """Gives a PIN all its tries back."""
        self._database.execute(
            "DELETE FROM tries WHERE card = ? AND reference = ?", (card, reference)
        )

    # Cards.

    def load_card(self, name: str) -> StoredCard | None:
        """Gives a card by its name, or None if there is no such card."""
        row = self._database.execute("SELECT pin, puk FROM card WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        keys = self._database.execute(
            "SELECT reference, private_key, certificate FROM key WHERE card = ? ORDER BY reference",
            (name,),
        )
        pin, puk = row
        return StoredCard(name, pin, puk, tuple(StoredKey(*key) for key in keys))

    def add_card(self, card: StoredCard) -> bool:
        """Stores a new card, whole or not at all.

        Returns:
            False, with nothing changed, if there is one of that name already.
        """
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:
            added = self._database.execute(
                "INSERT INTO card VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (card.name, card.pin, card.puk),
            )
            if added.rowcount != 1:
                return False
            self._database.executemany(
                "INSERT INTO key VALUES (?, ?, ?, ?)",
                [(card.name, k.reference, k.private_key, k.certificate) for k in card.keys],
            )
        return True


class StoredPin(PinMemory):
    """A PIN whose tries are counted in the database.

    Args:
        state: the database.
        card: the card's GUID.
        reference: the PIN's key reference.
        pin: the PIN as it is on the wire.
    """

    def __init__(self, state: State, card: str, reference: int, pin: bytes) -> None:
        self._state = state
        self._key = card, reference
        self._pin = pin

    async def tries_left(self) -> int:
        """See `PinMemory.tries_left`."""
        return await self._state.in_thread(partial(self._state.tries_left, *self._key))

    async def max_tries(self) -> int:
        """See `PinMemory.max_tries`."""
        await trio.lowlevel.checkpoint()
        return MAX_TRIES

    async def compare(self, candidate: bytes) -> bool:
        """See `PinMemory.compare`."""
        return await self._state.in_thread(partial(self._compare, candidate))

    def _compare(self, candidate: bytes) -> bool:
        if not self._state.spend_try(*self._key):
            return False
        if not hmac.compare_digest(candidate, self._pin):
            return False
        self._state.restore_tries(*self._key)
        return True

    async def change(self, new: bytes) -> None:
        """See `PinMemory.change`."""
        raise NotImplementedError

    async def set_max_tries(self, count: int) -> None:
        """See `PinMemory.set_max_tries`."""
        raise NotImplementedError


def default_directory(environ: Mapping[str, str]) -> Path:
    """Gives the state directory of a service (systemd.exec(5), $STATE_DIRECTORY) or of the user.

    Raises:
        UserError: Neither is known.
    """
    if directories := environ.get("STATE_DIRECTORY"):
        return Path(directories.split(":")[0])
    # The XDG Base Directory Specification has relative paths ignored.
    if (base := environ.get("XDG_STATE_HOME", "")).startswith("/"):
        return Path(base) / "ccidd"
    try:
        return Path.home() / ".local/state/ccidd"
    except RuntimeError as error:
        raise UserError("there is no home directory for the state; give --state-dir") from error
