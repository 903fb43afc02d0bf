# SPDX-License-Identifier: Apache-2.0
"""Where connections come from: a socket that listens, one that is handed over, or QEMU's own.

Source: QEMU, docs/interop/vhost-user.rst, "Backend program conventions" (the socket path and file
descriptor options); sd_listen_fds(3) (socket activation).
"""

import contextlib
import errno
import math
import os
import re
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Final, TypeAlias

import structlog
import trio

from ccidd.errors import UserError
from ccidd.transport.access import Admission, RefusedError, Unencrypted
from ccidd.transport.listening import OWNER_ONLY, listen_tcp, listen_unix

log: structlog.stdlib.BoundLogger = structlog.get_logger()

Handler: TypeAlias = Callable[[trio.abc.Stream], Awaitable[bool]]
"""Serves one connection; tells whether its peer spoke the right protocol."""

FIRST_RETRY_DELAY: Final = 0.1
"""Seconds until a lost or refused connection is tried again the first time."""

LAST_RETRY_DELAY: Final = 5.0
"""Seconds between tries after many; each waits twice as long as the one before."""

MAX_WAITING: Final = 16
"""Connections that may wait until the one before them has ended."""

MAX_ARRIVING: Final = 64
"""Connections that may be looked at at once; for one more, the oldest is given up."""

MAX_REFUSALS_LOGGED: Final = 100
"""Refusals within `REFUSALS_PERIOD` that have a line of their own in the log."""

REFUSALS_PERIOD: Final = 10.0
"""Seconds after which refusals have lines of their own again."""

_ACCEPT_RETRY_DELAY: Final = 0.1
_ACCEPT_ERRORS: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}

_FIRST_SYSTEMD_FD: Final = 3
_HOST_AND_PORT: Final = re.compile(r"(?:\[(?P<v6>[^]]+)\]|(?P<host>[^:/]+)):(?P<port>\d{1,5})")


class Endpoint(ABC):
    """Gives connections to a handler, one at a time: there is one reader, for one guest.

    Others wait, as they do before QEMU's own socket chardev, up to `MAX_WAITING` of them.
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
    """Listening sockets.

    All who connect are looked at at once, so that nobody who is refused waits in line, or has
    others wait.

    Args:
        listening: the sockets.
        made: the path that this process bound the only one to, to be removed in the end.
        admission: what connections pass before they are served.
    """

    def __init__(
        self,
        listening: Sequence[socket.socket],
        made: Path | None = None,
        admission: Admission | None = None,
    ) -> None:
        self._listeners = [
            trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in listening
        ]
        self._made = made
        self._identity = _identity(made) if made else None
        self._admission = admission or Unencrypted()
        self._queue, self._admitted = trio.open_memory_channel[trio.abc.Stream](MAX_WAITING)
        # Those who are being looked at, the oldest first.
        self._arriving: deque[trio.CancelScope] = deque()
        self._refusals = _Refusals()

    @property
    def listeners(self) -> Sequence[trio.SocketListener]:
        """The sockets, for who serves several connections at a time."""
        return self._listeners

    async def run(
        self,
        handler: Handler,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `Endpoint.run`."""
        try:
            async with trio.open_nursery() as nursery:
                for listener in self._listeners:
                    nursery.start_soon(self._accept, listener, nursery)
                task_status.started()
                async for stream in self._admitted:
                    async with stream:
                        await handler(stream)
        finally:
            for listener in self._listeners:
                listener.socket.close()
            await self._turn_away_all()

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _ACCEPT_ERRORS:
                    raise
                log.warning("accept_failed", reason=error.strerror)
                await trio.sleep(_ACCEPT_RETRY_DELAY)
                continue
            if len(self._arriving) == MAX_ARRIVING:
                # An honest peer is let in at once; whoever is slow is so at his own risk.
                self._arriving.popleft().cancel()
            scope = trio.CancelScope()
            self._arriving.append(scope)
            nursery.start_soon(self._let_in, stream, scope)

    async def _let_in(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        """Puts a peer into the queue, or closes its connection."""
        refusal: RefusedError | None = RefusedError("too many others came meanwhile")
        try:
            with scope:
                try:
                    self._queue.send_nowait(await self._admission.admit(stream))
                    refusal = None
                except RefusedError as error:
                    refusal = error
                except trio.WouldBlock:
                    refusal = RefusedError("too many wait already")
                except Exception:
                    # A fault of ours is no reason to let nobody else in.
                    log.exception("admission_fault")
                    refusal = RefusedError("it could not be looked at")
        finally:
            if scope in self._arriving:
                self._arriving.remove(scope)
            if refusal is not None:
                stream.socket.close()
        if refusal is not None:
            self._refusals.tell(refusal)

    async def _turn_away_all(self) -> None:
        """Closes the connections that were not served, though it may have been cancelled."""
        self._queue.close()
        with trio.CancelScope(shield=True):
            async for stream in self._admitted:
                await trio.aclose_forcefully(stream)

    def leave_file(self) -> None:
        """Has the socket's file stay when the socket is closed."""
        self._made = None

    def close(self) -> None:
        """See `Endpoint.close`; a file that took the place of the socket's stays."""
        for listener in self._listeners:
            listener.socket.close()
        if self._made and _identity(self._made) == self._identity:
            self._made.unlink(missing_ok=True)


class _Refusals:
    """Logs refusals: each, or where there are too many to read, how many there were."""

    def __init__(self) -> None:
        self._begin = -math.inf
        self._told = 0
        self._untold = 0

    def tell(self, refusal: RefusedError) -> None:
        """Logs that a peer is not let in."""
        now = trio.current_time()
        if now - self._begin >= REFUSALS_PERIOD:
            if self._untold:
                log.warning("more_connections_refused", count=self._untold)
            self._begin, self._told, self._untold = now, 0, 0
        if self._told == MAX_REFUSALS_LOGGED:
            self._untold += 1
            return
        self._told += 1
        log.warning("connection_refused", reason=str(refusal), **refusal.peer)


class Connected(Endpoint):
    """A socket that is connected already.

    Args:
        connected: the socket.
        admission: what it passes before it is served.
    """

    def __init__(self, connected: socket.socket, admission: Admission | None = None) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(connected))
        self._admission = admission or Unencrypted()

    async def run(
        self,
        handler: Handler,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `Endpoint.run`: ends with its only connection."""
        task_status.started()
        async with self._stream:
            try:
                stream = await self._admission.admit(self._stream)
            except RefusedError as refusal:
                _Refusals().tell(refusal)
                return
            async with stream:
                await handler(stream)

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
        admission: what each connection passes before it is served.

    Attributes:
        reached: set with the first connection, or at once if that need not succeed.
        failure: what is wrong, if it has ended because of it.

    Raises:
        UserError: The target is neither.
    """

    def __init__(
        self,
        target: str,
        reconnect: Reconnect = Reconnect.ALWAYS,
        where: str = "--connect=",
        admission: Admission | None = None,
    ) -> None:
        self._target = target
        self._reconnect = reconnect
        self._tcp = tcp_address(target, where)
        self._admission = admission or Unencrypted()
        self.reached = trio.Event()
        self.failure: str | None = None

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
            except (OSError, RefusedError) as error:
                reason = _reason(error) if isinstance(error, OSError) else str(error)
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
                    if await handler(stream):
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

    async def _connect(self) -> trio.abc.Stream:
        if self._tcp is not None:
            stream = await trio.open_tcp_stream(*self._tcp)
        else:
            stream = await trio.open_unix_socket(self._target)
        try:
            return await self._admission.admit(stream)
        except BaseException:
            stream.socket.close()
            raise


def tcp_address(target: str, where: str = "") -> tuple[str, int] | None:
    """Reads where to connect to.

    Args:
        target: a path, or HOST:PORT.
        where: what gave it, for people.

    Returns:
        Host and port; None if it is a path.

    Raises:
        UserError: It is neither.
    """
    if target and ("/" in target or ":" not in target):
        return None
    host, port = host_and_port(target, where, "neither a path nor HOST:PORT")
    if port == 0:
        raise UserError(f"{where}{target} is neither a path nor HOST:PORT")
    return host, port


def host_and_port(text: str, where: str = "", what: str = "not HOST:PORT") -> tuple[str, int]:
    """Reads HOST:PORT, or [ADDRESS]:PORT for IPv6.

    Args:
        text: what to read.
        where: what gave it, for people.
        what: what to say of it if it is none.

    Raises:
        UserError: It is none.
    """
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None or int(match["port"]) >= 1 << 16:
        raise UserError(f"{where}{text} is {what}")
    host = match["v6"] or match["host"]
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise UserError(f"{where}{text} has no host name before its port") from error
    return host, int(match["port"])


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


def listen(
    path: Path,
    mode: int = OWNER_ONLY,
    group: int | None = None,
    admission: Admission | None = None,
) -> Listener:
    """Listens on a new Unix socket, in the place of one that nobody listens on any more.

    Args:
        path: where to make it.
        mode: the mode of its file.
        group: the number of the group that its file belongs to; None for that of this process.
        admission: what connections pass before they are served.

    Raises:
        UserError: The path is in use, is not a socket, or cannot be bound, or the group is none of
            this process's.
    """
    return Listener([listen_unix(path, mode, group)], path, admission)


def listen_at(host: str, port: int, admission: Admission) -> Listener:
    """Listens on a TCP port, at each address that a host has.

    Args:
        host: its name, or an address.
        port: the port; 0 for one that is free.
        admission: what connections pass before they are served.

    Raises:
        UserError: The host is not known, or the port cannot be had.
    """
    sockets = listen_tcp(host, port)
    for each in sockets:
        log.info("listening", address="{}:{}".format(*each.getsockname()))
    return Listener(sockets, admission=admission)


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        status = path.lstat()
        return status.st_dev, status.st_ino
    return None


def adopt(fd: int, admission: Admission | None = None) -> Endpoint:
    """Takes over an inherited stream socket, listening or connected.

    A listening one can be adopted again later.

    Args:
        fd: its descriptor.
        admission: what connections pass before they are served.

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
        return Listener([listening], admission=admission)
    try:
        adopted.getpeername()
    except OSError as error:
        adopted.detach()
        raise UserError(
            f"file descriptor {fd} cannot be served: it neither listens nor is connected"
        ) from error
    return Connected(adopted, admission)


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
