# SPDX-License-Identifier: Apache-2.0
"""The front door `vscard`: a guest that sends any commands, or a peer that is no QEMU.

What is sent is such that no QEMU is harmed by it; each command gets one response, and when the
reader is unplugged the connection ends.
"""

from collections.abc import Iterator
from contextlib import suppress

import trio
import trio.testing

from ccid_protocol import LocalProtocolError, NeedData, vscard
from ccid_protocol.events import ConnectionClosed
from ccidd.reader.slot import Slot
from ccidd.transport.vscard import serve_vscard
from fuzzing.cards import card
from fuzzing.quiet import quiet
from fuzzing.script import Script

_WAITS = (0, 0, 0.3, 1, 3, 40)
_LONGEST_STAY = 30
"""Seconds after which a connection is over whose reader was unplugged."""


def run(data: bytes) -> None:
    """Does with a slot what the input says."""
    with quiet():
        trio.run(_Bench(Script(data)).main, clock=trio.testing.MockClock(autojump_threshold=0))


class _Bench:
    def __init__(self, script: Script) -> None:
        self._script = script
        # A QEMU whose guest is hostile, or a peer that is hostile itself.
        self._is_qemu = not script.number() & 1
        self._slot = Slot(card(script))
        self._host = vscard.Connection(vscard.Role.HOST)
        # Until then the client may end a command that was left behind. One that crosses that is
        # answered as well, and QEMU drops the answer.
        self._is_settled = False
        # What is said is written in the order in which the host's end has said it.
        self._speaking = trio.Lock()
        self._ours, self._theirs = trio.testing.memory_stream_pair()

    async def main(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            ended = trio.Event()
            nursery.start_soon(self._serve, ended)
            with suppress(trio.BrokenResourceError):
                while self._script:
                    await self._step()
            await trio.testing.wait_all_tasks_blocked()
            self._slot.remove()
            await trio.sleep(_LONGEST_STAY)
            assert not self._host.pending_apdus or not self._is_qemu, "a command without an answer"
            self._slot.unplug()
            with trio.fail_after(_LONGEST_STAY):
                await ended.wait()
            nursery.cancel_scope.cancel()

    async def _serve(self, ended: trio.Event) -> None:
        async with self._ours:
            await serve_vscard(self._ours, self._slot)
        ended.set()

    async def _step(self) -> None:
        script = self._script
        match script.number() % 8:
            case 0:
                await trio.sleep(script.choice(_WAITS))
            case 1:
                inserted = card(script)
                if inserted is None:
                    self._slot.remove()
                else:
                    self._slot.insert(inserted)
            case 2 if not self._is_qemu:
                await self._send(vscard.Init())
            case 3 if not self._is_qemu:
                await self._send(vscard.Error(script.number(), script.number()))
            case 4 if not self._is_qemu:
                await self._theirs.send_all(script.piece() or bytes(1))
            case 5:
                await trio.testing.wait_all_tasks_blocked()
            case 6:
                await self._send(vscard.Flush())
            case _:
                await self._send(vscard.APDU(script.piece(), 0))

    async def _send(self, message: vscard.Message) -> None:
        async with self._speaking:
            if not self._is_qemu:
                await self._theirs.send_all(vscard.encode(message))
                return
            if isinstance(message, vscard.APDU | vscard.Flush) and not self._is_settled:
                return
            with suppress(LocalProtocolError):  # QEMU says that later, or not at all
                await self._theirs.send_all(self._host.send(message))

    async def _read(self) -> None:
        raw = bytearray()
        with suppress(trio.BrokenResourceError):
            while data := await self._theirs.receive_some():
                raw += data
                for message_type, payload in _messages(raw):
                    _check(message_type, payload)
                if self._is_qemu:
                    self._host.receive_data(bytes(data))
                    await self._react()

    async def _react(self) -> None:
        while not isinstance(event := self._host.next_event(), NeedData):
            if isinstance(event, ConnectionClosed):
                return
            self._is_settled |= isinstance(event, vscard.ReaderRemove)
            if isinstance(event, vscard.Init):
                await self._send(vscard.Init())
            elif self._host.unanswered is not None:
                await self._send(vscard.Error(0))


def _messages(raw: bytearray) -> Iterator[tuple[int, bytes]]:
    """Takes whole messages out of what has come."""
    while len(raw) >= 12 and len(raw) >= (end := 12 + int.from_bytes(raw[8:12])):
        yield int.from_bytes(raw[:4]), bytes(raw[12:end])
        del raw[:end]


def _check(message_type: int, payload: bytes) -> None:
    match message_type:
        case vscard.MessageType.APDU:
            assert 2 <= len(payload) <= 374, "QEMU loses it"
            assert len(payload) != 54, "QEMU loses step"
        case vscard.MessageType.ATR:
            assert 2 <= len(payload) <= 40
        case vscard.MessageType.READER_ADD | vscard.MessageType.INIT | vscard.MessageType.ERROR:
            pass
        case _:
            assert not payload
