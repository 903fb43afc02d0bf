# SPDX-License-Identifier: Apache-2.0
"""The database, and the cards in it.

SQLite with a rollback journal and `synchronous=EXTRA`: when a transaction has ended, the file and
its directory are on the disk. A write-ahead log would be as durable and cheaper, but part of the
state would then live in a second file, and a copy of the first without it, a careless backup for
one, would give spent tries back. What is written is little: a few times for each PIN.
"""

import contextlib
import copy
import datetime as dt
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self, TypeVar

import trio

from ccidd.errors import UserError
from ccidd.service.state import schema
from ccidd.service.state.directory import make_directory, open_file
from ccidd.service.state.lock import holder
from ccidd.service.state.pinhash import ScryptCost, hash_pin
from ccidd.service.state.statekey import (
    FILE_NAME as KEY_FILE_NAME,
)
from ccidd.service.state.statekey import (
    DamagedError,
    KeyFile,
    StateKey,
    load_key,
    make_key_file,
)

_FILE_NAME: Final = "state.sqlite3"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CardRecord:
    """A card that is known here.

    Attributes:
        guid: its GUID.
        name: what it is called; None if its keys are not kept here.
        type: the kind of card, as in `--card`.
        created: when it was first seen.
    """

    guid: str
    name: str | None
    type: str
    created: dt.datetime


@dataclass(frozen=True, slots=True)
class NewCard:
    """A card to be kept here.

    Attributes:
        guid: its GUID.
        name: what it is called.
        type: the kind of card, as in `--card`.
        pins: its PINs and its PUK as they are on the wire, by key reference.
        contents: its contents, keys included.
    """

    guid: str
    name: str
    type: str
    pins: Mapping[int, bytes] = field(repr=False)
    contents: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PinRecord:
    """What is kept of a PIN.

    Attributes:
        hash: its hash, or None if the PIN is not known.
        from_file: the hash of the PIN that a `pin-file` set last.
        tries_left: how many wrong tries it stands.
        max_tries: how many it stands in a row.
    """

    hash: bytes | None = field(default=None, repr=False)
    from_file: bytes | None = field(default=None, repr=False)
    tries_left: int = 0
    max_tries: int = schema.MAX_TRIES


class State:
    """The open database. Its methods block; `StoredMemory` calls them from worker threads.

    Args:
        directory: the state directory, which is made (for this user alone) if it is not there.
        key_file: where the key is under which the state is encrypted; by default beside the
            database, where it is made if the database is new.
        cost: what the hash of a PIN costs.

    Raises:
        UserError: The directory, the key or the database cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        key_file: KeyFile | None = None,
        cost: ScryptCost = ScryptCost(),  # noqa: B008 (it is immutable)
    ) -> None:
        self.directory: Final = directory
        self.cost: Final = cost
        self._path: Final = directory / _FILE_NAME
        # Locks and the like, closed with the database.
        self.resources = contextlib.ExitStack()
        # One thread at a time: SQLite would make others wait anyway.
        self._limiter = trio.CapacityLimiter(1)
        self._make_files()
        with contextlib.ExitStack() as failing:
            failing.enter_context(self.resources)
            try:
                self._database = self._connect()
                self.resources.callback(self._database.close)
                self._key = self._open_schema(key_file)
            except OSError as error:
                raise UserError(f"cannot use the state in {directory}: {error.strerror}") from error
            except sqlite3.Error as error:
                raise UserError(f"cannot use the state in {self._path}: {error}") from error
            failing.pop_all()

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether a directory holds a state already, or one that is not for this user to see."""
        try:
            return (directory / _FILE_NAME).exists()
        except PermissionError:
            return True

    def share(self) -> Self:
        """Gives the same open database to one who closes his own locks before it is closed.

        Returns:
            A state with `resources` of its own, which close nothing else.
        """
        share = copy.copy(self)
        share.resources = contextlib.ExitStack()
        return share

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.resources.close()

    def _make_files(self) -> None:
        make_directory(self.directory)
        # SQLite gives its own files the permissions of the database.
        os.close(open_file(self._path, os.O_RDWR | os.O_CREAT))

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)

    def _open_schema(self, key_file: KeyFile | None) -> StateKey:
        for pragma in (
            "journal_mode = DELETE",
            "synchronous = EXTRA",
            "foreign_keys = ON",
            # What was deleted is overwritten: schema 1 had PINs in clear.
            "secure_delete = ON",
        ):
            self._database.execute(f"PRAGMA {pragma}").fetchall()
        # The lock of this transaction also keeps two processes from making a key each.
        with self.transaction():
            version = self._checked_version()
            key = self._load_key(key_file, may_make=version < schema.VERSION)
            if version == schema.VERSION:
                schema.check_key(self._database, key, self._path)
            elif version:
                schema.migrate(self._database, key, self.cost)
            else:
                schema.create(self._database, key)
        return key

    def _checked_version(self) -> int:
        """Gives the version of the schema of a database that is sound; 0 for a new one."""
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > schema.VERSION:
            raise UserError(f"{self._path} was written by a newer ccidd (schema {version})")
        (fault,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if fault != "ok":
            raise UserError(f"{self._path} is damaged; restore it from a backup")
        return int(version)

    def _load_key(self, file: KeyFile | None, *, may_make: bool) -> StateKey:
        if file is None:
            file = KeyFile(self.directory / KEY_FILE_NAME)
            if not file.path.exists() and not file.path.is_symlink():
                if not may_make:
                    raise UserError(
                        f"{self._path} is encrypted, but {file.path} is gone;"
                        " restore it, or give --state-key-file=FILE the key"
                    )
                file = make_key_file(self.directory)
        return load_key(file)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Makes changes, all of them or none, on the disk when the block has ended."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            # SQLite may have rolled back by itself, when the disk is full for one.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    async def in_thread(self, operation: Callable[[], _T]) -> _T:
        """Runs one of the blocking methods in a worker thread."""
        return await trio.to_thread.run_sync(operation, limiter=self._limiter)

    # Cards.

    def cards(self) -> list[CardRecord]:
        """Gives all cards, the named ones first, by name."""
        rows = self._database.execute(
            "SELECT guid, name, type, created FROM card ORDER BY name IS NULL, name, guid"
        ).fetchall()
        return [
            CardRecord(guid, name, kind, dt.datetime.fromtimestamp(created, dt.UTC))
            for guid, name, kind, created in rows
        ]

    def find_card(self, name_or_guid: str) -> CardRecord | None:
        """Gives a card by its name or its GUID."""
        for card in self.cards():
            if card.name == name_or_guid or card.guid == name_or_guid.lower():
                return card
        return None

    def card(self, name_or_guid: str) -> CardRecord:
        """Gives a card that must be there.

        Raises:
            UserError: It is not.
        """
        record = self.find_card(name_or_guid)
        if record is None:
            raise UserError(
                f"there is no card {name_or_guid} in {self.directory};"
                " `ccidd card list` shows what there is"
            )
        return record

    def add_card(self, card: NewCard) -> bool:
        """Stores a new card, whole or not at all.

        Returns:
            False, with nothing changed, if there is one of that name or GUID already.
        """
        now = int(dt.datetime.now(dt.UTC).timestamp())
        hashes = {reference: hash_pin(pin, self.cost) for reference, pin in card.pins.items()}
        with self.transaction() as database:
            added = database.execute(
                "INSERT INTO card VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (card.guid, card.name, card.type, now),
            )
            if added.rowcount != 1:
                return False
            for reference, hashed in hashes.items():
                self._write_pin(card.guid, reference, hashed)
            self._write_contents(card.guid, card.contents)
        return True

    def note_card(self, guid: str, kind: str) -> None:
        """Makes room for what a card remembers whose keys are kept elsewhere."""
        now = int(dt.datetime.now(dt.UTC).timestamp())
        self._database.execute(
            "INSERT INTO card VALUES (?, NULL, ?, ?)"
            " ON CONFLICT DO UPDATE SET type = excluded.type WHERE name IS NULL",
            (guid, kind, now),
        )

    def forget_card(self, guid: str) -> None:
        """Removes a card and all that was remembered of it."""
        self._database.execute("DELETE FROM card WHERE guid = ?", (guid,))

    def served_by(self, guid: str) -> int | None:
        """Tells which process serves a card, 0 for one that is not known, None if none does.

        Of several that share a card it is one.
        """
        return holder(self.directory, guid)

    # Contents.

    def contents(self, guid: str) -> dict[str, bytes]:
        """Gives what is written on a card.

        Raises:
            UserError: It is damaged.
        """
        rows = self._database.execute(
            "SELECT name, value FROM content WHERE card = ? ORDER BY name", (guid,)
        ).fetchall()
        try:
            return {
                name: self._key.decrypt(value, *schema.content_place(guid, name))
                for name, value in rows
            }
        except DamagedError as error:
            raise UserError(
                f"what {self._path} holds of the card {guid} is damaged; restore it from a backup"
            ) from error

    def store(self, guid: str, changes: Mapping[str, bytes | None]) -> None:
        """Changes what is written on a card, all of it or nothing."""
        with self.transaction():
            self._write_contents(guid, changes)

    def _write_contents(self, guid: str, changes: Mapping[str, bytes | None]) -> None:
        for name, value in changes.items():
            if value is None:
                self._database.execute(
                    "DELETE FROM content WHERE card = ? AND name = ?", (guid, name)
                )
            else:
                encrypted = self._key.encrypt(value, *schema.content_place(guid, name))
                self._database.execute(
                    "INSERT INTO content VALUES (?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET value = excluded.value",
                    (guid, name, encrypted),
                )

    # PINs.

    def pin(self, guid: str, reference: int) -> PinRecord | None:
        """Gives what is kept of a PIN.

        Raises:
            UserError: It is damaged.
        """
        row = self._database.execute(
            "SELECT hash, from_file, tries_left, max_tries FROM pin"
            " WHERE card = ? AND reference = ?",
            (guid, reference),
        ).fetchone()
        if row is None:
            return None
        hashed, from_file, left, maximum = row
        return PinRecord(
            self._decrypt_hash(guid, reference, hashed),
            self._decrypt_hash(guid, reference, from_file),
            left,
            maximum,
        )

    def pins(self, guid: str) -> list[int]:
        """Gives the key references of the PINs that a card has."""
        rows = self._database.execute(
            "SELECT reference FROM pin WHERE card = ? ORDER BY reference", (guid,)
        )
        return [reference for (reference,) in rows.fetchall()]

    def spend_try(self, guid: str, reference: int, *, keep: int = 0) -> PinRecord | None:
        """Takes one try of a PIN.

        Args:
            guid: the card's GUID.
            reference: the PIN's key reference.
            keep: how many tries must stay.

        Returns:
            What is kept of the PIN after that; None, with nothing changed, if no try was left.
        """
        with self.transaction() as database:
            changed = database.execute(
                "UPDATE pin SET tries_left = tries_left - 1"
                " WHERE card = ? AND reference = ? AND tries_left > ?",
                (guid, reference, keep),
            )
            if changed.rowcount != 1:
                return None
            return self.pin(guid, reference)

    def return_try(self, guid: str, reference: int) -> None:
        """Gives the one try back that was spent on a comparison that nobody could make."""
        self._database.execute(
            "UPDATE pin SET tries_left = tries_left + 1"
            " WHERE card = ? AND reference = ? AND tries_left < max_tries",
            (guid, reference),
        )

    def restore_tries(self, guid: str, reference: int) -> None:
        """Gives a PIN all its tries back."""
        self._database.execute(
            "UPDATE pin SET tries_left = max_tries WHERE card = ? AND reference = ?",
            (guid, reference),
        )

    def set_pin(self, guid: str, reference: int, hashed: bytes) -> None:
        """Sets a PIN by its hash and gives it all its tries back."""
        with self.transaction():
            self._write_pin(guid, reference, hashed)

    def set_pin_from_file(
        self, guid: str, reference: int, hashed: bytes, *, keep_tries: bool
    ) -> None:
        """Sets a PIN by the hash of what is in a file, and remembers that."""
        with self.transaction() as database:
            left = self.pin(guid, reference) if keep_tries else None
            self._write_pin(guid, reference, hashed)
            encrypted = self._key.encrypt(hashed, *schema.pin_place(guid, reference))
            database.execute(
                "UPDATE pin SET from_file = ? WHERE card = ? AND reference = ?",
                (encrypted, guid, reference),
            )
            if left is not None:
                database.execute(
                    "UPDATE pin SET tries_left = ? WHERE card = ? AND reference = ?",
                    (left.tries_left, guid, reference),
                )

    def note_pin(self, guid: str, reference: int) -> None:
        """Makes room for the tries of a PIN that is kept elsewhere."""
        self._database.execute(
            "INSERT INTO pin VALUES (?, ?, NULL, NULL, ?, ?) ON CONFLICT DO NOTHING",
            (guid, reference, schema.MAX_TRIES, schema.MAX_TRIES),
        )

    def set_max_tries(self, guid: str, reference: int, count: int) -> None:
        """Sets how many wrong tries block a PIN, and gives them all."""
        self._database.execute(
            "INSERT INTO pin VALUES (?, ?, NULL, NULL, ?, ?) ON CONFLICT DO UPDATE"
            " SET tries_left = excluded.tries_left, max_tries = excluded.max_tries",
            (guid, reference, count, count),
        )

    def _write_pin(self, guid: str, reference: int, hashed: bytes) -> None:
        encrypted = self._key.encrypt(hashed, *schema.pin_place(guid, reference))
        self._database.execute(
            "INSERT INTO pin VALUES (?, ?, ?, NULL, ?, ?) ON CONFLICT DO UPDATE"
            " SET hash = excluded.hash, tries_left = max_tries",
            (guid, reference, encrypted, schema.MAX_TRIES, schema.MAX_TRIES),
        )

    def _decrypt_hash(self, guid: str, reference: int, hashed: bytes | None) -> bytes | None:
        if hashed is None:
            return None
        try:
            return self._key.decrypt(hashed, *schema.pin_place(guid, reference))
        except DamagedError as error:
            raise UserError(
                f"what {self._path} holds of a PIN of the card {guid} is damaged;"
                " set it anew with `ccidd card reset-pin`"
            ) from error

    # The test authority.

    def authority(self) -> tuple[bytes, bytes] | None:
        """Gives certificate (X.509) and private key (PKCS#8) of the test authority, in DER.

        Raises:
            UserError: They are damaged.
        """
        row = self._database.execute("SELECT certificate, private_key FROM authority").fetchone()
        if row is None:
            return None
        certificate, encrypted = row
        try:
            return certificate, self._key.decrypt(encrypted, *schema.AUTHORITY_PLACE)
        except DamagedError as error:
            raise UserError(f"the test authority in {self._path} is damaged") from error

    def add_authority(self, certificate: bytes, private_key: bytes) -> None:
        """Stores the test authority, unless there is one already."""
        self._database.execute(
            "INSERT INTO authority VALUES (1, ?, ?) ON CONFLICT DO NOTHING",
            (certificate, self._key.encrypt(private_key, *schema.AUTHORITY_PLACE)),
        )
