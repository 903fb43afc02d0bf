# SPDX-License-Identifier: Apache-2.0
"""QEMU's end of a usbredir connection: usb-redir without a virtual machine.

qemu-integration/test_usbredir_peer.py holds it against the real one.
"""

import itertools
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Self, TypeVar

import trio

from ccid_protocol import usbredir
from ccid_protocol.events import ConnectionClosed, NeedData
from ccid_protocol.usb import SetupPacket
from ccid_protocol.usbredir import (
    BulkPacket,
    ConfigurationStatus,
    ControlPacket,
    DeviceConnect,
    DeviceDisconnect,
    DeviceDisconnectAck,
    InterruptPacket,
    Packet,
    Reset,
    Role,
    Session,
    SetConfiguration,
    StartInterruptReceiving,
    Status,
)

GET_DEVICE_DESCRIPTOR = SetupPacket(0x80, 6, 0x0100, 0, 8)
BULK_OUT, BULK_IN, INTERRUPT_IN = 0x01, 0x82, 0x83

_PATIENCE = 1000
"""Seconds of a clock that jumps."""

_Packet = TypeVar("_Packet", bound=Packet)


class UsbredirPeer:
    """Says what QEMU says by itself, and what the test has the guest's driver say.

    Args:
        stream: the connection.
        session: one that goes on after a migration, so that there is no hello.
    """

    def __init__(self, stream: trio.abc.Stream, session: Session | None = None) -> None:
        self._stream = stream
        self.connection = usbredir.Connection(Role.GUEST, previous=session)
        if session is not None:
            self.connection.resume()
        self._ids = itertools.count(0x1_0000_0000)
        self._seen: deque[Packet] = deque()
        self._progress = trio.Event()
        self._sending = trio.Lock()
        self.closed = False

    async def run(self) -> None:
        """Begins, reads and answers until the device closes the connection."""
        if not self.connection.is_open:
            await self.send(self.connection.hello)
        while not self.closed:
            try:
                self.connection.receive_data(bytes(await self._stream.receive_some(65536)))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # Be it within a packet: it is broken, or the test has closed it.
                self.closed = True
            while not self.closed:
                event = self.connection.next_event()
                if isinstance(event, NeedData):
                    break
                if isinstance(event, ConnectionClosed):
                    self.closed = True
                    break
                assert isinstance(event, Packet)
                self._seen.append(event)
                await self._react(event)
            self._progress.set()
            self._progress = trio.Event()

    async def _react(self, packet: Packet) -> None:
        if isinstance(packet, DeviceConnect):
            await self.send(Reset())
            await self.send(self.control_packet(GET_DEVICE_DESCRIPTOR))
        elif isinstance(packet, DeviceDisconnect):
            # Nobody waits for it.
            with suppress(trio.BrokenResourceError):
                await self.send(DeviceDisconnectAck())

    def control_packet(self, setup: SetupPacket) -> ControlPacket:
        return ControlPacket(
            next(self._ids),
            setup.request_type & 0x80,
            setup.request,
            setup.request_type,
            setup.value,
            setup.index,
            setup.length,
        )

    async def send(self, packet: Packet) -> None:
        await self.write(self.connection.send(packet))

    async def write(self, data: bytes) -> None:
        """Writes bytes, be it such as no QEMU would, behind those that are being written."""
        async with self._sending:
            await self._stream.send_all(data)

    async def close(self) -> None:
        await self._stream.aclose()

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits until a condition holds, looking after each piece that arrives."""
        while not condition():
            await self._progress.wait()

    async def expect(self, kind: type[_Packet]) -> _Packet:
        """Gives the next packet of a kind; those before it are forgotten."""
        with trio.fail_after(_PATIENCE):
            while True:
                await self.until(lambda: self._seen or self.closed)
                packet = self._seen.popleft()
                if isinstance(packet, kind):
                    return packet

    def nothing_came(self) -> bool:
        return not self._seen

    # What the guest's driver does.

    async def configure(self) -> Self:
        """Takes the device from its connection to its configuration."""
        await self.expect(DeviceConnect)
        await self.expect(ControlPacket)
        await self.send(SetConfiguration(next(self._ids), 1))
        assert (await self.expect(ConfigurationStatus)).configuration == 1
        return self

    async def control(self, setup: SetupPacket) -> bytes | None:
        """Gives the data of a control transfer, None for a STALL."""
        await self.send(self.control_packet(setup))
        answer = await self.expect(ControlPacket)
        return answer.data if answer.status == Status.SUCCESS else None

    async def bulk_out(self, data: bytes) -> int:
        """Gives the status of a bulk-OUT transfer."""
        await self.send(BulkPacket(next(self._ids), BULK_OUT, data=data))
        return (await self.expect(BulkPacket)).status

    async def read(self, size: int = 65556, *, endpoint: int = BULK_IN) -> int:
        """Asks for bulk-IN data; gives the id of the request."""
        number = next(self._ids)
        await self.send(BulkPacket(number, endpoint, size))
        return number

    async def bulk_in(self, size: int = 65556) -> bytes:
        await self.read(size)
        return (await self.expect(BulkPacket)).data

    async def listen(self) -> None:
        await self.send(StartInterruptReceiving(0, INTERRUPT_IN))

    async def notification(self) -> bytes:
        return (await self.expect(InterruptPacket)).data
