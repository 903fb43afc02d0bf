# SPDX-License-Identifier: Apache-2.0
"""A client of control sockets."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair

from ccid_protocol.events import ConnectionClosed, NeedData
from ccid_protocol.qmp import JSON, ClientConnection, Error, Event, Greeting, Message, Request
from ccidd.service.control.commands import REGISTRY
from ccidd.service.control.roles import DEFAULT, Role
from ccidd.service.control.server import ControlServer, ControlSocket
from ccidd.service.control.shapes import from_json
from ccidd.service.service import Service
from ccidd.service.state import State


class CommandFailedError(Exception):
    """The server answered with an error."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.description)
        self.error_class = error.error_class


class ControlClient:
    """A client at one end of a stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.connection = ClientConnection()
        self.events: list[Event] = []
        self._last_id = 0

    async def receive(self) -> Message | ConnectionClosed:
        while isinstance(message := self.connection.next_event(), NeedData):
            try:
                data = bytes(await self.stream.receive_some(65536))
            except trio.BrokenResourceError:
                # The server closed with bytes of ours unread.
                data = b""
            self.connection.receive_data(data)
        if isinstance(message, Event):
            check_event(message)
        return message

    async def begin(self, *capabilities: str) -> Greeting:
        greeting = await self.receive()
        assert isinstance(greeting, Greeting)
        assert await self.execute("qmp_capabilities", enable=list(capabilities)) == {}
        return greeting

    async def execute(self, command: str, **arguments: JSON) -> JSON:
        """Executes a command; an underscore in the name of an argument stands for a hyphen."""
        return await self.execute_with(
            command, {name.replace("_", "-"): value for name, value in arguments.items()}
        )

    async def execute_with(self, command: str, arguments: Mapping[str, JSON]) -> JSON:
        self._last_id += 1
        request = Request(command, arguments, self._last_id)
        await self.stream.send_all(self.connection.send(request))
        while isinstance(message := await self.receive(), Event):
            self.events.append(message)
        assert not isinstance(message, ConnectionClosed | Greeting)
        assert message.id == self._last_id
        if isinstance(message, Error):
            raise CommandFailedError(message)
        return message.value

    async def query(self, command: str, **arguments: JSON) -> Sequence[Mapping[str, JSON]]:
        """Executes a command that returns a list of objects."""
        value = await self.execute(command, **arguments)
        assert isinstance(value, list)
        return value

    async def event(self, name: str) -> Mapping[str, JSON]:
        """Waits for an event, passing over others, and gives its data."""
        while True:
            if not self.events:
                message = await self.receive()
                assert isinstance(message, Event)
                self.events.append(message)
            event = self.events.pop(0)
            if event.name == name:
                return event.data


def check_event(event: Event) -> None:
    """Holds an event against what the registry says of it."""
    members = {each.name: each for each in REGISTRY.events[event.name].data}
    assert event.data.keys() <= members.keys()
    for name, member in members.items():
        if name in event.data and event.data[name] is not None:
            from_json(member.type, event.data[name], name)
        else:
            assert not member.is_required


async def connect(path: Path) -> trio.SocketStream:
    """Connects to a socket, as soon as somebody listens there."""
    with trio.fail_after(60):
        while True:
            stream = None
            try:
                stream = await trio.open_unix_socket(str(path))
                # Where too many wait already, trio gives one that is not connected.
                stream.socket.getpeername()
            except OSError:
                if stream is not None:
                    await trio.aclose_forcefully(stream)
                await trio.sleep(0.02)
            else:
                return stream


@asynccontextmanager
async def controlled(
    service: Service, state: State, roles: Role = DEFAULT
) -> AsyncIterator["Clients"]:
    """Gives clients of a service that runs until the end of the block."""
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        yield Clients(nursery, ControlServer([], service, state), roles)
        nursery.cancel_scope.cancel()


class Clients:
    """The clients of a control socket that is in memory."""

    def __init__(self, nursery: trio.Nursery, server: ControlServer, roles: Role) -> None:
        self._nursery = nursery
        self.server = server
        self.socket = ControlSocket(roles)
        server.sockets.append(self.socket)

    def new(self, *, holds_back: bool = False) -> ControlClient:
        """Gives one that has heard nothing yet.

        Args:
            holds_back: whether the server waits for what it sends to be read.
        """
        ours, theirs = lockstep_stream_pair() if holds_back else memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ControlClient(ours)

    async def begun(self) -> ControlClient:
        """Gives one that has begun its session."""
        client = self.new()
        await client.begin()
        return client

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            await self.server.serve(self.socket, stream)
