# SPDX-License-Identifier: Apache-2.0
"""What a socket tells about itself and its peer.

Source: unix(7), SIOCINQ, SIOCOUTQ and SO_PEERCRED; proc_pid_cmdline(5).
"""

import fcntl
import os
import socket
import struct
import termios
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

import trio

_INT: Final = struct.Struct("@i")

_NAME_OPTIONS: Final = {"-name", "--name"}

# unix(7), struct ucred: pid, uid, gid
_CREDENTIALS: Final = struct.Struct("@iII")

# Linux since 4.13, asm-generic/socket.h: an array of gid_t. Python takes options of 1024 bytes.
_SO_PEERGROUPS: Final = 59
_GROUP: Final = struct.Struct("@I")
_MAX_OPTION: Final = 1024


class Socket(Protocol):
    """A socket, trio's or Python's."""

    @property
    def family(self) -> int:
        """The address family."""

    def getpeername(self) -> object:
        """Gives the address of the peer."""

    def fileno(self) -> int:
        """Gives the descriptor."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """Gives an option's value."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Which process is at the other end of a Unix socket.

    Attributes:
        pid: its number; 0 if it cannot be seen from here.
        uid: its user.
        gid: its group.
        groups: its other groups.
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


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


def is_tcp(fd: int) -> bool | None:
    """Whether an inherited socket is one of TCP; None if it is no socket."""
    try:
        with socket.socket(fileno=os.dup(fd)) as inherited:
            return inherited.family in {socket.AF_INET, socket.AF_INET6}
    except (OSError, OverflowError):
        return None


def peer_arguments(connected: Socket) -> list[str]:
    """Gives the command line of the process at the other end; nothing where it cannot be seen."""
    pid = _peer_pid(connected)
    if pid is None:
        return []
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(argument) for argument in line.split(b"\0")]


def peer_name(connected: Socket) -> str:
    """Names who is at the other end, for people.

    Returns:
        The guest's name, where a QEMU was given one (-name); else the process, or the address.
    """
    arguments = peer_arguments(connected)
    for option, value in pairwise(arguments):
        if option in _NAME_OPTIONS and (guest := _guest_name(value)):
            return f"guest {guest}"
    pid = _peer_pid(connected)
    if pid is not None:
        return f"{Path(arguments[0]).name if arguments else 'process'} {pid}"
    try:
        address = connected.getpeername()
    except OSError:
        address = None
    return "{}:{}".format(*address) if isinstance(address, tuple) else "the guest"


def _guest_name(value: str) -> str | None:
    """Gives the guest's name in the value of -name: [guest=]NAME,…, where ",," is a comma."""
    first, *others = (part.replace("\0", ",") for part in value.replace(",,", "\0").split(","))
    for part in (first, *others):
        if part.startswith("guest="):
            return part.removeprefix("guest=")
    return None if "=" in first else first


def _peer_pid(connected: Socket) -> int | None:
    """Gives the process at the other end of a Unix socket, if it can be seen from here."""
    if connected.family != socket.AF_UNIX:
        return None
    return peer_credentials(connected).pid or None


def peer_credentials(unix_socket: Socket) -> Credentials:
    """Tells which process is at the other end of a Unix socket.

    Of a process with more than 256 groups, none but its own group is told.
    """
    raw = unix_socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    try:
        raw = unix_socket.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_OPTION)
    except OSError:
        raw = b""
    groups = frozenset(int(group) for (group,) in _GROUP.iter_unpack(raw))
    return Credentials(int(pid), int(uid), int(gid), groups)


def write_now(stream: trio.abc.Stream, data: bytes | bytearray) -> int:
    """Writes what a connection takes without waiting, and without another turn of the event loop.

    Returns:
        How many bytes it took; none where it is no socket, or broken, as `send_all` then tells.
    """
    if not isinstance(stream, trio.SocketStream):
        return 0
    try:
        return os.write(stream.socket.fileno(), data)
    except OSError:
        return 0


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
