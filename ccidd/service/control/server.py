# SPDX-License-Identifier: Apache-2.0
"""Control sockets, and the clients at them."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
import trio

from ccid_protocol.qmp import Error, ErrorClass, ServerConnection
from ccidd.errors import UserError
from ccidd.service.allow import group_number
from ccidd.service.control.commands import REGISTRY
from ccidd.service.control.context import Context
from ccidd.service.control.options import ControlOptions
from ccidd.service.control.roles import Role
from ccidd.service.control.session import Session
from ccidd.service.service import Service
from ccidd.service.state import State
from ccidd.transport.endpoint import Listener, adopt, listen
from ccidd.transport.sockets import peer_name

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_CLIENTS: Final = 16
"""How many clients a socket has at a time; more are told so and sent away."""

_LAST_WORDS: Final = 1.0
"""Seconds that clients have in the end to read what they are told."""


@dataclass(slots=True, eq=False)
class ControlSocket:
    """A control socket.

    Attributes:
        roles: what it is for.
        listener: where clients connect.
        sessions: those who are connected.
    """

    roles: Role
    listener: Listener | None = None
    sessions: list[Session] = field(default_factory=list)

    def make_room(self) -> bool:
        """Gives up the oldest client that does nothing, and tells whether there is one."""
        for session in self.sessions:
            if session.is_idle:
                session.give_up()
                self.sessions.remove(session)
                return True
        return False


class ControlServer:
    """The control sockets of a service.

    Args:
        sockets: which there are to be.
        service: what is seen and told what to do.
        state: what its cards remember.

    Attributes:
        sockets: those that are open.
    """

    def __init__(self, sockets: Sequence[ControlOptions], service: Service, state: State) -> None:
        self._options = sockets
        self._service = service
        self._state = state
        self.sockets: Final[list[ControlSocket]] = []
        self._started = 0.0

    def listen(self) -> None:
        """Opens the sockets, within the event loop.

        Raises:
            UserError: One cannot be opened.
        """
        self._started = trio.current_time()
        for options in self._options:
            self.sockets.append(ControlSocket(options.roles, _open(options)))

    def close(self) -> None:
        """Closes the sockets, and removes their files."""
        for socket in self.sockets:
            if socket.listener is not None:
                socket.listener.close()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves clients until it is cancelled.

        Args:
            task_status: started as soon as clients can connect.
        """
        async with trio.open_nursery() as nursery:
            for socket in self.sockets:
                assert socket.listener is not None
                serve = partial(self.serve, socket)
                await nursery.start(trio.serve_listeners, serve, socket.listener.listeners)
            task_status.started()

    async def serve(self, socket: ControlSocket, stream: trio.abc.Stream) -> None:
        """Serves a client; whoever made the stream closes it.

        Args:
            socket: where it has connected.
            stream: to and from the client.
        """
        structlog.contextvars.clear_contextvars()
        if isinstance(stream, trio.SocketStream):
            structlog.contextvars.bind_contextvars(client=peer_name(stream.socket))
        if len(socket.sessions) >= MAX_CLIENTS and not socket.make_room():
            await _refuse(stream)
            return
        context = Context(self._service, self._state, REGISTRY, self._started, socket.roles)
        session = Session(stream, context)
        socket.sessions.append(session)
        try:
            log.debug("control_opened")
            await session.run()
        except Exception:
            # A fault of ours costs one client its connection.
            log.exception("control_fault")
        finally:
            if session in socket.sessions:
                socket.sessions.remove(session)
            log.debug("control_closed")

    async def settle(self) -> None:
        """Waits until clients have read what they are to be told, but not for long."""
        with trio.move_on_after(_LAST_WORDS):
            async with trio.open_nursery() as nursery:
                for socket in self.sockets:
                    for session in socket.sessions:
                        nursery.start_soon(session.settle)


def _open(options: ControlOptions) -> Listener:
    if options.path is not None:
        group = None if options.group is None else group_number(options.group)
        return listen(options.path, options.mode, group)
    assert options.fd is not None
    adopted = adopt(options.fd)
    if not isinstance(adopted, Listener):
        adopted.close()
        raise UserError(f"file descriptor {options.fd} cannot be a control socket: not listening")
    return adopted


async def _refuse(stream: trio.abc.Stream) -> None:
    log.warning("control_refused", clients=MAX_CLIENTS)
    error = Error(
        ErrorClass.GENERIC_ERROR,
        f"{MAX_CLIENTS} clients are connected to this socket, and it takes no more",
    )
    with contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(ServerConnection().send(error))
