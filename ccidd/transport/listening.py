# SPDX-License-Identifier: Apache-2.0
"""Makes sockets that listen.

Source: unix(7), "Pathname socket ownership and permissions": whoever may write to the socket's file
can connect, once its owner listens.
"""

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

from ccidd.errors import UserError

OWNER_ONLY: Final = 0o600
"""The mode of a socket that is for the same user alone."""

_BACKLOG: Final = 128


def listen_unix(path: Path, mode: int = OWNER_ONLY, group: int | None = None) -> socket.socket:
    """Listens on a new Unix socket, in the place of one that nobody listens on any more.

    Nobody can connect to it before it has its mode and its group.

    Args:
        path: where to make it.
        mode: the mode of its file.
        group: the number of the group that its file belongs to; None for that of this process.

    Raises:
        UserError: The path is in use, is not a socket, or cannot be bound, or the group is none of
            this process's.
    """
    _remove_stale_socket(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux takes the file's mode from the socket: so no umask is changed, which is other
        # threads' as well.
        os.fchmod(listening.fileno(), OWNER_ONLY)
        listening.bind(os.fspath(path))
        try:
            _open_to(path, mode, group)
            listening.listen(_BACKLOG)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        listening.close()
        raise UserError(f"cannot listen on {path}: {error.strerror or error}") from error
    except BaseException:
        listening.close()
        raise
    return listening


def listen_tcp(host: str, port: int) -> list[socket.socket]:
    """Listens on a TCP port, at each address that a host has.

    Args:
        host: its name, or an address.
        port: the port; at 0, each address gets one that is free.

    Raises:
        UserError: The host is not known, or the port cannot be had.
    """
    sockets: list[socket.socket] = []
    try:
        for family, _type, _protocol, _name, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            if address[0] in {each.getsockname()[0] for each in sockets}:
                continue
            sockets.append(socket.create_server(address, family=family, backlog=_BACKLOG))
    except OSError as error:
        for each in sockets:
            each.close()
        reason = error.strerror if isinstance(error, socket.gaierror) else None
        reason = reason or (os.strerror(error.errno) if error.errno else str(error))
        raise UserError(f"cannot listen on {host}:{port}: {reason}") from error
    return sockets


def _open_to(path: Path, mode: int, group: int | None) -> None:
    """Gives a socket's file, which is for its owner alone, to a group, and opens it to others."""
    if group is None and stat.S_IMODE(path.lstat().st_mode) == mode:
        return
    # Not by its path: in a directory that others can write to, that may lead elsewhere by now.
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise UserError(f"cannot listen on {path}: it was replaced meanwhile")
        name = f"/proc/self/fd/{descriptor}"
        if group is not None:
            try:
                os.chown(name, -1, group)
            except PermissionError as error:
                raise UserError(
                    f"cannot give the socket {path} to the group {group}: this process is not a"
                    " member of it"
                ) from error
        Path(name).chmod(mode)
    finally:
        os.close(descriptor)


def has_socket(path: Path) -> bool:
    """Tells whether there is a socket where one is to be made, in use or not.

    Raises:
        UserError: Something else is there, or it cannot be seen.
    """
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"cannot listen on {path}: {error.strerror}") from error
    if not is_socket:
        raise UserError(f"cannot listen on {path}: it exists and is no socket")
    return True


def _remove_stale_socket(path: Path) -> None:
    if not has_socket(path):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise UserError(f"cannot listen on {path}: {error.strerror}") from error
    raise UserError(f"cannot listen on {path}: another process listens there")
