# SPDX-License-Identifier: Apache-2.0
"""Keeps two processes from serving the same card, unless both are willing to share it.

Each card has a lock file, which its process holds locked with flock(2). The kernel frees the lock
when the process ends, however it does. SQLite's own locks would not do: they last a transaction.
Locks are taken and looked at by one process at a time, which holds their directory locked for that
moment: so nobody is kept out by one who only looks.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ccidd.errors import UserError
from ccidd.service.state.directory import make_directory, open_file

_DIRECTORY_NAME: Final = "locks"

# A process that was killed ends a moment later.
_TRIES: Final = 10
_SECONDS_BETWEEN: Final = 0.05


class CardLock:
    """The lock of a card, held until `close`.

    Args:
        directory: the state directory.
        guid: the card's GUID.
        card: how people call the card.
        shared: whether others may hold it as well, if they share it too.

    Raises:
        UserError: Another process serves the card, or this one does already.
    """

    def __init__(self, directory: Path, guid: str, card: str, *, shared: bool = False) -> None:
        make_directory(directory / _DIRECTORY_NAME)
        self._path = _path(directory, guid)
        self._card = card
        self._mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_SECONDS_BETWEEN)
            self._descriptor = open_file(self._path, os.O_RDWR | os.O_CREAT)
            with _locked(self._path.parent):
                if self._take():
                    return
            os.close(self._descriptor)
        raise self._refusal()

    def _refusal(self) -> UserError:
        return UserError(f"{self._card} is being served by {_describe(_process_in(self._path))}")

    def _take(self) -> bool:
        if not _try_lock(self._descriptor, self._mode):
            return False
        with contextlib.suppress(FileNotFoundError):
            # `remove` may have taken the file away in between: a lock on it keeps nobody out.
            if os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
                return True
        return False

    def stop_sharing(self) -> None:
        """Has the lock for this process alone from now on.

        Raises:
            UserError: Another process shares it; the lock is then closed.
        """
        with _locked(self._path.parent):
            if _try_lock(self._descriptor, fcntl.LOCK_EX):
                return
        self.close()
        raise self._refusal()

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
        Its number (0 if it is not known), or None if no process does. Of several that share the
        card it is the one that began last.
    """
    path = _path(directory, guid)
    if not path.exists():
        return None
    descriptor = open_file(path, os.O_RDWR)
    try:
        with _locked(path.parent):
            return None if _try_lock(descriptor, fcntl.LOCK_EX) else _process_in(path)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Holds the directory of the locks locked."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _path(directory: Path, guid: str) -> Path:
    return directory / _DIRECTORY_NAME / f"{guid}.lock"


def _process_in(path: Path) -> int:
    """Reads who took the lock last; gives 0 if that process has ended."""
    try:
        process = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
    # Not signal 0: the sandbox forbids signals to other services, if only to ask.
    with contextlib.suppress(OSError, OverflowError):
        os.close(os.pidfd_open(process))
        return process
    return 0


def _describe(process: int) -> str:
    if process == os.getpid():
        return "this process already"
    return f"process {process}" if process else "another process"
