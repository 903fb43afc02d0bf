# SPDX-License-Identifier: Apache-2.0
"""How the data of PC_to_RDR_XfrBlock reach a card, at each exchange level.

Source: USB CCID Rev 1.1, 3.2 (levels of exchange) and 6.1.4 (PC_to_RDR_XfrBlock); ISO/IEC
7816-3:2006, 12.2 (APDUs over T=0).
"""

from abc import ABC, abstractmethod
from functools import reduce
from operator import xor
from typing import Final

from ccid_protocol import pps
from ccid_protocol.atr import ATR
from ccid_protocol.ccid import BadFieldError, ChainParameter, LevelParameter, Offset, SlotError
from ccid_protocol.errors import RemoteProtocolError
from ccid_protocol.pps import PPS, PPSS
from ccid_protocol.t1 import CardEnd, CommandReady
from ccidd.card.card import Card
from ccidd.reader.short_responses import ShortResponses

MAX_SHORT_RESPONSE: Final = 258
"""Bytes of a response APDU with a short Le, status word included; T=0 carries no longer one."""

MAX_APDU: Final = 65544
"""Bytes of the longest extended APDU that the specification provides for."""

DEFAULT_IFSC: Final = 32
"""Bytes of INF that a card takes whose ATR has no TA3 for T=1 (ISO/IEC 7816-3:2006, 11.4.2)."""


class SlotFailure(Exception):  # noqa: N818 (bmCommandStatus says "failed", not "error")
    """A command of the host fails.

    Args:
        error: bError of the answer.
    """

    def __init__(self, error: int) -> None:
        super().__init__(f"bError {error:02X}")
        self.error: Final = error


class Exchange(ABC):
    """The way to a card that is powered, from its ATR to its next."""

    @abstractmethod
    async def transfer(self, data: bytes, level: int, /) -> tuple[bytes, int]:
        """Carries out an XfrBlock.

        Args:
            data: abData.
            level: wLevelParameter.

        Returns:
            abData and bChainParameter of the answer.

        Raises:
            BadFieldError: The level parameter does not fit the messages before.
            SlotFailure: The card does not answer.
        """

    @abstractmethod
    async def transfer_secure(self, command: bytes, prologue: bytes) -> bytes:
        """Sends a command that a PIN was written into.

        Args:
            command: the command APDU.
            prologue: bTeoPrologue: NAD, PCB and LEN of the T=1 block, which the TPDU level needs.

        Returns:
            abData of the answer.

        Raises:
            SlotFailure: The card does not answer.
        """


class ExtendedApduExchange(Exchange):
    """Short and extended APDUs, which may come and go in pieces.

    Args:
        card: the card.
        max_data: bytes of abData that fit into one message.
    """

    def __init__(self, card: Card, max_data: int) -> None:
        self._card = card
        self._max_data = max_data
        self._command = bytearray()
        self._collecting = False
        self._response = b""

    async def transfer(self, data: bytes, level: int, /) -> tuple[bytes, int]:
        """See `Exchange.transfer`."""
        continues = level in {LevelParameter.CONTINUES, LevelParameter.ENDS}
        if continues is not self._collecting:
            self._collecting = False
            raise BadFieldError(Offset.LEVEL_PARAMETER)
        if level == LevelParameter.NEXT_RESPONSE_PIECE:
            return self._next_response_piece()
        self._response = b""
        if not continues:
            self._command.clear()
        self._command += data
        self._collecting = level in {LevelParameter.BEGINS, LevelParameter.CONTINUES}
        if len(self._command) > MAX_APDU:
            self._collecting = False
            raise SlotFailure(SlotError.XFR_OVERRUN)
        if self._collecting:
            return b"", ChainParameter.NEXT_COMMAND_PIECE
        response = await self._card.transmit(bytes(self._command))
        if len(response) <= self._max_data:
            return response, ChainParameter.WHOLE
        self._response = response[self._max_data :]
        return response[: self._max_data], ChainParameter.BEGINS

    async def transfer_secure(self, command: bytes, _prologue: bytes) -> bytes:
        """See `Exchange.transfer_secure`."""
        data, _chain = await self.transfer(command, LevelParameter.WHOLE)
        return data

    def _next_response_piece(self) -> tuple[bytes, int]:
        if not self._response:
            raise BadFieldError(Offset.LEVEL_PARAMETER)
        piece = self._response[: self._max_data]
        self._response = self._response[self._max_data :]
        return piece, ChainParameter.CONTINUES if self._response else ChainParameter.ENDS


class ShortApduExchange(Exchange):
    """APDUs with short length fields.

    Args:
        card: the card.
    """

    def __init__(self, card: Card) -> None:
        self._card = ShortResponses(card, longest=MAX_SHORT_RESPONSE)

    async def transfer(self, data: bytes, _level: int, /) -> tuple[bytes, int]:
        """See `Exchange.transfer`; the level parameter is RFU."""
        return await self._card.transmit(data), ChainParameter.WHOLE

    async def transfer_secure(self, command: bytes, _prologue: bytes) -> bytes:
        """See `Exchange.transfer_secure`."""
        return await self._card.transmit(command)


class TpduExchange(Exchange):
    """What a card's contacts would see: PPS, TPDUs of T=0, blocks of T=1.

    The card's end of these protocols is here; behind it the card sees APDUs.

    Args:
        card: the card.
        atr: its ATR.
    """

    def __init__(self, card: Card, atr: ATR) -> None:
        self._atr = atr
        self._card = card
        self._t0 = ShortResponses(card, longest=MAX_SHORT_RESPONSE)
        self._t1 = CardEnd(ifsc=_ifsc(atr))
        self._protocol = atr.protocols[0]
        self._may_negotiate = True

    def select(self, protocol: int) -> None:
        """Learns from PC_to_RDR_SetParameters which protocol is in use."""
        self._protocol = protocol

    async def transfer(self, data: bytes, _level: int, /) -> tuple[bytes, int]:
        """See `Exchange.transfer`; the level parameter is RFU."""
        may_negotiate, self._may_negotiate = self._may_negotiate, False
        if may_negotiate and data[:1] == bytes([PPSS]):
            return self._negotiate(data), ChainParameter.WHOLE
        if self._protocol == 0:
            return await self._t0.transmit(data), ChainParameter.WHOLE
        return await self._transfer_block(data), ChainParameter.WHOLE

    async def transfer_secure(self, command: bytes, prologue: bytes) -> bytes:
        """See `Exchange.transfer_secure`."""
        self._may_negotiate = False
        if self._protocol == 0:
            return await self._t0.transmit(command)
        block = bytes([*prologue[:2], len(command)]) + command
        return await self._transfer_block(block + bytes([reduce(xor, block)]))

    def _negotiate(self, data: bytes) -> bytes:
        """Answers PPS; a card stays mute where it does not accept the request."""
        try:
            accepted = pps.answer(PPS.decode(data), self._atr)
        except RemoteProtocolError as error:
            raise SlotFailure(SlotError.ICC_MUTE) from error
        self._protocol = accepted.protocol
        return accepted.encode()

    async def _transfer_block(self, block: bytes) -> bytes:
        answer = self._t1.receive_block(block)
        if isinstance(answer, bytes):
            return answer
        if not isinstance(answer, CommandReady):
            raise SlotFailure(SlotError.ICC_MUTE)
        return self._t1.send_response(await self._card.transmit(answer.apdu))


def _ifsc(atr: ATR) -> int:
    """TA of the first group after the one that names T=1 (ISO/IEC 7816-3:2006, 11.4.2)."""
    for before, group in zip(atr.groups[1:], atr.groups[2:], strict=False):
        if before.protocol == 1:
            return group.ta or DEFAULT_IFSC
    return DEFAULT_IFSC
