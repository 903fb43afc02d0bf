# SPDX-License-Identifier: Apache-2.0
"""The front doors: could they be opened where they are to be.

No socket is made, and none is connected to: a connection would be a guest's, or QEMU's.

Source: unix(7) (the length of a path); proc_net_unix(5).
"""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ccidd.service.allow import group_number, parse_allow, parse_mode
from ccidd.service.check.certificates import look_at_validity
from ccidd.service.check.files import look_at_new_file, look_at_secret
from ccidd.service.check.finding import Finding, error, ok, warning
from ccidd.service.configfile import AWAITED_FD
from ccidd.service.configuration import ReaderConfiguration
from ccidd.service.opening import front_door, tls_role
from ccidd.service.where import Where
from ccidd.transport.endpoint import host_and_port, tcp_address
from ccidd.transport.listening import has_socket
from ccidd.transport.tls import X509Credentials

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
    # What it gives would open it.
    front_door(reader)
    if reader.transport == "serial":
        yield from _look_at_link(reader)
    elif reader.socket_path is not None:
        yield from look_at_socket(reader.where, "socket-path", reader.socket_path)
        yield from _look_at_mode(reader)
    elif reader.listen is not None:
        yield from _look_at_host(reader.where.of("listen"), host_and_port(reader.listen))
    elif reader.connect is not None:
        yield from _look_at_target(reader, reader.connect)
    elif reader.fd == AWAITED_FD:
        name = f" (FileDescriptorName={reader.name})" if reader.name else ""
        yield ok(reader.where, f"no socket is named here: systemd is to pass one{name}")
    else:
        yield ok(reader.where.of("fd"), "whoever starts ccidd is to pass this")
    if reader.tls_creds is not None:
        yield from _look_at_credentials(reader, reader.tls_creds)
    if reader.insecure_tcp:
        yield warning(
            reader.where.of("insecure-tcp"),
            "whoever reaches this connection can use the cards; tls-creds=DIR has them shut out",
        )
    if reader.trace is not None:
        yield from look_at_new_file(reader.where, "trace", reader.trace)


def look_at_socket(where: Where, option: str, path: Path) -> Iterator[Finding]:
    """Looks at where a Unix socket is to be made.

    Args:
        where: what names it.
        option: the option there.
        path: the path.

    Raises:
        UserError: Something else is there.
    """
    place = where.of(option)
    length = len(os.fsencode(path))
    if length > _MAX_PATH:
        yield error(place, f"a socket's path has at most {_MAX_PATH} bytes, and this has {length}")
        return
    with where.naming(option):
        is_there = has_socket(path)
    findings = list(look_at_new_file(where, option, path))
    if is_there and _is_listened_at(path):
        findings.append(warning(place, f"a process listens at {path} now: no other can"))
    yield from findings or [ok(place, f"{path} can be made")]


def _look_at_link(reader: ReaderConfiguration) -> Iterator[Finding]:
    path = reader.socket_path
    assert path is not None
    where = reader.where.of("socket-path")
    findings = list(look_at_new_file(reader.where, "socket-path", path))
    if path.exists() and not path.is_symlink():
        findings.append(error(where, f"{path} is in the way: it is no link of ccidd's"))
    yield from findings or [ok(where, f"{path} can be made")]


def _look_at_mode(reader: ReaderConfiguration) -> Iterator[Finding]:
    """Looks at who can connect to a socket that ccidd makes."""
    if reader.socket_group is not None:
        number = group_number(reader.socket_group)
        if os.geteuid() and number not in {os.getegid(), *os.getgroups()}:
            yield error(
                reader.where.of("socket-group"),
                f"user {os.geteuid()} is not in the group {reader.socket_group}, and so cannot give"
                " it a socket; add the user to it (usermod -aG)",
            )
    mode = parse_mode(reader.socket_mode) if reader.socket_mode is not None else 0
    if mode & stat.S_IWOTH and not parse_allow(reader.allow).are_for_processes:
        allow = reader.where.name("allow")
        yield warning(
            reader.where.of("socket-mode"), f"everybody on this host can connect; {allow} says who"
        )


def _look_at_credentials(reader: ReaderConfiguration, directory: Path) -> Iterator[Finding]:
    where = reader.where.of("tls-creds")
    credentials = X509Credentials(directory, tls_role(reader))
    yield from look_at_secret(where, credentials.key_file)
    for certificate in credentials.certificates():
        name = f"the certificate {certificate.subject.rfc4514_string()}"
        yield from look_at_validity(where, name, certificate)
    yield ok(where, f"{directory} can be used")


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
    yield from _look_at_host(where, address)


def _look_at_host(where: str, address: tuple[str, int]) -> Iterator[Finding]:
    host, port = address
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as failed:
        yield warning(where, f"the host {host} is not known here now: {failed.strerror}")
    else:
        yield ok(where, f"the host {host} is known")
