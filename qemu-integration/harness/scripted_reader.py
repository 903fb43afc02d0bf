# SPDX-License-Identifier: Apache-2.0
"""A reader with scripted cards, behind ccidd's own front door `usbredir`.

    python scripted_reader.py --socket-path=S --slots=N --cards=SLOT,SLOT…

It takes ccidd's options for the socket and its state, and stands in its place in a test. On a
second socket, `S.control`, it takes commands, one a line: `insert SLOT`, `remove SLOT` and `swap
SLOT` are answered with `done`, and `working` with the slots whose cards are at work.

What a card answers, by INS, each with status word 9000 behind it:

    10  so many bytes as P1 and P2 say, status word included
    20  the command's data, backwards
    30  nothing, after P1 seconds
    40  how often it was powered on, and then which card it is: the number of those made before
"""

from __future__ import annotations

import argparse
import itertools
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from ccid_protocol.apdu import CommandAPDU
from ccid_protocol.atr import ATR, InterfaceBytes
from ccidd.card.card import Card
from ccidd.reader.profile import default_profile
from ccidd.reader.slot import Slot
from ccidd.reader.usb_reader import UsbReader
from ccidd.service.daemon import serve_reader
from ccidd.service.log import configure_log
from ccidd.transport.endpoint import listen

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

_POLL_SECONDS: Final = 0.02
_PATIENCE_SECONDS: Final = 30.0

_T1: Final = (
    InterfaceBytes(protocol=1),
    InterfaceBytes(protocol=1),
    InterfaceBytes(ta=0xFE, tb=0x45),
)


def atr_of_card(number: int) -> bytes:
    """Return the ATR of a card; each card has one of its own."""
    return ATR(b"scripted" + bytes([number]), _T1).encode()


def response_of_length(length: int) -> bytes:
    """Return the response to INS 10; `length` counts the status word."""
    return bytes(i % 251 for i in range(length - 2)) + b"\x90\x00"


class ScriptedCard(Card):
    """A card; `is_working` while it carries INS 30 out."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._power_ons = 0
        self.is_working = False

    async def power_on(self) -> ATR:
        await trio.lowlevel.checkpoint()
        self._power_ons += 1
        return ATR.decode(atr_of_card(self._number))

    async def power_off(self) -> None:
        await trio.lowlevel.checkpoint()

    async def transmit(self, command: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        apdu = CommandAPDU.decode(command)
        data = b""
        match apdu.ins:
            case 0x10:
                return response_of_length(apdu.p1 << 8 | apdu.p2)
            case 0x20:
                data = apdu.data[::-1]
            case 0x30:
                self.is_working = True
                try:
                    await trio.sleep(apdu.p1)
                finally:
                    self.is_working = False
            case 0x40:
                data = bytes([self._power_ons, self._number])
            case _:
                return b"\x6d\x00"
        return data + b"\x90\x00"


class _Reader:
    """The slots, and who puts cards in them."""

    def __init__(self, slots: int, cards: Sequence[int]) -> None:
        self.slots = [Slot() for _ in range(slots)]
        self._numbers = itertools.count()
        for slot in cards:
            self.insert(self.slots[slot])

    def insert(self, slot: Slot) -> None:
        slot.insert(ScriptedCard(next(self._numbers)))

    def obey(self, command: str) -> str:
        match command.split():
            case ["working"]:
                return " ".join(str(n) for n, slot in enumerate(self.slots) if _works(slot))
            # In a swap no time goes by between the one card and the other.
            case ["insert" | "swap", slot]:
                self.insert(self.slots[int(slot)])
            case ["remove", slot]:
                self.slots[int(slot)].remove()
            case _:
                return f"unknown command {command!r}"
        return "done"

    async def converse(self, stream: trio.SocketStream) -> None:
        """Serve one connection to the control socket."""
        received = b""
        async for data in stream:
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                await stream.send_all(self.obey(line.decode()).encode() + b"\n")


def _works(slot: Slot) -> bool:
    card = slot.insertion and slot.insertion.card
    return isinstance(card, ScriptedCard) and card.is_working


class ScriptedReaderError(Exception):
    """The scripted reader has ended, or does not do what the test wants."""


class Hand:
    """The test's hand at the slots of a scripted reader; `hand_at` makes these."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""

    async def insert(self, slot: int) -> None:
        """Put a new card into an empty slot."""
        await self._order(f"insert {slot}")

    async def remove(self, slot: int) -> None:
        """Take the card out."""
        await self._order(f"remove {slot}")

    async def swap(self, slot: int) -> None:
        """Put a new card in the place of the one that is there, in no time."""
        await self._order(f"swap {slot}")

    async def until_working(self, *slots: int) -> None:
        """Wait until the cards in just these slots are at work.

        Raises:
            ScriptedReaderError: It does not happen.
        """
        wanted = " ".join(str(slot) for slot in slots)
        working = None
        with trio.move_on_after(_PATIENCE_SECONDS):
            while (working := await self._ask("working")) != wanted:  # noqa: ASYNC110 -- it is elsewhere
                await trio.sleep(_POLL_SECONDS)
            return
        raise ScriptedReaderError(
            f"the cards in slots {wanted!r} are not at work, those in {working!r} are"
        )

    async def _order(self, command: str) -> None:
        answer = await self._ask(command)
        if answer != "done":
            raise ScriptedReaderError(f"the scripted reader says: {answer}")

    async def _ask(self, command: str) -> str:
        await self._stream.send_all(command.encode() + b"\n")
        while b"\n" not in self._received:
            data = await self._stream.receive_some()
            if not data:
                raise ScriptedReaderError("the scripted reader has ended")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()


@asynccontextmanager
async def hand_at(path: Path) -> AsyncGenerator[Hand]:
    """Reach into the slots of the scripted reader that listens at `path`."""
    async with await trio.open_unix_socket(f"{path}.control") as stream:
        yield Hand(stream)


async def _serve(path: Path, reader: _Reader, device: UsbReader) -> None:
    async def converse(stream: trio.SocketStream) -> bool:
        await reader.converse(stream)
        return True

    control = listen(path.with_name(f"{path.name}.control"))
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(control.run, converse))
        await serve_reader(partial(listen, path), reader.slots, device)
        nursery.cancel_scope.cancel()
    control.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket-path", type=Path, required=True)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--cards", default="0", help="the slots with cards, with commas between")
    parser.add_argument("--state-dir", type=Path, help="not used: the cards remember nothing")
    options = parser.parse_args()
    configure_log("info")
    reader = _Reader(options.slots, [int(slot) for slot in options.cards.split(",")])
    device = UsbReader(reader.slots, default_profile(options.slots, f"SCRIPTED{options.slots}"))
    trio.run(_serve, options.socket_path, reader, device)


if __name__ == "__main__":
    main()
