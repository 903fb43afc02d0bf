# SPDX-License-Identifier: Apache-2.0
"""The file of a trace. A thread writes it, so that a disk that hangs holds up nobody.

What waits for the disk is bounded, and whatever does not fit is lost.
"""

import fcntl
import os
import queue
import stat
import threading
from pathlib import Path
from typing import Final

import structlog

from ccidd.errors import UserError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_WAITING: Final = 4 * 1024 * 1024
"""Bytes that wait for the disk."""

SUFFIX: Final = ".pcapng"


class TraceFile:
    """A file that is written in the background, from `begin` on.

    Args:
        fd: the file, which belongs to this from now on.
        path: its name, for people.
    """

    def __init__(self, fd: int, path: Path) -> None:
        self.path: Final = path
        self._fd = fd
        self._blocks = queue.SimpleQueue[bytes | None]()
        # The event loop changes the one, the thread the other.
        self._taken = 0
        self._written = 0
        self._lost = 0
        self._is_closed = False
        self._has_failed = False
        self._writer = threading.Thread(target=self._run, name="trace", daemon=True)

    def begin(self) -> None:
        """Begins to write, in a thread of its own, what is there to be written."""
        if self._writer.ident is None:
            self._writer.start()

    @property
    def has_failed(self) -> bool:
        """Whether the file takes no more."""
        return self._has_failed

    def write(self, block: bytes) -> bool:
        """Has a block written; it does not wait.

        Returns:
            False if it is lost.
        """
        if self._is_closed or self._has_failed:
            return False
        if self._taken - self._written + len(block) > MAX_WAITING:
            if not self._lost:
                log.warning("trace_too_slow", file=str(self.path))
            self._lost += 1
            return False
        self._taken += len(block)
        self._blocks.put(block)
        return True

    def close(self, last: bytes = b"") -> None:
        """Has the file ended when all is written that waits; it does not wait.

        Args:
            last: what is written at the end, if all else is.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if not self._has_failed:
            log.info("trace_stopped", file=str(self.path), lost=self._lost)
        self._blocks.put(last)
        self._blocks.put(None)
        self.begin()

    def wait(self, seconds: float) -> bool:
        """Waits, in a thread, until all is written of a file that is closed.

        Returns:
            Whether it is.
        """
        self.begin()
        self._writer.join(seconds)
        return not self._writer.is_alive()

    def _run(self) -> None:
        try:
            while (block := self._blocks.get()) is not None:
                size = len(block)
                while block:
                    block = block[os.write(self._fd, block) :]
                self._written += size
        except OSError as error:
            self._has_failed = True
            log.error("trace_ended", file=str(self.path), reason=error.strerror)  # noqa: TRY400 (no fault of ours)
        finally:
            os.close(self._fd)


def open_trace_file(path: Path) -> TraceFile:
    """Opens a file for a trace, readable by nobody else; it may block.

    Args:
        path: the file; an older trace that is there is replaced, if its name is that of one.

    Raises:
        UserError: There is something else than a trace of the user's own, or another's.
    """
    try:
        fd = _open(path)
    except OSError as error:
        raise UserError(f"cannot write the trace {path}: {error.strerror}") from error
    try:
        _check(fd, path)
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return TraceFile(fd, path)


def _open(path: Path) -> int:
    # The sandbox has directories in which files may be written, but not read.
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        # Whoever may have traces made at run time is not to destroy other files by that. A
        # database would lose its locks already when its file is opened and closed (fcntl(2)).
        if path.suffix != SUFFIX:
            raise UserError(f"{path} is there; traces replace {SUFFIX} files alone") from None
        return os.open(path, flags)


def _check(fd: int, path: Path) -> None:
    """Holds that a file may be written, and takes it for this trace alone.

    Raises:
        UserError: It may not.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise UserError(f"{path} is no file of your own; name another for the trace")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(f"{path} is another trace's; name another") from error
