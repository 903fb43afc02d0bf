# SPDX-License-Identifier: Apache-2.0
"""Cards that a script puts into a slot, most of them bad."""

import trio

from cards import ScriptedCard, echo_card
from ccid_protocol import RemoteProtocolError
from ccid_protocol.atr import ATR
from ccidd.card.card import Card, CardGoneError
from fuzzing.script import Script
from hostile_guest import T1, dead, deaf, slow

_LONGEST_RESPONSE = bytes(65536) + b"\x90\x00"


class HostileCard(Card):
    """Answers everything with the same, after a while.

    Args:
        atr: its answer to reset; none if these are no such bytes.
        response: what it answers with. The first byte may mean something else.
        seconds: how long each answer takes.
    """

    def __init__(self, atr: bytes, response: bytes, seconds: float) -> None:
        try:
            self._atr: ATR | None = ATR.decode(atr)
        except RemoteProtocolError:
            self._atr = None
        self._response = response
        self._seconds = seconds

    async def power_on(self) -> ATR:
        """Gives the ATR, or fails."""
        await trio.sleep(self._seconds)
        if self._atr is None:
            raise CardGoneError
        return self._atr

    async def power_off(self) -> None:
        """Takes its time."""
        await trio.sleep(self._seconds)

    async def transmit(self, command: bytes) -> bytes:
        """Gives the response, or fails."""
        await trio.sleep(self._seconds)
        match self._response[:1]:
            case b"\xff":
                raise RuntimeError("a fault of the card")
            case b"\xfe":
                raise CardGoneError
            case b"\xfd":
                return _LONGEST_RESPONSE
            case b"\xfc":
                return command
            case _:
                return self._response


def card(script: Script) -> Card | None:
    """Gives the card that a script asks for, or none."""
    kind = script.number()
    match kind % 8:
        case 0:
            return None
        case 1:
            return echo_card()
        case 2:
            return ScriptedCard(slow, interface=T1)
        case 3:
            return ScriptedCard(dead, interface=T1)
        case 4:
            return ScriptedCard(deaf)
        case _:
            seconds = script.choice((0, 0, 0, 0.5, 2, 6))
            return HostileCard(script.piece(), script.piece(), seconds)
