# SPDX-License-Identifier: Apache-2.0
"""The state directory and its files, which nobody else may have a hand in.

A symbolic link in the place of a file could have ccidd write where somebody else wants it, and a
file that others can read or replace keeps no secret. So links, other owners and loose permissions
are refused. Since nobody else can write in the directory, nobody changes its files after that.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ccidd.errors import UserError

_WRITABLE_BY_OTHERS: Final = 0o022
_OPEN_TO_OTHERS: Final = 0o077


def default_directory(environ: Mapping[str, str]) -> Path:
    """Gives the state directory of a service (systemd.exec(5), $STATE_DIRECTORY) or of the user.

    Raises:
        UserError: Neither is known.
    """
    if directories := environ.get("STATE_DIRECTORY"):
        # With DynamicUser= this is a link that systemd made.
        return Path(directories.split(":")[0]).resolve()
    # The XDG Base Directory Specification has relative paths ignored.
    if (base := environ.get("XDG_STATE_HOME", "")).startswith("/"):
        return Path(base) / "ccidd"
    try:
        return Path.home() / ".local/state/ccidd"
    except RuntimeError as error:
        raise UserError("there is no home directory for the state; give --state-dir") from error


def make_directory(path: Path) -> None:
    """Makes a directory for this user alone, if it is not there; its parents too.

    Raises:
        UserError: It cannot be made, is a symbolic link, or is another user's or open to others.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(path, error) from error
    check_directory(path)


def check_directory(path: Path) -> None:
    """Sees to it that a directory is fit for a state.

    Raises:
        UserError: It is not there, is a symbolic link, or is another user's or open to others.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise _refusal(path, error) from error
    try:
        # A name and a date are no secret, so others may look; systemd's default is 755.
        _check_private(descriptor, path, _WRITABLE_BY_OTHERS)
    finally:
        os.close(descriptor)


def open_file(path: Path, flags: int, *, private: bool = True) -> int:
    """Opens a regular file of this user's that is open to nobody else.

    Args:
        path: where it is.
        flags: of open(2); with O_CREAT the file is made with mode 600.
        private: whether the owner and the mode matter; elsewhere somebody else sees to them.

    Returns:
        The file descriptor.

    Raises:
        UserError: It cannot be opened, is a symbolic link or no regular file, or is another user's
            or open to others.
    """
    # A FIFO must not make ccidd wait before it is refused.
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise _refusal(path, error) from error
    try:
        _check_regular(descriptor, path)
        if private:
            _check_private(descriptor, path, _OPEN_TO_OTHERS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sync_directory(path: Path) -> None:
    """Makes durable which files a directory holds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_regular(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise UserError(f"{path} is no regular file")


def _check_private(descriptor: int, path: Path, forbidden: int) -> None:
    status = os.fstat(descriptor)
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        raise UserError(f"{path} belongs to user {status.st_uid}; run ccidd as that user")
    if mode & forbidden:
        right = mode & ~_OPEN_TO_OTHERS
        raise UserError(
            f"{path} is open to other users (mode {mode:03o}); run: chmod {right:03o} {path}"
        )


def _refusal(path: Path, error: OSError) -> UserError:
    if path.is_symlink():
        return UserError(f"{path} is a symbolic link; use the file itself")
    return UserError(f"cannot use {path}: {error.strerror}")
