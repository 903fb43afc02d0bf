# SPDX-License-Identifier: Apache-2.0
"""One client of a control socket.

Source: QEMU, docs/interop/qmp-spec.rst, "Protocol Specification" and "Capabilities Negotiation".

Commands are executed one after the other, each to its end, also if the client has gone meanwhile.
What the client does not read holds up itself alone: its next command waits, and of the events it
loses the oldest, which it is told (EVENTS_LOST).
"""

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final, assert_never

import structlog
import trio

from ccid_protocol.errors import RemoteProtocolError
from ccid_protocol.events import ConnectionClosed, NeedData
from ccid_protocol.qmp import (
    BadRequest,
    Error,
    ErrorClass,
    Event,
    Greeting,
    Message,
    Request,
    Return,
    ServerConnection,
)
from ccidd.errors import UserError
from ccidd.service import events
from ccidd.service.control.commands.basics import qmp_capabilities, version
from ccidd.service.control.context import Context
from ccidd.service.control.errors import CommandError
from ccidd.service.control.registry import Command
from ccidd.service.control.roles import Role
from ccidd.service.control.shapes import to_json

log: structlog.stdlib.BoundLogger = structlog.get_logger()

AGENT: Final = "agent"
"""The capability with which a client says that it answers requests."""

_RECEIVE_SIZE: Final = 1 << 14

_PATIENCE: Final = 10.0
"""Seconds after which a client that has not negotiated may have to make room."""


class Session:
    """A connection.

    Args:
        stream: to and from the client; whoever made it closes it.
        context: what commands work with.
    """

    def __init__(self, stream: trio.abc.Stream, context: Context) -> None:
        self._stream = stream
        self._context = context
        self._connection = ServerConnection()
        self._executing = trio.Lock()
        self._sending = trio.Lock()
        self._subscription: events.Subscription | None = None
        self._is_agent = False
        self._scope = trio.CancelScope()
        self._since = trio.current_time()
        self._resources = contextlib.ExitStack()

    async def run(self) -> None:
        """Serves the client until it closes the connection, or breaks the protocol."""
        with self._resources, self._scope:
            async with trio.open_nursery() as nursery:
                try:
                    await self._greet()
                    await self._serve(nursery)
                except RemoteProtocolError as error:
                    log.warning("control_protocol_error", reason=f"{error}")
                    with contextlib.suppress(trio.BrokenResourceError):
                        await self._send(Error(ErrorClass.GENERIC_ERROR, f"{error}"))
                except trio.BrokenResourceError:
                    # It has gone without reading all.
                    pass
                nursery.cancel_scope.cancel()

    @property
    def is_idle(self) -> bool:
        """Whether the client has long been there and has not negotiated, as each does at once."""
        waits = trio.current_time() - self._since
        return self._subscription is None and waits > _PATIENCE

    def give_up(self) -> None:
        """Ends the session, for somebody who is more in earnest."""
        self._scope.cancel()

    async def settle(self) -> None:
        """Waits until the command is answered and all events are told; no other is executed."""
        await self._executing.acquire()
        while self._subscription is not None and self._subscription.waiting:
            async with self._sending:
                await trio.lowlevel.checkpoint()

    async def _greet(self) -> None:
        described = to_json(version())
        assert isinstance(described, Mapping)
        await self._send(Greeting(described, self._capabilities))

    @property
    def _capabilities(self) -> Sequence[str]:
        return [AGENT] if Role.AGENT in self._context.roles else []

    async def _serve(self, nursery: trio.Nursery) -> None:
        while True:
            match event := self._connection.next_event():
                case NeedData():
                    data = await self._stream.receive_some(_RECEIVE_SIZE)
                    self._connection.receive_data(bytes(data))
                case ConnectionClosed():
                    return
                case BadRequest(description, request_id):
                    await self._send(Error(ErrorClass.GENERIC_ERROR, description, request_id))
                case Request():
                    async with self._executing:
                        await self._execute(event, nursery)
                case _:
                    assert_never(event)

    async def _execute(self, request: Request, nursery: trio.Nursery) -> None:
        response: Message
        begins = False
        try:
            command = self._context.registry.command(request.execute, self._context.roles)
            arguments = command.check(request.arguments)
            begins = self._begins_with(command, arguments)
            value = None if begins else await self._run(command, arguments)
            response = Return({} if value is None else to_json(value), request.id)
        except CommandError as error:
            response = Error(error.error_class, f"{error}", request.id)
        except UserError as error:
            response = Error(ErrorClass.GENERIC_ERROR, f"{error}", request.id)
        except (OSError, sqlite3.Error) as error:
            log.warning("control_command_failed", command=request.execute, reason=f"{error}")
            response = Error(ErrorClass.GENERIC_ERROR, f"this cannot be done: {error}", request.id)
        except Exception:
            # A fault of ours costs this command its result, and nobody anything else.
            log.exception("control_command_fault", command=request.execute)
            description = "ccidd has failed at this; its log says why"
            response = Error(ErrorClass.GENERIC_ERROR, description, request.id)
        if begins:
            # What happens from now on is told after the response.
            service = self._context.service
            self._subscription = self._resources.enter_context(service.events.subscribe())
            if self._is_agent:
                self._resources.enter_context(service.requests.agent())
        await self._send(response)
        if self._subscription is not None and begins:
            nursery.start_soon(self._tell, self._subscription)

    def _begins_with(self, command: Command, arguments: Mapping[str, object]) -> bool:
        """Whether this is the command that the session begins with.

        Raises:
            CommandError: It should be, and is not.
        """
        if self._subscription is not None:
            return False
        if command is not qmp_capabilities:
            raise CommandError(
                "the first command is to be qmp_capabilities", ErrorClass.COMMAND_NOT_FOUND
            )
        enable = arguments.get("enable", ())
        assert isinstance(enable, Sequence)
        if not set(enable) <= set(self._capabilities):
            raise CommandError("this socket does not have such a capability; its greeting has all")
        self._is_agent = AGENT in enable
        return True

    async def _run(self, command: Command, arguments: Mapping[str, object]) -> object:
        """Executes a command; what it is told is no matter of the log."""
        is_query = bool(command.roles & Role.OBSERVE)
        if self._context.service.is_over and not is_query:
            raise CommandError("ccidd is about to end")
        if not is_query:
            log.info("control_command", command=command.name)
        return await command.handler(self._context, **arguments)

    async def _tell(self, subscription: events.Subscription) -> None:
        """Tells the client of events."""
        lost = 0
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                event = await subscription.next()
                if subscription.lost > lost:
                    count, lost = subscription.lost - lost, subscription.lost
                    await self._send(
                        _message(events.Event("EVENTS_LOST", {"count": count}, event.time))
                    )
                if self._context.registry.is_told(event.name, self._context.roles):
                    await self._send(_message(event))

    async def _send(self, message: Message) -> None:
        async with self._sending:
            await self._stream.send_all(self._connection.send(message))


def _message(event: events.Event) -> Event:
    seconds = int(event.time)
    return Event(event.name, event.data, seconds, int((event.time - seconds) * 1_000_000))
