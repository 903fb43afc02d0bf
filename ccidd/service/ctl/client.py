# SPDX-License-Identifier: Apache-2.0
"""A connection to a control socket.

Source: QEMU, docs/interop/qmp-spec.rst; the messages are `ccid_protocol.qmp`'s.
"""

import contextlib
import errno
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn

import trio

from ccid_protocol.errors import RemoteProtocolError
from ccid_protocol.events import ConnectionClosed, NeedData
from ccid_protocol.qmp import JSON, ClientConnection, Error, Event, Greeting, Message, Request
from ccidd.errors import UserError

SYSTEM_SOCKET: Final = Path("/run/ccidd/control.sock")
"""Where the service of the whole machine has it."""

AGENT: Final = "agent"
"""The capability by which a connection says that an agent is at its end."""

_GREETING_TIME: Final = 5.0
"""Seconds; the server speaks first, and at once."""

RECONNECT_INTERVAL: Final = 1.0
"""Seconds between two attempts to reach a ccidd that has ended."""

_RECEIVE_SIZE: Final = 65536


class DisconnectedError(UserError):
    """ccidd has ended, or cannot be reached."""


def default_socket(environ: Mapping[str, str]) -> Path:
    """Gives the control socket that is meant where none is named.

    Args:
        environ: what the user's session says.

    Returns:
        $CCIDD_CONTROL, else the one of the user's own ccidd, if it is there, else the machine's.
    """
    if environ.get("CCIDD_CONTROL"):
        return Path(environ["CCIDD_CONTROL"])
    if environ.get("XDG_RUNTIME_DIR"):
        own = Path(environ["XDG_RUNTIME_DIR"], "ccidd/control.sock")
        if own.exists():
            return own
    return SYSTEM_SOCKET


class Client:
    """A connection that has been greeted.

    One task receives; any task may send.

    Args:
        stream: to and from the server.
        path: where that is, for people.
    """

    def __init__(self, stream: trio.abc.Stream, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._connection = ClientConnection()
        self._sending = trio.Lock()
        self._events: deque[Event] = deque()
        self._last_id = 0

    async def open(self, *, as_agent: bool = False) -> None:
        """Waits for the greeting, and says what this client is.

        Args:
            as_agent: whether it answers requests.

        Raises:
            UserError: There is no ccidd, or none that takes an agent.
        """
        greeting = None
        with trio.move_on_after(_GREETING_TIME):
            greeting = await self.receive()
        if isinstance(greeting, Error):
            raise UserError(greeting.description)
        if not isinstance(greeting, Greeting):
            raise self._stranger("nobody greets")
        enabled = []
        if as_agent:
            if AGENT not in greeting.capabilities:
                raise UserError(
                    f"{self._path} takes no agents; use a control socket whose role has agent in it"
                )
            enabled = [AGENT]
        await self.execute("qmp_capabilities", {"enable": enabled} if enabled else {})

    async def execute(self, command: str, arguments: Mapping[str, JSON] | None = None) -> JSON:
        """Has a command executed, while no other task receives.

        Args:
            command: its name.
            arguments: its arguments.

        Returns:
            What it returns.

        Raises:
            UserError: It was not executed; the message is the server's.
        """
        number = await self.send(command, arguments)
        while True:
            message = await self._receive()
            if isinstance(message, Event):
                self._events.append(message)
            elif not isinstance(message, Greeting) and message.id == number:
                if isinstance(message, Error):
                    raise UserError(message.description)
                return message.value

    async def send(self, command: str, arguments: Mapping[str, JSON] | None = None) -> int:
        """Sends a command; gives the id that its response will have."""
        self._last_id += 1
        number = self._last_id
        data = self._connection.send(Request(command, arguments or {}, number))
        async with self._sending:
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError as error:
                raise self._ended() from error
        return number

    async def receive(self) -> Message:
        """Gives the next message; those events first that came while a command was executed.

        Raises:
            DisconnectedError: There is none any more.
            UserError: The server is none.
        """
        return self._events.popleft() if self._events else await self._receive()

    async def _receive(self) -> Message:
        try:
            while isinstance(message := self._connection.next_event(), NeedData):
                self._connection.receive_data(bytes(await self._stream.receive_some(_RECEIVE_SIZE)))
        except RemoteProtocolError as error:
            raise self._stranger(str(error)) from error
        except trio.BrokenResourceError as error:
            raise self._ended() from error
        if isinstance(message, ConnectionClosed):
            raise self._ended()
        return message

    def _ended(self) -> DisconnectedError:
        return DisconnectedError(f"ccidd at {self._path} has ended the connection")

    def _stranger(self, why: str) -> UserError:
        return UserError(
            f"{self._path} is no control socket of a ccidd ({why}); name the one of --control"
        )


@contextlib.asynccontextmanager
async def connected(path: Path, *, as_agent: bool = False) -> AsyncIterator[Client]:
    """Connects to a control socket.

    Args:
        path: the socket.
        as_agent: whether to be an agent.

    Raises:
        UserError: That is not possible; the message says what to do.
    """
    try:
        stream = await trio.open_unix_socket(path)
    except OSError as error:
        raise _unreachable(path, error) from error
    async with stream:
        client = Client(stream, path)
        await client.open(as_agent=as_agent)
        yield client


async def keep_connected(
    path: Path,
    serve: Callable[[Client], Awaitable[NoReturn]],
    tell: Callable[[str], None],
    *,
    as_agent: bool = False,
    reconnects: bool = False,
) -> NoReturn:
    """Serves one connection after another.

    Args:
        path: the socket.
        serve: serves a connection until it ends.
        tell: tells the person of connections.
        as_agent: whether to be an agent.
        reconnects: whether to wait for a ccidd that has ended to come back.

    Raises:
        UserError: There is no connection, or none any more.
    """
    was_connected = False
    last = ""
    while True:
        try:
            async with connected(path, as_agent=as_agent) as client:
                tell(f"connected to {path}")
                was_connected, last = True, ""
                await serve(client)
        except UserError as error:
            if not (reconnects and was_connected):
                raise
            if str(error) != last:
                tell(f"{error}; waiting for it to come back")
                last = str(error)
        await trio.sleep(RECONNECT_INTERVAL)


def _unreachable(path: Path, error: OSError) -> UserError:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return DisconnectedError(
                f"there is no control socket {path}; start ccidd with --control={path}, or say"
                " with --socket or $CCIDD_CONTROL where it is"
            )
        case errno.ECONNREFUSED if not path.is_socket():
            return UserError(f"{path} is no socket; name the one of ccidd's --control")
        case errno.ECONNREFUSED:
            return DisconnectedError(f"no ccidd listens at {path} any more; start it again")
        case errno.EACCES | errno.EPERM:
            return UserError(
                f"{path} is not for this user; who may use it is said by ccidd's"
                " --control=PATH,mode=...,group=..."
            )
        case _:
            return UserError(f"cannot connect to {path}: {error.strerror or error}")
