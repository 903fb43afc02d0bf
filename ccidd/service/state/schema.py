# SPDX-License-Identifier: Apache-2.0
"""The tables of the database, and how those of an older ccidd become these.

What is encrypted is encrypted for its place (`statekey`): see `pin_place` and `content_place`.
"""

import hashlib
import sqlite3
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ccidd.card.piv.personalisation import factory_contents
from ccidd.card.piv.references import Origin
from ccidd.errors import UserError
from ccidd.keys.local import LocalPrivateKey
from ccidd.service.cardkeys import StoredKey, key_contents
from ccidd.service.state.pinhash import ScryptCost, hash_pin
from ccidd.service.state.statekey import StateKey

VERSION: Final = 2

MAX_TRIES: Final = 3
"""Wrong tries in a row that block a PIN, if nobody says otherwise."""

_TABLES: Final = (
    """
    CREATE TABLE state_key (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        check_value BLOB NOT NULL      -- encrypted, to tell whether a key is the right one
    ) STRICT
    """,
    """
    CREATE TABLE card (
        guid TEXT PRIMARY KEY,         -- RFC 4122, in lower case
        name TEXT UNIQUE,              -- NULL: a card whose keys are kept elsewhere
        type TEXT NOT NULL,            -- as in --card
        created INTEGER NOT NULL       -- seconds since 1970
    ) STRICT
    """,
    """
    CREATE TABLE pin (
        card TEXT NOT NULL REFERENCES card ON DELETE CASCADE,
        reference INTEGER NOT NULL,    -- the PIN's key reference
        hash BLOB,                     -- of the PIN, encrypted; NULL: not known yet
        from_file BLOB,                -- of the PIN that a pin-file set last, encrypted
        tries_left INTEGER NOT NULL CHECK (tries_left BETWEEN 0 AND max_tries),
        max_tries INTEGER NOT NULL CHECK (max_tries BETWEEN 1 AND 15),
        PRIMARY KEY (card, reference)
    ) STRICT
    """,
    """
    CREATE TABLE content (
        card TEXT NOT NULL REFERENCES card ON DELETE CASCADE,
        name TEXT NOT NULL,
        value BLOB NOT NULL,           -- encrypted
        PRIMARY KEY (card, name)
    ) STRICT
    """,
    """
    CREATE TABLE authority (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        certificate BLOB NOT NULL,     -- X.509 in DER
        private_key BLOB NOT NULL      -- PKCS#8 in DER, encrypted
    ) STRICT
    """,
)

# The key references of schema 1's PIN and PUK.
_APPLICATION_PIN: Final = 0x80
_PUK: Final = 0x81


def pin_place(guid: str, reference: int) -> tuple[str, ...]:
    """The place for which the hash of a PIN is encrypted."""
    return "pin", guid, f"{reference:02X}"


def content_place(guid: str, name: str) -> tuple[str, ...]:
    """The place for which a content of a card is encrypted."""
    return "content", guid, name


AUTHORITY_PLACE: Final = ("authority", "private_key")
"""The place for which the test authority's private key is encrypted."""


def create(database: sqlite3.Connection, key: StateKey) -> None:
    """Makes the tables, inside a transaction of the caller's."""
    for statement in _TABLES:
        database.execute(statement)
    database.execute("INSERT INTO state_key VALUES (1, ?)", (key.check_value(),))
    database.execute(f"PRAGMA user_version = {VERSION:d}")


def check_key(database: sqlite3.Connection, key: StateKey, path: object) -> None:
    """Holds a key against the one that the database was made with.

    Raises:
        UserError: It is another one.
    """
    (check_value,) = database.execute("SELECT check_value FROM state_key").fetchone()
    if not key.fits(check_value):
        raise UserError(
            f"{path} is encrypted under another key; give --state-key-file=FILE the right one"
        )


def migrate(database: sqlite3.Connection, key: StateKey, cost: ScryptCost) -> None:
    """Makes these tables from those of schema 1, inside a transaction of the caller's.

    Schema 1 kept PINs and private keys in clear. `PRAGMA secure_delete` overwrites them.
    """
    cards = database.execute("SELECT name, pin, puk FROM card").fetchall()
    keys = database.execute(
        "SELECT card, reference, private_key, certificate FROM key ORDER BY reference"
    ).fetchall()
    tries = database.execute("SELECT card, reference, tries_left FROM tries").fetchall()
    for table in ("tries", "key", "card"):
        database.execute(f"DROP TABLE {table}")
    create(database, key)
    now = int(time.time())
    for name, pin, puk in cards:
        stored = [StoredKey.from_pem(*row[1:]) for row in keys if row[0] == name]
        guid = _guid_in_schema_1([each.private_key for each in stored])
        database.execute("INSERT INTO card VALUES (?, ?, 'piv', ?)", (guid, name, now))
        contents = factory_contents(None, guid=uuid.UUID(guid), attestation=True)
        for each in stored:
            contents |= key_contents(each, Origin.GENERATED, piv=True)
        _insert_contents(database, key, guid, contents)
        for reference, value in ((_APPLICATION_PIN, pin), (_PUK, puk)):
            padded = value.encode().ljust(8, b"\xff")
            hashed = key.encrypt(hash_pin(padded, cost), *pin_place(guid, reference))
            _insert_pin(database, guid, reference, hashed, MAX_TRIES)
    for guid, reference, left in tries:
        # Those of a card whose keys are in files: its PIN is in a file as well, and not known here.
        database.execute("INSERT OR IGNORE INTO card VALUES (?, NULL, 'piv', ?)", (guid, now))
        _insert_pin(database, guid, reference, None, left)


def _insert_contents(
    database: sqlite3.Connection, key: StateKey, guid: str, contents: Mapping[str, bytes]
) -> None:
    database.executemany(
        "INSERT INTO content VALUES (?, ?, ?)",
        [
            (guid, name, key.encrypt(value, *content_place(guid, name)))
            for name, value in contents.items()
        ],
    )


def _insert_pin(
    database: sqlite3.Connection, guid: str, reference: int, hashed: bytes | None, left: int
) -> None:
    database.execute(
        "INSERT INTO pin VALUES (?, ?, ?, NULL, ?, ?)"
        " ON CONFLICT DO UPDATE SET tries_left = excluded.tries_left",
        (guid, reference, hashed, left, MAX_TRIES),
    )


def _guid_in_schema_1(keys: Iterable[LocalPrivateKey]) -> str:
    """Gives the GUID that a card had from its keys, under which its tries were counted."""
    digest = hashlib.sha256()
    for key in keys:
        digest.update(
            key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )
    namespace = uuid.UUID("b0ed6cf9-0a1c-4a3c-9d3b-9f6f8f0c7a51")
    return str(uuid.uuid5(namespace, digest.hexdigest()))
