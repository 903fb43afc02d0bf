# SPDX-License-Identifier: Apache-2.0
"""A wire between QEMU and ccidd that spoils what QEMU says, and lets pass what ccidd says.

    async with noisy_wire(reader, path, random.Random(1)) as wire:
        devices = redirected(f"path={path},{qemu.reconnect(1)}")

Each connection of QEMU to the wire becomes one to the reader. It is spoilt from some moment on, and
cut after some time. What is done is told by the random numbers, and by when QEMU says what.
"""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from harness.process import background_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path
    from random import Random

_CHUNK: Final = 65536
_WAYS: Final = ("flip", "drop", "double", "insert", "swap", "delay")
_MAX_GOOD_CHUNKS: Final = 25
_SPOILT: Final = 0.4
"""The part of the chunks that are spoilt, once it has begun."""
_MAX_DELAY: Final = 0.3
_MAX_SECONDS: Final = 4.0


class NoisyWire:
    """The wire; `noisy_wire` makes these.

    Attributes:
        is_honest: Whether it spoils and cuts nothing from now on, on connections old and new.
        connections: How many there were.
        spoilt: How many chunks were spoilt.
    """

    def __init__(self, reader: Path, random: Random) -> None:
        self._reader = reader
        self._random = random
        self._cut = trio.Event()
        self.is_honest = False
        self.connections = 0
        self.spoilt = 0

    def cut(self) -> None:
        """End the connection that there is."""
        self._cut.set()
        self._cut = trio.Event()

    async def relay(self, qemu: trio.SocketStream) -> None:
        """Serve one connection of QEMU's."""
        self.connections += 1
        async with (
            qemu,
            await trio.open_unix_socket(self._reader) as reader,
            background_tasks() as tasks,
        ):
            tasks.start_soon(self._end, tasks.cancel_scope)
            tasks.start_soon(self._pass_on, reader, qemu, tasks.cancel_scope)
            await self._spoil(qemu, reader)

    async def _end(self, connection: trio.CancelScope) -> None:
        with trio.move_on_after(self._random.uniform(0, _MAX_SECONDS)) as wait:
            await self._cut.wait()
        if wait.cancelled_caught and self.is_honest:
            await self._cut.wait()
        connection.cancel()

    async def _pass_on(
        self, reader: trio.SocketStream, qemu: trio.SocketStream, connection: trio.CancelScope
    ) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while data := await reader.receive_some(_CHUNK):
                await qemu.send_all(data)
        connection.cancel()

    async def _spoil(self, qemu: trio.SocketStream, reader: trio.SocketStream) -> None:
        good = self._random.randrange(_MAX_GOOD_CHUNKS)
        held = b""
        with contextlib.suppress(trio.BrokenResourceError):
            while data := bytes(await qemu.receive_some(_CHUNK)):
                good -= 1
                if not (self.is_honest or good > 0) and self._random.random() < _SPOILT:
                    self.spoilt += 1
                    way = self._random.choice(_WAYS)
                    if way == "swap" and not held:
                        held = data
                        continue
                    if way == "delay":
                        await trio.sleep(self._random.uniform(0, _MAX_DELAY))
                    data = spoil(data, way, self._random)
                await reader.send_all(data + held)
                held = b""


def spoil(data: bytes, way: str, random: Random) -> bytes:
    """Return bytes with something wrong; with some ways, nothing is."""
    begin = random.choice([0, random.randrange(len(data))])
    end = random.choice([len(data), random.randrange(begin, len(data)) + 1])
    before, within, behind = data[:begin], data[begin:end], data[end:]
    match way:
        case "flip":
            return before + bytes([within[0] ^ random.randrange(1, 256)]) + within[1:] + behind
        case "drop":
            return before + behind
        case "double":
            return before + within + within + behind
        case "insert":
            return before + random.randbytes(random.randrange(1, 40)) + within + behind
        case _:
            return data


@asynccontextmanager
async def noisy_wire(reader: Path, path: Path, random: Random) -> AsyncGenerator[NoisyWire]:
    """Lay a noisy wire to a reader.

    Args:
        reader: The reader's socket.
        path: The socket for QEMU.
        random: Decides what goes wrong.
    """
    wire = NoisyWire(reader, random)
    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(str(path))
        listening.listen()
        async with background_tasks() as tasks:
            tasks.start_soon(trio.serve_listeners, wire.relay, [trio.SocketListener(listening)])
            yield wire
