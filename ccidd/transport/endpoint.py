# SPDX-License-Identifier: Apache-2.0
"""Where connections come from: a socket that listens, one that is handed over, or QEMU's own.

Source: QEMU, docs/interop/vhost-user.rst, "Backend program conventions" (the socket path and file
descriptor options); sd_listen_fds(3) (socket activation).
"""

import contextlib
import errno
import os
import re
import socket
import stat
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from enum import Enum
from pathlib import Path
from typing import Final, TypeAlias

import structlog
import trio

from ccidd.errors import UserError
from ccidd.transport.tcp import prompt

log: structlog.stdlib.BoundLogger = structlog.get_logger()

Handler: TypeAlias = Callable[[trio.abc.Stream], Awaitable[bool]]
"""Serves one connection; tells whether its peer spoke the right protocol."""

FIRST_RETRY_DELAY: Final = 0.1
"""Seconds until a lost or refused connection is tried again the first time."""

LAST_RETRY_DELAY: Final = 5.0
"""Seconds between tries after many; each waits twice as long as the one before."""

_ACCEPT_RETRY_DELAY: Final = 0.1
_ACCEPT_ERRORS: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_BACKLOG: Final = 16

_FIRST_SYSTEMD_FD: Final = 3
_HOST_AND_PORT: Final = re.compile(r"(?:\[(?P<v6>[^]]+)\]|(?P<host>[^:/]+)):(?P<port>\d{1,5})")


class Endpoint(ABC):
    """Gives connections to a handler, one at a time: there is one reader, for one guest.

    Others wait, as they do before QEMU's own socket chardev.
    """

    @abstractmethod
    async def run(
        self,
        handler: Handler,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves until it is cancelled, or no more connections can come.

        Args:
            handler: serves a connection, which is closed after it.
            task_status: started as soon as peers can connect.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes the socket, and removes what the endpoint made in the file system."""


class Listener(Endpoint):
    """A listening socket.

    Args:
        listening: the socket.
        made: the path that this process bound it to, to be removed in the end.
    """

    def __init__(self, listening: socket.socket, made: Path | None = None) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        self._made = made
        self._identity = _identity(made) if made else None

    async def run(
        self,
        handler: Handler,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `Endpoint.run`."""
        async with self._listener:
            task_status.started()
            while True:
                try:
                    stream = await self._listener.accept()
                except OSError as error:
                    if error.errno not in _ACCEPT_ERRORS:
                        raise
                    log.warning("accept_failed", reason=error.strerror)
                    await trio.sleep(_ACCEPT_RETRY_DELAY)
                    continue
                async with stream:
                    await handler(prompt(stream))

    def close(self) -> None:
        """See `Endpoint.close`; a file that took the place of the socket's stays."""
        self._listener.socket.close()
        if self._made and _identity(self._made) == self._identity:
            self._made.unlink(missing_ok=True)


class Connected(Endpoint):
    """A socket that is connected already."""

    def __init__(self, connected: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(connected))

    async def run(
        self,
        handler: Handler,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `Endpoint.run`: ends with its only connection."""
        task_status.started()
        async with self._stream:
            await handler(prompt(self._stream))

    def close(self) -> None:
        """See `Endpoint.close`."""
        self._stream.socket.close()


class Reconnect(Enum):
    """When a connector connects again."""

    NEVER = "never"
    """Its first connection is its last."""

    LOST = "lost"
    """Whenever a connection was lost, for ever; but the first is to succeed at once."""

    ALWAYS = "always"
    """For ever."""


class Connector(Endpoint):
    """A QEMU that listens (`server=on`), to which we connect, again and again.

    Args:
        target: the path of its Unix socket, or HOST:PORT ([ADDRESS]:PORT for IPv6). What has a
            slash or no colon is a path.
        reconnect: when to connect again.
        where: what gave the target, for people.

    Attributes:
        reached: set with the first connection, or at once if that need not succeed.
        failure: what is wrong, if it has ended because of it.

    Raises:
        UserError: The target is neither.
    """

    def __init__(
        self, target: str, reconnect: Reconnect = Reconnect.ALWAYS, where: str = "--connect="
    ) -> None:
        self._target = target
        self._reconnect = reconnect
        self._tcp: tuple[str, int] | None = None
        self.reached = trio.Event()
        self.failure: str | None = None
        if target and ("/" in target or ":" not in target):
            return
        match = _HOST_AND_PORT.fullmatch(target)
        if match is None or not 0 < int(match["port"]) < 1 << 16:
            raise UserError(f"{where}{target} is neither a path nor HOST:PORT")
        self._tcp = match["v6"] or match["host"], int(match["port"])
        try:
            self._tcp[0].encode("idna")
        except UnicodeError as error:
            raise UserError(f"{where}{target} has no host name before its port") from error

    async def run(
        self,
        handler: Handler,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `Endpoint.run`: tries for ever, unless it was told otherwise."""
        task_status.started()
        delay = FIRST_RETRY_DELAY
        last_reason = None
        may_fail = self._reconnect is Reconnect.ALWAYS
        if may_fail:
            self.reached.set()
        while True:
            try:
                stream = await self._connect()
            except OSError as error:
                reason = _reason(error)
                if not may_fail:
                    self.failure = f"cannot connect to {self._target}: {reason}"
                    return
                if reason != last_reason:
                    log.warning("connect_failed", target=self._target, reason=reason)
                last_reason = reason
            else:
                last_reason = None
                self.reached.set()
                async with stream:
                    if await handler(prompt(stream)):
                        delay = FIRST_RETRY_DELAY
                    elif not may_fail:
                        self.failure = f"{self._target} does not speak as was expected"
                        return
                if self._reconnect is Reconnect.NEVER:
                    return
                may_fail = True
            await trio.sleep(delay)
            delay = min(2 * delay, LAST_RETRY_DELAY)

    def close(self) -> None:
        """See `Endpoint.close`: nothing is left of it."""

    async def _connect(self) -> trio.SocketStream:
        if self._tcp is not None:
            return await trio.open_tcp_stream(*self._tcp)
        return await trio.open_unix_socket(self._target)


def _reason(error: OSError) -> str:
    """Says why there is no connection; trio has one error for all addresses of a host."""
    cause = error.__cause__
    first = cause.exceptions[0] if isinstance(cause, ExceptionGroup) else cause
    if error.errno is None and isinstance(first, OSError):
        error = first
    # trio's text has the address once more; the numbers of a resolver's errors are its own.
    if error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error)


def listen(path: Path) -> Listener:
    """Listens on a new Unix socket, in the place of one that nobody listens on any more.

    The socket is for the same user alone.

    Raises:
        UserError: The path is in use, is not a socket, or cannot be bound.
    """
    _remove_stale_socket(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The process has no other threads yet that a umask could surprise.
        umask = os.umask(0o177)
        try:
            listening.bind(os.fspath(path))
        finally:
            os.umask(umask)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise UserError(f"cannot listen on {path}: {error.strerror or error}") from error
    return Listener(listening, path)


def _remove_stale_socket(path: Path) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"cannot listen on {path}: {error.strerror}") from error
    if not is_socket:
        raise UserError(f"cannot listen on {path}: it exists and is no socket")
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


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        status = path.lstat()
        return status.st_dev, status.st_ino
    return None


def adopt(fd: int) -> Endpoint:
    """Takes over an inherited stream socket, listening or connected.

    A listening one can be adopted again later.

    Raises:
        UserError: The descriptor is not open or is no such socket.
    """
    try:
        os.set_inheritable(fd, False)
        adopted = socket.socket(fileno=fd)
    except OSError as error:
        raise UserError(f"file descriptor {fd} cannot be served: {error.strerror}") from error
    except OverflowError as error:
        raise UserError(f"file descriptor {fd} cannot be served: there is no such one") from error
    if adopted.type != socket.SOCK_STREAM:
        adopted.detach()
        raise UserError(f"file descriptor {fd} cannot be served: it is no stream socket")
    if adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listening = adopted.dup()
        adopted.detach()
        return Listener(listening)
    try:
        adopted.getpeername()
    except OSError as error:
        adopted.detach()
        raise UserError(
            f"file descriptor {fd} cannot be served: it neither listens nor is connected"
        ) from error
    return Connected(adopted)


def take_systemd_fds(environ: MutableMapping[str, str]) -> list[tuple[str, int]]:
    """Tells which descriptors systemd passed, and takes its variables out of the environment.

    Returns:
        The name of each (FileDescriptorName=) and itself; none if this process was not started by
        socket activation.
    """
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    names += ["unknown"] * (int(count) - len(names))
    return [(names[index], _FIRST_SYSTEMD_FD + index) for index in range(int(count))]
