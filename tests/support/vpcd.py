# SPDX-License-Identifier: Apache-2.0
"""A physical reader of pcscd's: vsmartcard's driver, which has its cards at the end of a socket.

pcscd listens, and a card connects for as long as it is in the reader. Each message is preceded by
its length, two bytes in big-endian order. One of a single byte controls the power or asks for the
ATR; any other is a command APDU. The driver says of all of its cards that they speak T=1, and looks
for them every 0.4 s. A pcscd can have one such reader, as the driver takes slots of the same number
for the same. (It can connect as well, but then dies of an empty slot.)
"""

import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from ccid_protocol.atr import ATR
from ccidd.card.card import Card

SLOTS: Final = 2
"""Slots of the reader. pcscd lists each as a reader of its own, `NAME 00 00` and `NAME 00 01`."""

_POWER_OFF, _POWER_ON, _RESET, _GET_ATR = (bytes([code]) for code in (0, 1, 2, 4))

_RETRY_SECONDS: Final = 0.05

_EJECTED: Final = b""
"""The response of a card that has gone at work."""


class _Bay:
    """What is in one slot."""

    def __init__(self, port: int) -> None:
        self.port: Final = port
        self.card: Card | None = None
        self.scope = trio.CancelScope()
        self.changed = trio.Event()


class VirtualReader:
    """A reader with two slots, and the cards in it.

    Args:
        port: where the driver listens for its first slot; the other's port is the next.
        name: what pcscd calls it.
    """

    def __init__(self, port: int, name: str) -> None:
        self._bays = [_Bay(port + slot) for slot in range(SLOTS)]
        self.name: Final = name
        self.commands: list[bytes] = []
        """All commands that its cards were given."""
        self.resets = 0
        """How many times its cards were powered or reset."""

    @property
    def configuration(self) -> str:
        """What pcscd's configuration says of it."""
        port = self._bays[0].port
        return (
            f'FRIENDLYNAME "{self.name}"\n'
            f"DEVICENAME /dev/null:0x{port:04X}\n"
            "LIBPATH /usr/lib/pcsc/drivers/serial/libifdvpcd.so\n"
            f"CHANNELID 0x{port:04X}\n"
        )

    def insert(self, card: Card, slot: int = 0) -> None:
        """Puts a card into an empty slot; pcscd sees it within half a second."""
        bay = self._bays[slot]
        assert bay.card is None
        bay.card = card
        bay.changed.set()

    def remove(self, slot: int = 0) -> None:
        """Takes the card out, be it at work; pcscd sees it go within half a second."""
        bay = self._bays[slot]
        bay.card, bay.changed = None, trio.Event()
        bay.scope.cancel()

    async def run(self) -> None:
        """Has the cards answer pcscd, and each pcscd that comes after it."""
        async with trio.open_nursery() as nursery:
            for bay in self._bays:
                nursery.start_soon(self._occupy, bay)

    async def _occupy(self, bay: _Bay) -> None:
        while True:
            await bay.changed.wait()
            card = bay.card
            assert card is not None
            with trio.CancelScope() as bay.scope, suppress(OSError, trio.BrokenResourceError):
                atr = await card.power_on()
                # pcscd listens again as soon as it has seen the last card go.
                async with await trio.open_tcp_stream("127.0.0.1", bay.port) as stream:
                    await self._answer_all(stream, card, atr)
            await trio.sleep(_RETRY_SECONDS)

    async def _answer_all(self, stream: trio.SocketStream, card: Card, atr: ATR) -> None:
        try:
            while (message := await _receive(stream)) is not None:
                answer = await self._answer(card, atr, message)
                if answer is not None:
                    await stream.send_all(len(answer).to_bytes(2) + answer)
        except trio.Cancelled:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await stream.send_all(len(_EJECTED).to_bytes(2) + _EJECTED)
            raise

    async def _answer(self, card: Card, atr: ATR, message: bytes) -> bytes | None:
        """Gives what there is to say, be it nothing."""
        if message == _GET_ATR:
            return atr.encode()
        if len(message) > 1:
            self.commands.append(message)
            return await card.transmit(message)
        if message == _POWER_OFF:
            await card.power_off()
        elif message in {_POWER_ON, _RESET}:
            self.resets += 1
            await card.power_on()
        return None


async def _receive(stream: trio.SocketStream) -> bytes | None:
    """Gives a message, or None where there are no more."""
    data = b""
    while (missing := 2 + int.from_bytes(data[:2]) * (len(data) >= 2) - len(data)) > 0:
        # The driver writes length and payload apart; it would wait 40 ms for us between them.
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        piece = await stream.receive_some(missing)
        if not piece:
            return None
        data += bytes(piece)
    return data[2:]


def _free_port() -> int:
    """Finds ports for all slots, below those that the system gives out by itself."""
    while True:
        port = random.randrange(20000, 32000, SLOTS)  # noqa: S311 (no secret)
        try:
            for slot in range(SLOTS):
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                    sock.bind(("", port + slot))
        except OSError:
            continue
        return port


@asynccontextmanager
async def virtual_reader(name: str = "Virtual") -> AsyncIterator[VirtualReader]:
    """A reader for pcscd to be configured with."""
    reader = VirtualReader(_free_port(), name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.run)
        yield reader
        nursery.cancel_scope.cancel()
