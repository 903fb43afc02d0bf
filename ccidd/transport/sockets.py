# SPDX-License-Identifier: Apache-2.0
"""What a socket tells about itself and its peer.

Source: unix(7), SIOCINQ, SIOCOUTQ and SO_PEERCRED; proc_pid_cmdline(5).
"""

import fcntl
import os
import socket
import struct
import termios
from pathlib import Path
from typing import Final, Protocol

_INT: Final = struct.Struct("@i")

# unix(7), struct ucred: pid, uid, gid
_CREDENTIALS: Final = struct.Struct("@iII")


class Socket(Protocol):
    """A socket, trio's or Python's."""

    @property
    def family(self) -> int:
        """The address family."""

    def fileno(self) -> int:
        """Gives the descriptor."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """Gives an option's value."""


def name_of(fd: int) -> str | None:
    """Gives the path or address of an inherited socket; None if it has none, or is no socket."""
    try:
        with socket.socket(fileno=os.dup(fd)) as inherited:
            name = inherited.getsockname()
    except (OSError, OverflowError):
        return None
    if isinstance(name, tuple):
        return "{}:{}".format(*name)
    return os.fsdecode(name) or None


def peer_arguments(connected: Socket) -> list[str]:
    """Gives the command line of the process at the other end; nothing where it cannot be seen."""
    if connected.family != socket.AF_UNIX:
        return []
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, _uid, _gid = _CREDENTIALS.unpack(raw)
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(argument) for argument in line.split(b"\0")]


def has_unread(unix_socket: Socket) -> bool:
    """Whether the peer of a Unix socket has yet to read what was written."""
    return _count(unix_socket, termios.TIOCOUTQ) > 0


def can_read(unix_socket: Socket) -> bool:
    """Whether there are bytes to be read."""
    return _count(unix_socket, termios.FIONREAD) > 0


def _count(unix_socket: Socket, request: int) -> int:
    raw = fcntl.ioctl(unix_socket.fileno(), request, bytes(_INT.size))
    (count,) = _INT.unpack(raw)
    return int(count)
