# SPDX-License-Identifier: Apache-2.0
"""Cards that do what a test needs."""

from collections.abc import Awaitable, Callable

import trio

from ccid_protocol.apdu import CommandAPDU, ResponseAPDU
from ccid_protocol.atr import ATR, InterfaceBytes
from ccidd.card.card import Card


class ScriptedCard(Card):
    """A card that answers with what a function gives.

    Args:
        answer: makes the response of a command.
        historical: the historical bytes of its ATR.
        interface: the interface bytes of its ATR.
    """

    def __init__(
        self,
        answer: Callable[[bytes], Awaitable[bytes]],
        historical: bytes = b"test",
        interface: tuple[InterfaceBytes, ...] = (),
    ) -> None:
        self._answer = answer
        self._atr = ATR(historical, interface)
        self.history: list[str] = []

    async def power_on(self) -> ATR:
        await trio.lowlevel.checkpoint()
        self.history.append("on")
        return self._atr

    async def power_off(self) -> None:
        await trio.lowlevel.checkpoint()
        self.history.append("off")

    async def transmit(self, command: bytes) -> bytes:
        return await self._answer(command)


async def response_of_length(command: bytes) -> bytes:
    """Gives as many bytes as P1 and P2 say, the status word included."""
    await trio.lowlevel.checkpoint()
    length = int.from_bytes(command[2:4])
    return bytes(i % 251 for i in range(length - 2)) + b"\x90\x00"


def echo_card() -> ScriptedCard:
    return ScriptedCard(response_of_length)


async def transmit(card: Card, command: CommandAPDU) -> ResponseAPDU:
    """Sends a command to a card."""
    return ResponseAPDU.decode(await card.transmit(command.encode()))
