# SPDX-License-Identifier: Apache-2.0
"""The key under which the state is encrypted, and the encryption.

AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits, which is safe for 2**32 values under
one key (8.3). What a value is the value of goes in as associated data, so that whoever can write
the database can swap no two of them.
"""

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ccidd.errors import UserError
from ccidd.keys.files import located
from ccidd.service.state.directory import open_file, sync_directory

log: structlog.stdlib.BoundLogger = structlog.get_logger()

CREDENTIAL: Final = "ccidd.state-key"
"""The name of the systemd credential (systemd.exec(5), LoadCredential=)."""

FILE_NAME: Final = "state.key"
"""The file in the state directory with the key that ccidd makes when it is given none."""

_KEY_SIZE: Final = 32
_HEXADECIMAL: Final = re.compile(rb"[0-9A-Fa-f]{64}\r?\n?")
_NONCE_SIZE: Final = 12
_CHECK: Final = b"ccidd"


class DamagedError(Exception):
    """An encrypted value is not what was stored, or not under this key."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """Where the key comes from.

    Attributes:
        path: a file with 32 bytes, or with their 64 hexadecimal digits.
        private: whether the file's owner and mode are checked. Those of a credential are systemd's
            matter: it grants access by an ACL, which looks like a group's.
    """

    path: Path
    private: bool = True


def find_key_file(chosen: Path | None, environ: Mapping[str, str]) -> KeyFile | None:
    """Gives the key file that an option names, or else systemd's credential, if there is one.

    Raises:
        UserError: The option names a credential that is not there.
    """
    if chosen is not None:
        file = located(chosen, environ)
        return KeyFile(file, private=file == chosen)
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(directory) / CREDENTIAL
        if credential.exists():
            return KeyFile(credential, private=False)
    return None


class StateKey:
    """Encrypts and decrypts values.

    Args:
        key: 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def encrypt(self, value: bytes, *place: str) -> bytes:
        """Encrypts a value.

        Args:
            value: what is to be kept.
            place: what it is the value of; all parts but the last are free of NUL.

        Returns:
            Nonce, ciphertext and tag.
        """
        nonce = secrets.token_bytes(_NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, value, _associated_data(place))

    def decrypt(self, stored: bytes, *place: str) -> bytes:
        """Decrypts what `encrypt` gave for the same place.

        Raises:
            DamagedError: It is something else.
        """
        nonce, ciphertext = stored[:_NONCE_SIZE], stored[_NONCE_SIZE:]
        try:
            return self._cipher.decrypt(nonce, ciphertext, _associated_data(place))
        except (InvalidTag, ValueError) as error:
            raise DamagedError("a stored value is damaged") from error

    def check_value(self) -> bytes:
        """Gives the value by which `fits` knows this key again."""
        return self.encrypt(_CHECK, "check")

    def fits(self, check_value: bytes) -> bool:
        """Tells whether a check value was made with this key."""
        try:
            return self.decrypt(check_value, "check") == _CHECK
        except DamagedError:
            return False


def _associated_data(place: tuple[str, ...]) -> bytes:
    return "\0".join(place).encode()


def load_key(file: KeyFile) -> StateKey:
    """Reads a key.

    Raises:
        UserError: The file cannot be used, or holds no key.
    """
    descriptor = open_file(file.path, os.O_RDONLY, private=file.private)
    with os.fdopen(descriptor, "rb") as stream:
        # One byte more than the longest form has.
        content = stream.read(2 * _KEY_SIZE + 3)
    if len(content) == _KEY_SIZE:
        return StateKey(content)
    if _HEXADECIMAL.fullmatch(content):
        return StateKey(bytes.fromhex(content.decode("ascii")))
    raise UserError(f"{file.path} holds no key: 32 bytes, or their 64 hexadecimal digits")


def make_key_file(directory: Path) -> KeyFile:
    """Makes a key beside the database, and says so. The caller keeps others from doing the same.

    Raises:
        OSError: It cannot be written.
        UserError: Something is in the way.
    """
    file = KeyFile(directory / FILE_NAME)
    # A key must be there whole or not at all, whenever the process is killed.
    new = file.path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = open_file(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(secrets.token_hex(_KEY_SIZE).encode() + b"\n")
        stream.flush()
        os.fsync(descriptor)
    new.rename(file.path)
    sync_directory(directory)
    log.warning(
        "state_key_made",
        path=os.fspath(file.path),
        hint="it lies beside what it encrypts; --state-key-file keeps it elsewhere",
    )
    return file
