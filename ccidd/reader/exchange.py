# SPDX-License-Identifier: Apache-2.0
"""How the data of PC_to_RDR_XfrBlock reach a card, at each exchange level.

Source: USB CCID Rev 1.1, 3.2 (levels of exchange) and 6.1.4 (PC_to_RDR_XfrBlock); ISO/IEC
7816-3:2006, 11.4.3 (block waiting time) and 12.2 (APDUs over T=0).
"""

import math
from abc import ABC, abstractmethod
from functools import reduce
from operator import xor
from typing import Final

import trio

from ccid_protocol import pps
from ccid_protocol.atr import ATR
from ccid_protocol.ccid import (
    BadFieldError,
    ChainParameter,
    LevelParameter,
    Offset,
    SlotError,
    block_waiting_time,
    t1_parameters,
)
from ccid_protocol.errors import RemoteProtocolError
from ccid_protocol.pps import PPS, PPSS
from ccid_protocol.t1 import CardEnd, CommandReady
from ccidd.card.card import Card
from ccidd.reader.profile import CLOCK
from ccidd.reader.short_responses import ShortResponses
from ccidd.reader.t0 import T0CardEnd

MAX_SHORT_RESPONSE: Final = 258
"""Bytes of a response APDU with a short Le, status word included; T=0 carries no longer one."""

MAX_APDU: Final = 65544
"""Bytes of the longest extended APDU that the specification provides for."""

_PATIENCE: Final = 0.75
"""The part of the block waiting time after which a card that works asks for more of it."""


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

    @property
    def is_amid(self) -> bool:
        """Whether a command has begun to come, and the rest of it has not."""
        return False

    def abort(self) -> None:  # noqa: B027 (most have nothing to forget)
        """Forgets the pieces of commands and responses: the host has aborted the exchange."""

    def close(self) -> None:  # noqa: B027 (most have nothing to end)
        """Ends what the card may still be at work on: it has lost its power."""

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

    @property
    def is_amid(self) -> bool:
        """See `Exchange.is_amid`."""
        return self._collecting

    def abort(self) -> None:
        """See `Exchange.abort`."""
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

    async def transfer(self, data: bytes, level: int, /) -> tuple[bytes, int]:
        """See `Exchange.transfer`; the level parameter is RFU, and 0."""
        if level:
            # scdaemon cuts what is too long for a message into pieces here too. A card must not
            # take a piece for a command.
            raise BadFieldError(Offset.LEVEL_PARAMETER)
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
        tasks: runs what a T=1 card works on between two blocks.
    """

    def __init__(self, card: Card, atr: ATR, tasks: trio.Nursery) -> None:
        parameters = t1_parameters(atr)
        self._atr = atr
        self._card = card
        self._tasks = tasks
        self._t0 = T0CardEnd(card)
        self._t1 = CardEnd(ifsc=parameters.ifsc)
        self._work: _Work | None = None
        self._patience = _PATIENCE * block_waiting_time(parameters.bwi, CLOCK)
        self._protocol = atr.first_protocol
        self._may_negotiate = True
        self._is_mute = False

    def select(self, protocol: int) -> None:
        """Learns from PC_to_RDR_SetParameters which protocol is in use."""
        self._protocol = protocol

    def abort(self) -> None:
        """See `Exchange.abort`."""
        self._end_work()

    def close(self) -> None:
        """See `Exchange.close`."""
        self._end_work()

    async def transfer(self, data: bytes, _level: int, /) -> tuple[bytes, int]:
        """See `Exchange.transfer`; the level parameter is RFU."""
        may_negotiate, self._may_negotiate = self._may_negotiate, False
        if self._is_mute:
            raise SlotFailure(SlotError.ICC_MUTE)
        if may_negotiate and data[:1] == bytes([PPSS]):
            return self._negotiate(data), ChainParameter.WHOLE
        if self._protocol == 0:
            return await self._transfer_tpdu(data), ChainParameter.WHOLE
        return await self._transfer_block(data, self._patience), ChainParameter.WHOLE

    async def transfer_secure(self, command: bytes, prologue: bytes) -> bytes:
        """See `Exchange.transfer_secure`."""
        self._may_negotiate = False
        if self._is_mute:
            raise SlotFailure(SlotError.ICC_MUTE)
        if self._protocol == 0:
            return await self._transfer_tpdu(command)
        block = bytes([*prologue[:2], len(command)]) + command
        # The reader itself would have to grant the card more time.
        return await self._transfer_block(block + bytes([reduce(xor, block)]), math.inf)

    def _negotiate(self, data: bytes) -> bytes:
        """Answers PPS. A card that does not accept the request stays mute until it is reset."""
        try:
            accepted = pps.answer(PPS.decode(data), self._atr)
        except RemoteProtocolError as error:
            self._is_mute = True
            raise SlotFailure(SlotError.ICC_MUTE) from error
        self._protocol = accepted.protocol
        return accepted.encode()

    async def _transfer_tpdu(self, tpdu: bytes) -> bytes:
        try:
            return await self._t0.transmit(tpdu)
        except RemoteProtocolError as error:
            raise BadFieldError(Offset.LENGTH) from error

    async def _transfer_block(self, block: bytes, patience: float) -> bytes:
        """Gives the card's answer to a block.

        Args:
            block: the block.
            patience: seconds after which a card that works asks for more time.
        """
        answer = self._t1.receive_block(block)
        if not self._t1.works:
            # The host has resynchronized, and wants no answer any more.
            self._end_work()
        if isinstance(answer, bytes):
            return answer
        if isinstance(answer, CommandReady):
            self._work = _Work(self._card, answer.apdu)
            self._tasks.start_soon(self._work.run)
        assert self._work is not None
        try:
            response = await self._work.wait(patience)
        except BaseException:
            self._end_work()
            raise
        if response is None:
            return self._t1.request_extension()
        self._work = None
        return self._t1.send_response(response)

    def _end_work(self) -> None:
        self._t1.drop_command()
        if self._work is not None:
            self._work.cancel()
            self._work = None


class _Work:
    """A command that a card carries out, for as long as blocks go to and fro.

    Args:
        card: the card.
        command: the command APDU.
    """

    def __init__(self, card: Card, command: bytes) -> None:
        self._card = card
        self._command = command
        self._scope = trio.CancelScope()
        self._done = trio.Event()
        self._response = b""
        self._fault: Exception | None = None

    async def run(self) -> None:
        """Has the card carry the command out."""
        with self._scope:
            try:
                self._response = await self._card.transmit(self._command)
            except Exception as fault:  # noqa: BLE001 (whoever waits gets it)
                self._fault = fault
            self._done.set()

    def cancel(self) -> None:
        """Ends the work: nobody waits for it any more."""
        self._scope.cancel()

    async def wait(self, seconds: float) -> bytes | None:
        """Gives the response APDU, or None if it is not there after so many seconds.

        Raises:
            Exception: what the card failed with.
        """
        with trio.move_on_after(seconds):
            await self._done.wait()
        if self._fault is not None:
            raise self._fault
        return self._response if self._done.is_set() else None
