# SPDX-License-Identifier: Apache-2.0
"""NSS databases, whose keys have nicknames: Firefox's, or those that certutil makes.

NSS's library is a PKCS#11 module with one peculiarity: it takes a string at its initialisation,
which names the database. So there is no configuration of p11-kit, whose modules might use this very
reader, and of NSS only the database is read, not the modules that it lists. The password of the
database is the PIN; one without a password takes the empty PIN and no other.

Source: NSS, "NSS PKCS #11 Module Specs" (the library's parameters).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ccidd.errors import UserError
from ccidd.keys.cryptoki import LibraryInfo, TokenInfo
from ccidd.keys.inventory import Wanted, find_credentials
from ccidd.keys.key import KeyUnavailableError
from ccidd.keys.pkcs11 import MAX_SESSIONS, TIMEOUT
from ccidd.keys.sessions import TokenSource, connect
from ccidd.keys.token import Token

_DATABASE: Final = "cert9.db"
_LABEL: Final = "ccidd"
"""What the library is told to call the database, to tell it from its other tokens."""

_LIBRARY: Final = "libsoftokn3.so"


def open_database(
    name: str,
    nicknames: Sequence[str] = (),
    *,
    timeout: float = TIMEOUT,
    max_sessions: int = MAX_SESSIONS,
) -> Token:
    """Opens an NSS database. Blocks; called before anything else runs.

    Args:
        name: `sql:DIR`, or the directory alone.
        nicknames: the certificates whose keys are asked for, in the order of
            `Token.credentials`; else all certificates that have keys.
        timeout: seconds that the library may take for anything.
        max_sessions: how many sessions to have at a time.

    Raises:
        UserError: The database cannot be used, or has no such key.
    """
    directory = database_directory(name)
    source = TokenSource(
        name=f"the NSS database {directory}",
        module=_LIBRARY,
        parameters=_parameters(directory, "readOnly"),
        matches=_is_database,
        timeout=timeout,
        parameters_to_write=_parameters(directory, ""),
    )
    try:
        token = Token(source, connect(source), max_sessions)
        try:
            wanted = [Wanted(label=nickname) for nickname in nicknames] or [Wanted()]
            token.set_credentials([c for one in wanted for c in find_credentials(token, one)])
        except BaseException:
            token.close()
            raise
    except KeyUnavailableError as error:
        raise UserError(str(error)) from error
    return token


def database_directory(name: str) -> Path:
    """Gives the directory of an NSS database.

    Args:
        name: `sql:DIR`, or the directory alone.

    Raises:
        UserError: There is none that can be read.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind in {"dbm", "rdb", "extern", "multiaccess"}:
        raise UserError(f"{name}: only sql: databases can be used (certutil --upgrade-merge)")
    directory = Path(rest if colon and kind == "sql" else name).absolute()
    try:
        with (directory / _DATABASE).open("rb"):
            return directory
    except OSError as error:
        raise UserError(
            f"cannot read the NSS database {directory / _DATABASE}: {error.strerror}"
        ) from error


def _parameters(directory: Path, flags: str) -> str:
    values = {
        "configdir": f"sql:{directory}",
        "certPrefix": "",
        "keyPrefix": "",
        "secmod": "secmod.db",
        "flags": flags,
        "dbTokenDescription": _LABEL,
    }
    return " ".join(f"{name}={_quoted(value)}" for name, value in values.items())


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _is_database(_library: LibraryInfo, token: TokenInfo) -> bool:
    return token.label == _LABEL
