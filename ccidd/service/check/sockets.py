# SPDX-License-Identifier: Apache-2.0
"""The front doors: could they be opened where they are to be.

No socket is made, and none is connected to: a connection would be a guest's, or QEMU's.

Source: unix(7) (the length of a path); proc_net_unix(5).
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ccidd.service.check.files import look_at_new_file
from ccidd.service.check.finding import Finding, error, ok, warning
from ccidd.service.configfile import AWAITED_FD
from ccidd.service.configuration import ReaderConfiguration
from ccidd.transport.endpoint import tcp_address
from ccidd.transport.listening import has_socket

_MAX_PATH: Final = 107
"""Bytes of a Unix socket's path, without the NUL at its end."""

_SOCKETS: Final = Path("/proc/net/unix")
_LISTENS: Final = 0x10000
"""__SO_ACCEPTCON."""


def look_at_front_door(reader: ReaderConfiguration) -> Iterator[Finding]:
    """Looks at where a reader is to be served, and traced.

    Raises:
        UserError: It cannot be served there.
    """
    if reader.socket_path is not None:
        with reader.where.naming("socket-path"):
            yield from _look_at_path(reader, reader.socket_path)
    elif reader.connect is not None:
        yield from _look_at_target(reader, reader.connect)
    elif reader.fd == AWAITED_FD:
        name = f" (FileDescriptorName={reader.name})" if reader.name else ""
        yield ok(reader.where, f"no socket is named here: systemd is to pass one{name}")
    else:
        yield ok(reader.where.of("fd"), "whoever starts ccidd is to pass this")
    if reader.trace is not None:
        yield from look_at_new_file(reader.where, "trace", reader.trace)


def _look_at_path(reader: ReaderConfiguration, path: Path) -> Iterator[Finding]:
    where = reader.where.of("socket-path")
    length = len(os.fsencode(path))
    if reader.transport != "serial" and length > _MAX_PATH:
        yield error(where, f"a socket's path has at most {_MAX_PATH} bytes, and this has {length}")
        return
    findings = list(look_at_new_file(reader.where, "socket-path", path))
    if reader.transport == "serial":
        if path.exists() and not path.is_symlink():
            findings.append(error(where, f"{path} is in the way: it is no link of ccidd's"))
    elif has_socket(path) and _is_listened_at(path):
        findings.append(warning(where, f"a process listens at {path} now: no other can"))
    yield from findings or [ok(where, f"{path} can be made")]


def _is_listened_at(path: Path) -> bool:
    """Whether a process of this host listens there; asked without connecting to it."""
    names = {f"{path}", f"{path.absolute()}"}
    for line in _SOCKETS.read_text(errors="replace").splitlines()[1:]:
        _number, _count, _protocol, flags, _type, _state, _inode, *name = line.split(maxsplit=7)
        if int(flags, 16) & _LISTENS and names.intersection(name):
            return True
    return False


def _look_at_target(reader: ReaderConfiguration, target: str) -> Iterator[Finding]:
    where = reader.where.of("connect")
    address = tcp_address(target)
    if address is None:
        path = Path(target)
        if not path.absolute().parent.is_dir():
            yield warning(where, f"there is no directory {path.absolute().parent} yet")
        elif not path.exists():
            yield warning(where, f"no QEMU listens at {path} yet; ccidd tries until one does")
        elif not path.is_socket():
            yield error(where, f"{path} is no socket")
        elif not os.access(path, os.W_OK, effective_ids=True):
            yield error(where, f"{path} is not for user {os.geteuid()}; change its group or mode")
        else:
            yield ok(where, f"{path} is there")
        return
    host, port = address
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as failed:
        yield warning(where, f"the host {host} is not known here now: {failed.strerror}")
    else:
        yield ok(where, f"the host {host} is known")
