# SPDX-License-Identifier: Apache-2.0
"""A server of the control socket's form whose answers are a script.

It is for what the real one never says; tests/ccidd/service/ctl/test_control.py has that one.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import trio
import trio.testing

from ccid_protocol.events import ConnectionClosed, NeedData
from ccid_protocol.qmp import (
    JSON,
    BadRequest,
    Error,
    ErrorClass,
    Event,
    Greeting,
    Request,
    Return,
    ServerConnection,
)
from ccidd.service.ctl.client import Client

Answer: TypeAlias = JSON | Error


@dataclass
class ScriptedControl:
    """The server.

    Attributes:
        answers: what each command returns; those that are not there are unknown.
        functions: instead, what says so, from its arguments.
        capabilities: what the greeting has.
        requests: what has come, but for what every connection begins with.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    functions: dict[str, Callable[[Mapping[str, JSON]], Answer]] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ("agent",)
    requests: list[tuple[str, Mapping[str, JSON]]] = field(default_factory=list)
    connections: int = 0
    _sending: trio.Lock = field(default_factory=trio.Lock)
    _arrived: trio.Event = field(default_factory=trio.Event)
    _streams: dict[trio.abc.Stream, ServerConnection] = field(default_factory=dict)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serves one client."""
        connection = ServerConnection()
        await stream.send_all(connection.send(Greeting({"package": "test"}, self.capabilities)))
        self.connections += 1
        self._streams[stream] = connection
        try:
            while True:
                match event := connection.next_event():
                    case NeedData():
                        connection.receive_data(bytes(await stream.receive_some()))
                    case ConnectionClosed():
                        return
                    case BadRequest():
                        raise AssertionError(event)
                    case Request():
                        async with self._sending:
                            await stream.send_all(connection.send(self._answer(event)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            del self._streams[stream]

    async def emit(self, name: str, **data: JSON) -> None:
        """Tells all clients of an event."""
        for stream, connection in list(self._streams.items()):
            named = {key.replace("_", "-"): value for key, value in data.items()}
            async with self._sending:
                await stream.send_all(connection.send(Event(name, named, 1764042123, 456789)))

    async def hang_up(self) -> None:
        """Ends all connections."""
        for stream in list(self._streams):
            await stream.aclose()

    async def received(self, command: str) -> Mapping[str, JSON]:
        """Waits for a command; gives its arguments."""
        while True:
            for name, arguments in self.requests:
                if name == command:
                    self.requests.remove((name, arguments))
                    return arguments
            self._arrived = trio.Event()
            await self._arrived.wait()

    def _answer(self, request: Request) -> Return | Error:
        self.requests.append((request.execute, request.arguments))
        self._arrived.set()
        default: Answer = {} if request.execute == "qmp_capabilities" else _UNKNOWN
        value = self.answers.get(request.execute, default)
        if request.execute in self.functions:
            value = self.functions[request.execute](request.arguments)
        if isinstance(value, Error):
            return Error(value.error_class, value.description, request.id)
        return Return(value, request.id)


_UNKNOWN = Error(ErrorClass.COMMAND_NOT_FOUND, "there is no command of this name")


@contextlib.asynccontextmanager
async def listening(
    path: Path, serve: Callable[[trio.SocketStream], Awaitable[object]]
) -> AsyncIterator[None]:
    """Has a socket served; its file goes at the end."""
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(str(path))
    listener.listen(8)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listener)])
            yield
            nursery.cancel_scope.cancel()
    finally:
        path.unlink()


@contextlib.asynccontextmanager
async def connected_to(
    control: ScriptedControl, *, as_agent: bool = False
) -> AsyncIterator[Client]:
    """A client of a server in the same process."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(control.serve, theirs)
        client = Client(ours, Path("control.sock"))
        await client.open(as_agent=as_agent)
        yield client
        await ours.aclose()
