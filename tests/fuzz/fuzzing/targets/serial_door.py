# SPDX-License-Identifier: Apache-2.0
"""The front door `serial`: anything on the line.

Whatever the reader says are whole frames with one answer to each command; noise ends nothing.
"""

import trio
import trio.testing

from ccid_protocol import NeedData, gempc
from ccidd.reader.profile import Level, default_profile
from ccidd.reader.slot import Slot
from ccidd.transport.serial import MAX_UNSENT, Line, serial_model, serve_serial
from fuzzing.answers import Answers
from fuzzing.cards import card
from fuzzing.quiet import quiet
from fuzzing.script import Script
from hostile_guest import Person

_WAITS = (0, 0, 0, 0.5, 1.1, 6, 40)
_LONGEST_STAY = 30


def run(data: bytes) -> None:
    """Does with a reader what the input says."""
    with quiet():
        trio.run(_Bench(Script(data)).main, clock=trio.testing.MockClock(autojump_threshold=0))


class _Wire(Line):
    """Keeps what the reader says, as long as anybody reads."""

    def __init__(self) -> None:
        self.to_reader, self._from_host = trio.open_memory_channel[bytes](1000)
        self.said = bytearray()
        self.flows = True
        self._flushes = 0

    async def receive(self) -> bytes:
        """Waits for bytes of the host."""
        return await self._from_host.receive()

    async def send(self, data: bytes) -> int:
        """Takes a part, as terminals do."""
        flushes = self._flushes
        await trio.sleep(0 if self.flows else 0.5)
        if flushes != self._flushes:
            return 0
        taken = data[:1000] if self.flows else data[:1]
        self.said += taken
        return len(taken)

    def flush(self) -> None:
        """Forgets what is on its way, and tells the reader, as a host does that begins."""
        self._flushes += 1
        self.said.clear()
        self.to_reader.send_nowait(b"")


class _Bench:
    def __init__(self, script: Script) -> None:
        self._script = script
        slots = script.choice((1, 1, 5))
        self._slots = [Slot(card(script) if index < 2 else None, index) for index in range(slots)]
        self._profile = default_profile(slots, "1", Level.TPDU)
        self._answers = Answers(self._profile.max_message_length)
        self._wire = _Wire()
        self._host = self._new_host()

    def _new_host(self) -> gempc.Connection:
        return gempc.Connection(gempc.Role.HOST, echo=serial_model(len(self._slots)).echo)

    async def main(self) -> None:
        ended = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, ended)
            while self._script:
                await self._step()
                await trio.testing.wait_all_tasks_blocked()
                self._hear()
            for slot in self._slots:
                slot.remove()
            await trio.sleep(_LONGEST_STAY)
            assert not self._answers.count, f"no answer to {+self._answers.due}"
            for slot in self._slots:
                slot.unplug()
            with trio.fail_after(_LONGEST_STAY):
                await ended.wait()
            self._hear()
            nursery.cancel_scope.cancel()

    async def _serve(self, ended: trio.Event) -> None:
        await serve_serial(self._wire, self._slots, self._profile, Person(), self._answers)
        ended.set()

    async def _step(self) -> None:
        script = self._script
        match script.number() % 8:
            case 0:
                await trio.sleep(script.choice(_WAITS))
            case 1:
                slot = self._slots[script.number() % len(self._slots)]
                inserted = card(script)
                if inserted is None:
                    slot.remove()
                else:
                    slot.insert(inserted)
            case 2:
                # Another host; what is under way is not for it.
                await trio.testing.wait_all_tasks_blocked()
                self._wire.flush()
                await trio.testing.wait_all_tasks_blocked()
                self._answers.forget()
                self._wire.said.clear()
                self._host = self._new_host()
            case 3:
                self._write(script.piece() or b"\x00")
            case 4:
                self._wire.flows = not self._wire.flows
            case _:
                message = script.piece()
                size = 10 + int.from_bytes(message[1:5], "little")
                if 10 <= len(message) <= self._host.max_message and size == len(message):
                    self._write(self._host.send(gempc.Message(message)))

    def _write(self, data: bytes) -> None:
        self._wire.to_reader.send_nowait(data)

    def _hear(self) -> None:
        """Reads what the reader says, which are frames."""
        if not self._wire.said:
            return
        host = gempc.Connection(gempc.Role.HOST)
        host.receive_data(bytes(self._wire.said))
        assert len(self._wire.said) <= 100 * MAX_UNSENT
        while not isinstance(event := host.next_event(), NeedData):
            assert not isinstance(event, gempc.BadFrame), event
        del self._wire.said[: len(self._wire.said) - len(host._buffer)]
