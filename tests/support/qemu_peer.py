# SPDX-License-Identifier: Apache-2.0
"""QEMU's end of a VSCARD connection: ccid-card-passthru without a virtual machine.

qemu-integration/test_vscard_peer.py holds it against the real one.
"""

from collections.abc import Callable

import trio

from ccid_protocol import vscard
from ccid_protocol.events import ConnectionClosed, NeedData


class QemuPeer:
    """Answers what a card says as QEMU does, and remembers what a guest would see.

    Args:
        stream: the connection.
        answers: whether it answers at all.
    """

    def __init__(self, stream: trio.abc.Stream, *, answers: bool = True) -> None:
        self._stream = stream
        self._answers = answers
        self._connection = vscard.Connection(vscard.Role.HOST)
        self._responses_in, self._responses = trio.open_memory_channel[bytes](128)
        self._progress = trio.Event()
        self.seen: list[vscard.Message] = []
        self.atr: bytes | None = None
        self.reader_is_there = True
        self.closed = False

    async def run(self) -> None:
        """Reads and answers until the card closes the connection."""
        while not self.closed:
            self._connection.receive_data(bytes(await self._stream.receive_some(65536)))
            while not isinstance(event := self._connection.next_event(), NeedData):
                if isinstance(event, ConnectionClosed):
                    self.closed = True
                    break
                await self._take(event)
            self._progress.set()
            self._progress = trio.Event()

    async def _take(self, message: vscard.Message) -> None:
        self.seen.append(message)
        match message:
            case vscard.APDU(data):
                self._responses_in.send_nowait(data)
                return
            case vscard.ReaderAdd():
                self.reader_is_there = True
            case vscard.ReaderRemove():
                self.reader_is_there, self.atr = False, None
            case vscard.CardRemove():
                self.atr = None
            case vscard.ATR(atr):
                self.atr = atr
            case _:
                pass
        if not self._answers:
            return
        if isinstance(message, vscard.Init):
            await self.send(vscard.Init())
        elif self._connection.unanswered is not None:
            await self.send(vscard.Error(vscard.ErrorCode.SUCCESS, 0))

    async def send(self, message: vscard.Message) -> None:
        await self._stream.send_all(self._connection.send(message))

    async def transmit(self, command: bytes) -> bytes:
        """Sends a command APDU of the guest's, and waits for its response."""
        await self.send(vscard.APDU(command, 0))
        return await self._responses.receive()

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits until a condition holds, looking after each piece that arrives."""
        while not condition():
            await self._progress.wait()
