# SPDX-License-Identifier: Apache-2.0
"""A TCP connection on which neither end waits for the other's acknowledgements.

QEMU's ccid-card-passthru writes a message's header and its payload apart. Unless its chardev has
`nodelay=on`, its TCP holds the payload back until the header is acknowledged (Nagle's algorithm),
and the kernel at the other end would do that 40 ms later. Here it acknowledges at once.

Source: tcp(7), TCP_NODELAY, TCP_KEEPIDLE and TCP_QUICKACK, which "is not permanent": the kernel
goes back to delayed acknowledgements by itself, after it has sent data of ours for one.
"""

import socket
from typing import Final

import trio

KEEPALIVE_IDLE: Final = 30
"""Seconds of silence after which the peer's host is asked whether it is still there."""

KEEPALIVE_INTERVAL: Final = 10
"""Seconds until it is asked again."""

KEEPALIVE_COUNT: Final = 3
"""How often it is asked before the connection is given up, and others get their turn."""


class PromptStream(trio.abc.Stream):
    """A TCP connection that acknowledges at once what it receives, and sends without delay.

    It breaks when the peer's host is gone.

    Args:
        stream: the connection; it is closed with this.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        # trio sets it too, but does not promise that.
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
        self._acknowledge_at_once()

    @property
    def socket(self) -> trio.socket.SocketType:
        """The connection's socket."""
        return self._stream.socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream.send_all`."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream.wait_send_all_might_not_block`."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See `trio.abc.ReceiveStream.receive_some`."""
        data = await self._stream.receive_some(max_bytes)
        self._acknowledge_at_once()
        return data

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource.aclose`."""
        await self._stream.aclose()

    def _acknowledge_at_once(self) -> None:
        # An acknowledgement that is waiting to be sent goes with this, too.
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def prompt(stream: trio.SocketStream) -> trio.abc.Stream:
    """Gives a connection that acknowledges at once, if it is one over TCP; else the same."""
    is_tcp = stream.socket.family in {socket.AF_INET, socket.AF_INET6}
    return PromptStream(stream) if is_tcp else stream
