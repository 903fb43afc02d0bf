# SPDX-License-Identifier: Apache-2.0
"""Connections of the front door `usbredir` that are looked at while they are served.

    with witnessed():
        async with trio.open_nursery() as nursery:
            bench = Bench(nursery, [Slot(card)])

A strict guest's end hears all that the device's end takes and says, in that order. It refuses what
the parser of QEMU refuses, an answer that no request waits for, and one that does not fit.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeAlias
from unittest.mock import patch

import structlog
import trio
import trio.testing
from trio.testing import MemoryReceiveStream, MemorySendStream

from ccid_protocol import usbredir
from ccid_protocol.events import NeedData
from ccid_protocol.usbredir import (
    MAX_PENDING,
    MAX_REMEMBERED,
    BulkPacket,
    CancelDataPacket,
    Cancelled,
    Hello,
    Packet,
    Resumed,
    Role,
    Session,
    negotiate,
)
from ccidd.reader.pinentry.source import PinSource
from ccidd.reader.profile import Level, default_profile
from ccidd.reader.slot import Slot
from ccidd.reader.usb_reader import MAX_UNREAD, UsbReader
from ccidd.transport import usbredir as transport
from ccidd.transport.usbredir import MAX_UNSENT, UsbredirPort
from usbredir_peer import UsbredirPeer

FAULTS: Final = {"error", "critical"}
"""Levels of the log for what must not happen: a fault of ccidd, or of a card."""

_MAX_MESSAGE: Final = 65600
_MAX_TASKS: Final = 200
"""Of a reader with two slots, a connection, a test; and of commands that were ended just now."""


MemoryStream: TypeAlias = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


class Bench:
    """A reader at a port, and the connections that emulated QEMUs have to it, one at a time.

    Args:
        nursery: runs it.
        slots: its slots.
        level: its exchange level.
        pins: where PINs come from.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        slots: list[Slot],
        level: Level = Level.EXTENDED_APDU,
        pins: PinSource | None = None,
    ) -> None:
        self._nursery = nursery
        self._connection = trio.Lock()
        self.slots = slots
        self.device = UsbReader(slots, default_profile(len(slots), "1", level), pins)
        self.port = UsbredirPort(self.device, slots)
        nursery.start_soon(self.port.run)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serves a connection when its turn comes."""
        async with stream, self._connection:
            await self.port.serve(stream)

    async def until_left(self) -> None:
        """Waits until there is no connection."""
        with trio.fail_after(10):
            async with self._connection:
                pass

    def connect(
        self,
        *,
        resumes: Session | None = None,
        before_reading: Callable[[], Awaitable[None]] | None = None,
    ) -> UsbredirPeer:
        """Connects an emulated QEMU.

        Args:
            resumes: the session that it goes on with.
            before_reading: what it waits for each time before it reads.
        """
        stream = self.connect_raw()
        stream.receive_stream.receive_some_hook = before_reading
        peer = UsbredirPeer(stream, resumes)
        self._nursery.start_soon(self._run, peer)
        return peer

    @staticmethod
    async def _run(peer: UsbredirPeer) -> None:
        # The test may close the connection at any time.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await peer.run()

    def connect_raw(self) -> MemoryStream:
        """Connects, for a test that writes bytes itself."""
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self.serve, ours)
        return theirs


@contextmanager
def witnessed() -> Iterator[None]:
    """Has each connection witnessed, and refuses what stands in the log of a fault."""
    with (
        structlog.testing.capture_logs() as entries,
        patch.object(transport, "_Connection", _Witnessed),
    ):
        yield
    assert not [entry for entry in entries if entry["log_level"] in FAULTS]


class _Witnessed(transport._Connection):
    def __init__(
        self, stream: trio.abc.Stream, device: UsbReader, previous: Session | None
    ) -> None:
        super().__init__(stream, device, previous)
        self._previous = previous
        self._guest: usbredir.Connection | None = None

    def _take(self, event: usbredir.Event) -> None:
        self._tell_guest(event)
        super()._take(event)
        self._check_limits()

    def _send(self, packet: Packet) -> None:
        before = len(self._unsent)
        super()._send(packet)
        assert self._guest is not None
        self._guest.receive_data(bytes(self._unsent[before:]))
        assert not isinstance(self._guest.next_event(), NeedData)
        assert isinstance(self._guest.next_event(), NeedData)
        self._check_limits()

    def _tell_guest(self, event: usbredir.Event) -> None:
        if isinstance(event, Hello):
            capabilities = negotiate(event.capabilities, event.capabilities)
            self._guest = usbredir.Connection(Role.GUEST, capabilities=capabilities)
            self._guest.send(self._guest.hello)
            return
        if isinstance(event, Resumed):
            self._guest = usbredir.Connection(Role.GUEST, previous=self._previous)
            self._guest.resume()
            return
        guest = self._guest
        assert guest is not None
        if isinstance(event, Cancelled):
            known = event.id in {request.id for request in guest.pending}
            if event.answer is not None and not known:
                # It was asked for in the session before.
                guest.send(BulkPacket(event.id, endpoint=0))
            if event.answer is not None:
                guest.send(CancelDataPacket(event.id))
            return
        assert isinstance(event, Packet)
        guest.send(event)

    def _check_limits(self) -> None:
        assert len(self._reads) <= MAX_PENDING
        assert len(self._given) <= MAX_REMEMBERED
        assert len(self._device._unread) <= 2 * MAX_UNREAD + MAX_REMEMBERED
        most = MAX_UNSENT + MAX_PENDING * _MAX_MESSAGE
        assert len(self._unsent) <= most + 32 * transport._RECEIVE_SIZE
        assert trio.lowlevel.current_statistics().tasks_living <= _MAX_TASKS
