# SPDX-License-Identifier: Apache-2.0
"""A reader with scripted cards, behind ccidd's own front door `usbredir`.

    python scripted_reader.py --socket-path=S --slots=N --cards=SLOT,SLOT… --level=LEVEL
                              --max-message=BYTES

It takes ccidd's options for the socket and its state, and stands in its place in a test. On a
second socket, `S.control`, it takes commands, one a line: `insert SLOT`, `remove SLOT` and `swap
SLOT` are answered with `done`, and `working` with the slots whose cards are at work.

What a card answers, by INS, each with status word 9000 behind it:

    10  so many bytes as P1 and P2 say, status word included
    20  the command's data, backwards
    30  nothing, after P1 seconds
    40  how often it was powered on, and then which card it is: the number of those made before

All else is for the OpenPGP application, which each card has too: all of it that is read without a
PIN, and nothing more (OpenPGP application on ISO smart card operating systems, version 3.4).
"""

from __future__ import annotations

import argparse
import itertools
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, Instruction, ResponseAPDU, StatusWord
from ccid_protocol.atr import ATR, InterfaceBytes
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.application import Application, CardError
from ccidd.card.card import Card
from ccidd.card.emulated import EmulatedCard
from ccidd.reader.profile import MAX_MESSAGE, Level, default_profile
from ccidd.reader.slot import Slot
from ccidd.reader.usb_reader import UsbReader
from ccidd.service.daemon import serve
from ccidd.service.log import configure_log
from ccidd.service.served import SocketReader
from ccidd.service.service import Service
from ccidd.transport.endpoint import listen
from ccidd.transport.usbredir import UsbredirPort

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

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


OPENPGP_URL: Final = "https://example.org/" + "key" * 300
"""Longer than three blocks of T=1, and about as long as scdaemon can pass on."""
OPENPGP_FINGERPRINTS: Final = tuple(bytes(range(key, key + 20)) for key in (0x10, 0x50, 0x90))
"""Of the keys to sign, to decrypt and to authenticate."""
OPENPGP_KEY_TIMES: Final = (1700000001, 1700000002, 1700000003)

_P_256: Final = bytes.fromhex("2A8648CE3D030107")
# The generator, which is the public key of the private key 1.
_P_256_POINT: Final = bytes.fromhex(
    "046B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296"
    "4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5"
)
_P_256_KEY: Final = tlv.encode(0x7F49, tlv.encode(0x86, _P_256_POINT))
_RSA_4096_KEY: Final = tlv.encode(
    0x7F49, tlv.encode(0x81, bytes(range(255, -1, -1)) * 2), tlv.encode(0x82, b"\1\0\1")
)
_OPENPGP_KEYS: Final = {0xB6: _RSA_4096_KEY, 0xB8: _P_256_KEY, 0xA4: _P_256_KEY}


def openpgp_aid(number: int) -> bytes:
    """Return the AID of a card: version 3.4, a manufacturer for tests, serial number (4.2.1)."""
    return bytes.fromhex("D27600012401 0304 0000") + number.to_bytes(4) + bytes(2)


def _openpgp_data(number: int) -> dict[int, bytes]:
    """Return the data objects that a card has, by their tags (4.4.1)."""
    primitive = {
        0x4F: openpgp_aid(number),
        0x5E: b"scripted",
        0x5F50: OPENPGP_URL.encode(),
        # Command chaining and extended length fields (6).
        0x5F52: bytes.fromhex("0031C573C001C0059000"),
        # PW1 counts for one signature; lengths, then tries, of PW1, resetting code and PW3.
        0xC4: bytes.fromhex("00 7F7F7F 030002"),
    }
    discretionary = {
        # Certificates of 2048 bytes, other objects of 2053 (4.4.3.7).
        0xC0: bytes.fromhex("00 00 0000 0800 0805 00 00"),
        # RSA, ECDH, ECDSA (4.4.3.9).
        0xC1: bytes.fromhex("01 1000 0020 00"),
        0xC2: b"\x12" + _P_256,
        0xC3: b"\x13" + _P_256,
        0xC4: primitive[0xC4],
        0xC5: b"".join(OPENPGP_FINGERPRINTS),
        0xC6: bytes(60),
        0xCD: b"".join(time.to_bytes(4) for time in OPENPGP_KEY_TIMES),
    }
    application = {tag: primitive[tag] for tag in (0x4F, 0x5F52)}
    application[0x73] = _joined(discretionary)
    constructed = {
        0x65: {0x5B: b"Card<<Scripted", 0x5F2D: b"en", 0x5F35: b"2"},
        0x6E: application,
        0x7A: {0x93: bytes([0, 0, 7])},
    }
    return primitive | {tag: tlv.encode(tag, _joined(of)) for tag, of in constructed.items()}


def _joined(objects: Mapping[int, bytes]) -> bytes:
    return b"".join(tlv.encode(tag, value) for tag, value in objects.items())


class _OpenPGP(Application):
    """The OpenPGP application of a card, as far as it can be read without a PIN."""

    def __init__(self, number: int) -> None:
        self._data = _openpgp_data(number)

    def is_selected_by(self, aid: bytes) -> bool:
        return self._data[0x4F].startswith(aid)

    def select(self) -> bytes:
        return b""

    def deselect(self) -> None:
        """There is no PIN that could have opened anything."""

    async def process(self, command: CommandAPDU) -> ResponseAPDU:
        await trio.lowlevel.checkpoint()
        match command.ins, command.p1:
            case Instruction.GET_DATA_CA, _:  # 7.2.6
                found = self._data.get(command.p1 << 8 | command.p2)
            case Instruction.GENERATE_ASYMMETRIC_KEY_PAIR, 0x81:  # 7.2.14, reading the public key
                found = _OPENPGP_KEYS.get(command.data[0])
            case _:
                raise CardError(StatusWord.INSTRUCTION_NOT_SUPPORTED)
        if found is None:
            raise CardError(StatusWord.REFERENCED_DATA_NOT_FOUND)
        return ResponseAPDU(found)


class ScriptedCard(Card):
    """A card; `is_working` while it carries INS 30 out."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._atr = ATR.decode(atr_of_card(number))
        self._openpgp = EmulatedCard(self._atr, [_OpenPGP(number)])
        self._power_ons = 0
        self.is_working = False

    async def power_on(self) -> ATR:
        await trio.lowlevel.checkpoint()
        self._power_ons += 1
        return await self._openpgp.power_on()

    async def power_off(self) -> None:
        await trio.lowlevel.checkpoint()
        await self._openpgp.power_off()

    async def transmit(self, command: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        try:
            apdu = CommandAPDU.decode(command)
        except RemoteProtocolError:
            return StatusWord.WRONG_LENGTH.to_bytes(2)
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
                return await self._openpgp.transmit(command)
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

    async def converse(self, stream: trio.abc.Stream) -> None:
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
    async def converse(stream: trio.abc.Stream) -> bool:
        await reader.converse(stream)
        return True

    control = listen(path.with_name(f"{path.name}.control"))
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(control.run, converse))
        port = UsbredirPort(device, reader.slots)
        endpoint = partial(listen, path)
        service = Service()
        service.put(SocketReader(reader.slots, endpoint, port.serve, [port.run]))
        await serve(service)
        nursery.cancel_scope.cancel()
    control.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket-path", type=Path, required=True)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--cards", default="0", help="the slots with cards, with commas between")
    parser.add_argument("--level", choices=[level.value for level in Level], default="extended")
    parser.add_argument("--max-message", type=int, default=MAX_MESSAGE)
    parser.add_argument("--state-dir", type=Path, help="not used: the cards remember nothing")
    options = parser.parse_args()
    configure_log("info")
    reader = _Reader(options.slots, [int(slot) for slot in options.cards.split(",")])
    serial = f"SCRIPTED{options.slots}"
    profile = default_profile(options.slots, serial, Level(options.level))
    profile = replace(profile, longest_message=options.max_message)
    device = UsbReader(reader.slots, profile)
    trio.run(_serve, options.socket_path, reader, device)


if __name__ == "__main__":
    main()
