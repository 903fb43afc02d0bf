# SPDX-License-Identifier: Apache-2.0
"""JSON messages, one a line: what QMP and the guest's agent both speak."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import trio

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Mapping

_CHUNK = 65536

Message = dict[str, object]


class JsonLines:
    """A connected socket that carries a JSON object a line, each way."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
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
            await self._stream.send_all(data)
            self._cut_short = False

    async def received(self) -> AsyncIterator[Message]:
        """Yield messages until the peer is gone; a line that is no object is left out."""
        waiting = bytearray()
        while True:
            try:
                chunk = await self._stream.receive_some(_CHUNK)
            except trio.BrokenResourceError:
                return
            if not chunk:
                return
            waiting += chunk
            *lines, waiting = waiting.split(b"\n")
            for line in lines:
                message = _message(line)
                if message is not None:
                    yield message

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()


def _message(line: bytes | bytearray) -> Message | None:
    """Return the object of a line, or None where a guest was reset in the middle of it."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return cast("Message", value) if isinstance(value, dict) else None
