# SPDX-License-Identifier: Apache-2.0
"""ccidd's reader at a usbredir port, before emulated QEMUs."""

from collections.abc import Awaitable, Callable

import trio
import trio.testing

from cards import ScriptedCard
from ccid_protocol import ccid
from ccid_protocol.usbredir import Session, Status
from ccidd.reader.profile import default_profile
from ccidd.reader.slot import Slot
from ccidd.reader.usb_reader import UsbReader
from ccidd.transport.usbredir import UsbredirPort
from usbredir_peer import UsbredirPeer

OK = b"\x90\x00"


class Bench:
    """A reader at a port, and the connections that emulated QEMUs have to it."""

    def __init__(self, nursery: trio.Nursery, slots: list[Slot]) -> None:
        self._nursery = nursery
        self.slots = slots
        self.device = UsbReader(slots, default_profile(len(slots), "1"))
        self.port = UsbredirPort(self.device, slots)
        self.spoke: list[bool] = []
        nursery.start_soon(self.port.run)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            self.spoke.append(await self.port.serve(stream))

    def connect(self, *, resumes: Session | None = None) -> UsbredirPeer:
        ours, theirs = trio.testing.memory_stream_pair()
        peer = UsbredirPeer(theirs, resumes)
        self._nursery.start_soon(self._serve, ours)
        self._nursery.start_soon(peer.run)
        return peer

    async def configured(self) -> UsbredirPeer:
        return await self.connect().configure()

    async def connect_raw(self) -> trio.abc.Stream:
        """Connects, for a test that writes bytes itself."""
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, ours)
        return theirs


Plug = Callable[..., Awaitable[Bench]]


def held_card(event: trio.Event) -> ScriptedCard:
    async def answer(command: bytes) -> bytes:
        await event.wait()
        return OK

    return ScriptedCard(answer)


async def ask(peer: UsbredirPeer, command: ccid.Command) -> ccid.Response:
    assert await peer.bulk_out(ccid.encode(command)) == Status.SUCCESS
    return ccid.decode_response(await peer.bulk_in())
