# SPDX-License-Identifier: Apache-2.0
"""JSON messages, one a line: what QMP and the guest's agent both speak."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import trio

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

_CHUNK = 65536

Message = dict[str, object]


class JsonLines:
    """A connected socket that carries a JSON object a line, each way."""

    def __init__(self, sock: socket.socket) -> None:
        # Received from the first, to its end; sent to the last.
        self._streams = deque([_stream(sock)])
        self._sending = trio.Lock()
        self._cut_short = False

    async def send(self, message: Mapping[str, object]) -> None:
        """Send one message.

        Raises:
            trio.BrokenResourceError: The peer is gone.
        """
        data = json.dumps(message).encode() + b"\n"
        async with self._sending:
            if self._cut_short:
                # What a cancelled call left behind becomes a line of its own, and no message.
                data = b"\n" + data
            self._cut_short = True
            await self._streams[-1].send_all(data)
            self._cut_short = False

    async def received(self) -> AsyncIterator[Message]:
        """Yield messages until the peer is gone; a line that is no object is left out."""
        waiting = bytearray()
        while True:
            chunk = await self._receive()
            if not chunk:
                return
            waiting += chunk
            *lines, waiting = waiting.split(b"\n")
            for line in lines:
                message = _message(line)
                if message is not None:
                    yield message

    @asynccontextmanager
    async def moving(self) -> AsyncGenerator[Callable[[socket.socket], None]]:
        """Hold back what is sent while the peer moves to another socket.

        The block calls what it is given with that socket as soon as the peer reads there. What the
        peer wrote to the first socket, perhaps half a line, is received to its end first.
        """

        def moved(sock: socket.socket) -> None:
            self._streams.append(_stream(sock))

        async with self._sending:
            yield moved

    async def aclose(self) -> None:
        """Close the socket."""
        for stream in self._streams:
            await stream.aclose()

    async def _receive(self) -> bytes:
        """Return what came, or nothing when the peer is gone and has not moved."""
        while True:
            chunk = b""
            with contextlib.suppress(trio.BrokenResourceError):
                chunk = bytes(await self._streams[0].receive_some(_CHUNK))
            if chunk or len(self._streams) == 1:
                return chunk
            await self._streams.popleft().aclose()


def _stream(sock: socket.socket) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


def _message(line: bytes | bytearray) -> Message | None:
    """Return the object of a line, or None where a guest was reset in the middle of it."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return cast("Message", value) if isinstance(value, dict) else None
