# SPDX-License-Identifier: Apache-2.0
"""Keeps two processes from serving the same card.

Each card has a lock file, which its process holds locked with flock(2). The kernel frees the lock
when the process ends, however it does. SQLite's own locks would not do: they last a transaction.
"""

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from ccidd.errors import UserError
from ccidd.service.state.directory import make_directory, open_file

_DIRECTORY_NAME: Final = "locks"

# `holder` has a free lock for a moment, and a process that was killed ends a moment later.
_TRIES: Final = 10
_SECONDS_BETWEEN: Final = 0.05


class CardLock:
    """The lock of a card, held until `close`.

    Args:
        directory: the state directory.
        guid: the card's GUID.
        card: how people call the card.

    Raises:
        UserError: Another process serves the card, or this one does already.
    """

    def __init__(self, directory: Path, guid: str, card: str) -> None:
        make_directory(directory / _DIRECTORY_NAME)
        self._path = _path(directory, guid)
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_SECONDS_BETWEEN)
            self._descriptor = open_file(self._path, os.O_RDWR | os.O_CREAT)
            if self._take():
                return
            os.close(self._descriptor)
        raise UserError(f"{card} is being served by {_describe(_process_in(self._path))}")

    def _take(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        with contextlib.suppress(FileNotFoundError):
            # `remove` may have taken the file away in between: a lock on it keeps nobody out.
            if os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
                return True
        return False

    def remove(self) -> None:
        """Removes the lock file of a card that is no more."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Frees the lock, if it is held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def holder(directory: Path, guid: str) -> int | None:
    """Tells which process serves a card.

    Returns:
        Its number (0 if it has not told it yet), or None if no process does.
    """
    path = _path(directory, guid)
    if not path.exists():
        return None
    descriptor = open_file(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _process_in(path)
    finally:
        os.close(descriptor)
    return None


def _path(directory: Path, guid: str) -> Path:
    return directory / _DIRECTORY_NAME / f"{guid}.lock"


def _process_in(path: Path) -> int:
    """Reads who took the lock last."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _describe(process: int) -> str:
    if process == os.getpid():
        return "this process already"
    return f"process {process}" if process else "another process"
