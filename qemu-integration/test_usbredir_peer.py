# SPDX-License-Identifier: Apache-2.0
"""The emulated usb-redir of the unit tests, held against QEMU itself.

Both get the same packets of a device and must say the same to it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from ccid_protocol import usbredir
from ccid_protocol.events import NeedData
from ccid_protocol.usb import SetupPacket
from ccid_protocol.usbredir import (
    GUEST_CAPABILITIES,
    ControlPacket,
    DeviceConnect,
    DeviceDisconnect,
    DeviceDisconnectAck,
    Endpoint,
    EndpointType,
    EpInfo,
    Hello,
    Interface,
    InterfaceInfo,
    Reset,
    Role,
    Speed,
)
from harness.bare import bare_qemu
from harness.ccidd import redirected
from usbredir_peer import GET_DEVICE_DESCRIPTOR, UsbredirPeer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from ccid_protocol.usbredir import Packet
    from harness.qemu import Qemu

CONTROL = Endpoint(EndpointType.CONTROL, max_packet_size=64)
DEVICE: tuple[Packet, ...] = (
    InterfaceInfo((Interface(0, 0x0B),)),
    EpInfo({0x00: CONTROL, 0x80: CONTROL, 0x82: Endpoint(EndpointType.BULK, 0, 0, 64)}),
    DeviceConnect(Speed.FULL, 0, 0, 0, 0x0E0F, 0x0004, 0x0100),
)


def real_qemu(qemu: Qemu, directory: Path) -> AbstractAsyncContextManager[trio.abc.Stream]:
    return bare_qemu(qemu, directory, redirected)


@asynccontextmanager
async def emulated_qemu(_qemu: Qemu, _directory: Path) -> AsyncGenerator[trio.abc.Stream]:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(UsbredirPeer(theirs).run)
        yield ours
        nursery.cancel_scope.cancel()


class Device:
    """A device that answers nothing, and hears what the guest says."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._connection = usbredir.Connection(Role.DEVICE)

    async def say(self, packet: Packet) -> None:
        await self._stream.send_all(self._connection.send(packet))

    async def say_hello(self) -> None:
        await self.say(self._connection.hello)

    async def hears(self) -> usbredir.Event:
        while isinstance(event := self._connection.next_event(), NeedData):
            self._connection.receive_data(bytes(await self._stream.receive_some(4096)))
        return event


@pytest.mark.parametrize("connected", [real_qemu, emulated_qemu])
async def test_a_device_is_greeted_reset_asked_for_its_descriptor_and_let_go(
    connected: Callable[[Qemu, Path], AbstractAsyncContextManager[trio.abc.Stream]],
    qemu: Qemu,
    tmp_path: Path,
) -> None:
    with trio.fail_after(60):
        async with connected(qemu, tmp_path) as stream:
            device = Device(stream)
            hello = await device.hears()
            assert isinstance(hello, Hello)
            assert hello.capabilities == GUEST_CAPABILITIES
            await device.say_hello()
            for packet in DEVICE:
                await device.say(packet)
            assert isinstance(await device.hears(), Reset)
            while isinstance(request := await device.hears(), Reset):
                pass
            assert isinstance(request, ControlPacket)
            assert request.endpoint == 0x80
            asked = SetupPacket(
                request.requesttype, request.request, request.value, request.index, request.length
            )
            assert asked == GET_DEVICE_DESCRIPTOR
            await device.say(DeviceDisconnect())
            while not isinstance(heard := await device.hears(), DeviceDisconnectAck):
                assert isinstance(heard, Reset)
