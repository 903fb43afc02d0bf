# SPDX-License-Identifier: Apache-2.0
"""What a socket tells about itself.

Source: unix(7), SIOCINQ and SIOCOUTQ.
"""

import fcntl
import os
import socket
import struct
import termios
from typing import Final, Protocol

_INT: Final = struct.Struct("@i")


class HasDescriptor(Protocol):
    """A socket, trio's or Python's."""

    def fileno(self) -> int:
        """Gives the descriptor."""


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


def has_unread(unix_socket: HasDescriptor) -> bool:
    """Whether the peer of a Unix socket has yet to read what was written."""
    return _count(unix_socket, termios.TIOCOUTQ) > 0


def can_read(unix_socket: HasDescriptor) -> bool:
    """Whether there are bytes to be read."""
    return _count(unix_socket, termios.FIONREAD) > 0


def _count(unix_socket: HasDescriptor, request: int) -> int:
    raw = fcntl.ioctl(unix_socket.fileno(), request, bytes(_INT.size))
    (count,) = _INT.unpack(raw)
    return int(count)
