# SPDX-License-Identifier: Apache-2.0
"""A wire between QEMU and ccidd that tells what goes over it: usb redirection, decoded.

    async with wiretap(reader, workdir=tmp_path) as tap:
        devices = redirected(f"path={tap.path}")

Each connection of QEMU to the tap becomes one to the reader. What is said stands in `tap.said`, and
in a log.
"""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from ccid_protocol.usbredir import DEVICE_CAPABILITIES, NO_CAPABILITIES, Hello, Role, negotiate
from ccid_protocol.usbredir.codec import Codec
from harness.process import background_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
    from pathlib import Path

    from ccid_protocol.usbredir import Capability, Packet

_CHUNK: Final = 65536
_TYPE_SIZE: Final = 4


@dataclass(frozen=True)
class Said:
    """What one end said.

    Attributes:
        connection: Which connection of QEMU's, from 1 on.
        seconds: When, since the tap was opened.
        role: Who: QEMU is the guest, the reader the device.
        packet: What; None where the connection was closed.
    """

    connection: int
    seconds: float
    role: Role
    packet: Packet | None

    def __str__(self) -> str:
        text = f"{self.seconds:8.3f}  {self.connection}  {self.role.name.lower():6}  "
        if self.packet is None:
            return text + "closed"
        data = getattr(self.packet, "data", b"")
        return text + f"{self.packet}" + (f" {data[:32].hex()}" if data else "")


class Wiretap:
    """The wire; `wiretap` makes these.

    Attributes:
        path: The socket for QEMU.
        said: All that was said, on all connections.
    """

    def __init__(self, path: Path, reader: Path, log: Path) -> None:
        self.path: Final = path
        self.said: Final[list[Said]] = []
        self._reader = reader
        self._log = log
        self._connections = 0
        self._opened = trio.current_time()

    def packets(self, role: Role) -> list[Packet]:
        """Return what one end has said, on all connections."""
        return [said.packet for said in self.said if said.packet and said.role is role]

    async def relay(self, qemu: trio.SocketStream) -> None:
        """Serve one connection of QEMU's."""
        self._connections += 1
        connection = _Connection(partial(self._note, self._connections))
        async with qemu, await trio.open_unix_socket(self._reader) as reader:
            await connection.run({Role.GUEST: qemu, Role.DEVICE: reader})

    def _note(self, connection: int, role: Role, packet: Packet | None) -> None:
        said = Said(connection, trio.current_time() - self._opened, role, packet)
        self.said.append(said)
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{said}\n")


class _Connection:
    """One connection. Where no hello is said, it goes on with the capabilities of ccidd."""

    def __init__(self, note: Callable[[Role, Packet | None], None]) -> None:
        self._note = note
        self._received = {role: bytearray() for role in Role}
        self._hellos: dict[Role, Capability] = {}

    async def run(self, ends: Mapping[Role, trio.SocketStream]) -> None:
        """Pass on what each end says until one of them closes."""
        async with background_tasks() as tasks:

            async def pass_on(role: Role) -> None:
                await self._pass_on(role, ends[role], ends[role.peer])
                tasks.cancel_scope.cancel()

            tasks.start_soon(pass_on, Role.DEVICE)
            await pass_on(Role.GUEST)

    async def _pass_on(
        self, role: Role, source: trio.SocketStream, sink: trio.SocketStream
    ) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while data := bytes(await source.receive_some(_CHUNK)):
                self._received[role] += data
                for packet in self._packets(role):
                    self._note(role, packet)
                await sink.send_all(data)
        self._note(role, None)

    def _packets(self, role: Role) -> Iterator[Packet]:
        """Yield the packets that have come whole."""
        received = self._received[role]
        while len(received) >= _TYPE_SIZE:
            codec = Codec(self._capabilities if any(received[:_TYPE_SIZE]) else NO_CAPABILITIES)
            if len(received) < codec.header_size:
                return
            header = codec.decode_header(received, role)
            end = codec.header_size + header.length
            if len(received) < end:
                return
            packet = codec.decode(header, bytes(received[codec.header_size : end]), role)
            del received[:end]
            if isinstance(packet, Hello):
                self._hellos[role] = packet.capabilities
            yield packet

    @property
    def _capabilities(self) -> Capability:
        return negotiate(*self._hellos.values()) if self._hellos else DEVICE_CAPABILITIES


@asynccontextmanager
async def wiretap(reader: Path, *, workdir: Path) -> AsyncGenerator[Wiretap]:
    """Tap the way to a reader.

    Args:
        reader: The reader's socket.
        workdir: Gets the tap's socket and log, `tap-1` for the first.
    """
    number = 1 + len(list(workdir.glob("tap-*.log")))
    log = workdir / f"tap-{number}.log"
    log.touch()
    tap = Wiretap(workdir / f"tap-{number}.socket", reader, log)
    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(str(tap.path))
        listening.listen()
        async with background_tasks() as tasks:
            tasks.start_soon(trio.serve_listeners, tap.relay, [trio.SocketListener(listening)])
            yield tap
