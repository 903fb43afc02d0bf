# SPDX-License-Identifier: Apache-2.0
"""A guest that does what it is told, whether it makes sense or not, and a reader that bears it."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias

import trio
import trio.testing

from cards import ScriptedCard, echo_card, response_of_length
from ccid_protocol import ccid
from ccid_protocol.atr import InterfaceBytes
from ccid_protocol.ccid import GetSlotStatus, IccPowerOn, IccStatus, XfrBlock
from ccid_protocol.errors import LocalProtocolError
from ccid_protocol.usb import SetupPacket
from ccid_protocol.usbredir import (
    BulkPacket,
    CancelDataPacket,
    Packet,
    Reset,
    Session,
    SetAltSetting,
    SetConfiguration,
    Status,
    TransferRequest,
)
from ccidd.card.card import Card
from ccidd.reader.pinentry.source import EntryRequest, NoPin, PinEntry, Pins, PinSource
from ccidd.reader.profile import Level
from ccidd.reader.slot import Slot
from usbredir_peer import BULK_IN, BULK_OUT, INTERRUPT_IN, UsbredirPeer
from usbredir_witness import Bench, witnessed

Step: TypeAlias = tuple[str, tuple[object, ...]]


SLOTS = 2

FLOODS = ("reset", "configure", "read", "ask", "power", "abort", "describe")
POWER: tuple[ccid.Command, ...] = (IccPowerOn(0, 1), ccid.IccPowerOff(0, 2))

# Cards.

T1 = (InterfaceBytes(protocol=1),)


async def slow(command: bytes) -> bytes:
    await trio.sleep(2)
    return await response_of_length(command)


async def dead(command: bytes) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


async def deaf(command: bytes) -> bytes:
    """Goes on for a while when it is cancelled, as work in another thread does."""
    with trio.CancelScope(shield=True):
        await trio.sleep(5)
    return await response_of_length(command)


def cards() -> dict[str, Card | None]:
    return {
        "none": None,
        "echo": echo_card(),
        "T=1": ScriptedCard(response_of_length, interface=T1),
        "slow": ScriptedCard(slow, interface=T1),
        "dead": ScriptedCard(dead, interface=T1),
        "deaf": ScriptedCard(deaf),
    }


class Person(PinSource):
    """Enters a PIN, or does not, after a while."""

    @property
    def can_modify(self) -> bool:
        return True

    async def ask(self, request: EntryRequest) -> PinEntry:
        await trio.sleep(request.timeout / 2)
        if request.timeout > 100:
            return NoPin.TIMED_OUT
        return Pins(current=b"12345678", new=b"1" * request.min_digits)


CHANGES = (SetConfiguration, SetAltSetting)


class Guest:
    """Does what it is told, whether it makes sense or not."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._hears = trio.Event()
        self._hears.set()
        self._asked: list[int] = []
        self._peer = self._connect()

    def _connect(self, session: Session | None = None) -> UsbredirPeer:
        async def listen() -> None:
            await self._hears.wait()

        return self._bench.connect(resumes=session, before_reading=listen)

    async def do(self, steps: list[Step]) -> None:
        for name, arguments in steps:
            act: Callable[..., Awaitable[None]] = getattr(self, name)
            await act(*arguments)

    async def close(self) -> None:
        await self._peer.close()

    async def say(self, *packets: Packet) -> None:
        """Says packets in one go."""
        peer = self._peer
        data = b""
        # A guest has its transfers to endpoint zero one after the other.
        changes = any(isinstance(request, CHANGES) for request in peer.connection.pending)
        for packet in packets:
            if changes and isinstance(packet, CHANGES):
                continue
            # Where there is no device yet, or this id waits, no guest says that.
            with suppress(LocalProtocolError):
                data += peer.connection.send(packet)
            if isinstance(packet, TransferRequest):
                self._asked.append(packet.id)
        with suppress(trio.BrokenResourceError):
            await peer.write(data)

    async def control(self, setup: SetupPacket) -> None:
        await self.say(self._peer.control_packet(setup))

    async def write(self, data: bytes) -> None:
        await self.say(self._out(data))

    async def read(self, size: int) -> None:
        await self.say(self._in(size))

    async def configure(self) -> None:
        await trio.testing.wait_all_tasks_blocked()
        await self.say(SetConfiguration(next(self._peer._ids), 1))

    async def use(self, slot: int, message: bytes) -> None:
        """Has a message for a card with power."""
        power_on = ccid.encode(IccPowerOn(slot, 9))
        await self.say(self._out(power_on), self._in(100))
        await trio.testing.wait_all_tasks_blocked()
        await self.say(self._out(message))

    async def cross(
        self,
        message: bytes,
        reads: list[tuple[int, bool]],
        backwards: bool,  # noqa: FBT001 (it comes from a list of arguments)
    ) -> None:
        """Takes reads back whose answers are on their way."""
        self._hears = trio.Event()
        requests = [(self._in(size), is_cancelled) for size, is_cancelled in reads]
        await self.say(self._out(message), *[request for request, _ in requests])
        await trio.testing.wait_all_tasks_blocked()
        cancels = [CancelDataPacket(request.id) for request, cancelled in requests if cancelled]
        await self.say(*cancels[:: -1 if backwards else 1])
        self._hears.set()

    def _out(self, data: bytes) -> BulkPacket:
        return BulkPacket(next(self._peer._ids), BULK_OUT, data=data)

    def _in(self, size: int) -> BulkPacket:
        return BulkPacket(next(self._peer._ids), BULK_IN, size)

    async def cancel(self, which: int) -> None:
        await self.say(*map(CancelDataPacket, self._asked[-which:][:1]))

    async def flood(self, kind: str) -> None:
        """Says the same many times at once."""
        each: list[Packet] = []
        for number in range(250):
            match kind:
                case "reset":
                    each.append(Reset())
                case "configure":
                    each.append(SetConfiguration(number, 1))
                case "read":
                    each.append(self._in(64))
                case "ask":
                    each.append(self._out(ccid.encode(GetSlotStatus(0, number))))
                case "power":
                    each += map(self._out, map(ccid.encode, POWER))
                case "abort":
                    each.append(self._out(ccid.encode(XfrBlock(0, number, bytes(4)))))
                    each.append(self._peer.control_packet(SetupPacket(0x21, 1, number << 8)))
                    each.append(self._out(ccid.encode(ccid.Abort(0, number))))
                case "describe":
                    each.append(self._peer.control_packet(SetupPacket(0x80, 6, 0x0200, 0, 255)))
        await self.say(*each)

    async def put(self, slot: int, card: str) -> None:
        chosen = cards()[card]
        if chosen is None:
            self._bench.slots[slot].remove()
        else:
            self._bench.slots[slot].insert(chosen)

    async def wait(self, seconds: int) -> None:
        await trio.sleep(seconds)
        await trio.testing.wait_all_tasks_blocked()

    async def start_over(self) -> None:
        await self._peer.close()
        self._peer = self._connect()
        await trio.testing.wait_all_tasks_blocked()

    async def go_on(self) -> None:
        await trio.testing.wait_all_tasks_blocked()
        if self._peer.closed:
            # One that was cut off begins anew.
            await self.start_over()
            return
        # QEMU lets notifications pass that it did not ask for.
        session = self._peer.connection.session
        session = replace(session, receiving=session.receiving | {INTERRUPT_IN})
        await self._peer.close()
        self._peer = self._connect(session)


async def check_that_it_serves(bench: Bench) -> None:
    """Uses the card as a driver does, in no time."""
    bench.slots[0].insert(echo_card())
    with trio.fail_after(0.01):
        peer = await bench.connect().configure()
        use: tuple[ccid.Command, ...] = IccPowerOn(0, 0), XfrBlock(0, 0, bytes([0, 0x10, 0, 2]))
        for seq, command in enumerate(use):
            answer = await ask(peer, replace(command, seq=seq))
            assert (answer.seq, answer.icc_status, answer.error) == (seq, IccStatus.ACTIVE, 0)
        await peer.listen()
    await peer.close()


async def ask(peer: UsbredirPeer, command: ccid.Command) -> ccid.Response:
    assert await peer.bulk_out(ccid.encode(command)) == Status.SUCCESS
    return ccid.decode_response(await peer.bulk_in())


def scenario(
    act: Callable[[Bench], Awaitable[None]],
    level: Level = Level.EXTENDED_APDU,
    *,
    is_left: bool = True,
) -> None:
    """Does something to a reader, and looks whether it is as good as before.

    Args:
        act: what is done.
        level: the reader's exchange level.
        is_left: whether there is a reader after it.
    """

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            slots = [Slot(echo_card()), *(Slot() for _ in range(SLOTS - 1))]
            bench = Bench(nursery, slots, level, Person())
            await trio.testing.wait_all_tasks_blocked()
            await act(bench)
            await trio.testing.wait_all_tasks_blocked()
            if is_left:
                await check_that_it_serves(bench)
            nursery.cancel_scope.cancel()

    with witnessed():
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def say_raw(bench: Bench, pieces: list[bytes]) -> None:
    stream = bench.connect_raw()
    with suppress(trio.BrokenResourceError):
        for piece in pieces:
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
    await stream.aclose()
