# SPDX-License-Identifier: Apache-2.0
"""The card's end of T=1.

Source: ISO/IEC 7816-3:2006, 11.6; the rules that comments name are those of 11.6.3. They leave a
card silent only after an S(IFS request) of its own, and this card sends none: so each block that
comes has its answer, however damaged it is.
"""

import enum
from dataclasses import dataclass, field, replace
from typing import Final

from ccid_protocol.errors import LocalProtocolError
from ccid_protocol.t1.blocks import (
    ABORT_REQUEST,
    RESYNCH_REQUEST,
    S_BLOCK_VALUES,
    Block,
    ErrorCode,
    IBlock,
    RBlock,
    SBlock,
    Supervisory,
)
from ccid_protocol.t1.end import DEFAULT_IFS, MAX_COMMAND, MAX_RESPONSE, End, swap_nodes


@dataclass(frozen=True, slots=True)
class CommandReady:
    """A command is complete: hand it to the card.

    Attributes:
        apdu: the command APDU, left out of the repr: 0 to `max_command` bytes, whatever they are.
    """

    apdu: bytes = field(repr=False)


class CardWorks(enum.Enum):
    """The type of `CARD_WORKS`, so that type checkers can tell it from an event."""

    CARD_WORKS = enum.auto()


CARD_WORKS: Final = CardWorks.CARD_WORKS
"""There is no block to send yet: the answer is the response to the command that the card has."""


class CardEnd(End):
    """The card's end of T=1, without the I/O.

    Args:
        ifsc: the bytes of INF that it takes, as the card's ATR says in TA3.
        ifsd: the bytes of INF that the interface device takes until it says otherwise: 32, unless
            the reader itself has seen to that before (CCID's automatic IFSD exchange).
        nad: the node address byte of the interface device's blocks. The card's blocks have the
            same with source and destination exchanged.
        max_command: the bytes of command APDU above which it aborts the chain.

    Raises:
        LocalProtocolError: A size is not within 1 to 254, or there is no such NAD.
    """

    def __init__(
        self,
        ifsc: int = DEFAULT_IFS,
        ifsd: int = DEFAULT_IFS,
        nad: int = 0,
        max_command: int = MAX_COMMAND,
    ) -> None:
        self._max_command: Final = max_command
        super().__init__(swap_nodes(nad), ifsc, ifsd)

    def _start(self) -> None:
        super()._start()
        self._works = False

    @property
    def works(self) -> bool:
        """Whether a command was given out that still needs its response.

        The interface device can end that at any time, by S(RESYNCH request).
        """
        return self._works

    def receive_block(self, raw: bytes) -> bytes | CommandReady | CardWorks:
        """Takes one block of the interface device, whatever its bytes.

        Returns:
            The block to send; or `CommandReady`, or `CARD_WORKS`, and then the block comes from
            `send_response` or `request_extension`.
        """
        block = self._decode(raw)
        if block == RESYNCH_REQUEST:  # rule 6
            self._start()
            return self._send(replace(RESYNCH_REQUEST, response=True))
        if self._request is not None:
            return self._receive_answer(self._request, block)
        if self._works:
            return CARD_WORKS
        match block:
            case IBlock():
                return self._receive_i_block(block)
            case RBlock():
                return self._receive_r_block(block)
            case SBlock():
                answer = self._response_to(block) or self._recovery(ErrorCode.OTHER)
            case _:
                answer = self._recovery(block)
        return self._send(answer)

    def send_response(self, apdu: bytes) -> bytes:
        """Gives the first block of a response; `receive_block` sees to the others.

        Args:
            apdu: the response APDU, 2 to 65538 bytes.

        Raises:
            LocalProtocolError: There is no command to answer, or the interface device has yet to
                answer the request for more time, or the response is too short or too long.
        """
        if not 2 <= len(apdu) <= MAX_RESPONSE:
            raise LocalProtocolError(f"response APDU of {len(apdu)} bytes")
        self._check_turn("response APDU")
        self._works = False
        self._outgoing += apdu
        return self._send_piece()

    def request_extension(self, multiplier: int = 1) -> bytes:
        """Gives S(WTX request): the card needs more time for the command that it has (rule 3).

        Args:
            multiplier: the multiple of the block waiting time BWT, 1 to 255.

        Raises:
            LocalProtocolError: As for `send_response`, or there is no such multiple.
        """
        if multiplier not in S_BLOCK_VALUES[Supervisory.WTX]:
            raise LocalProtocolError(f"a waiting time extension of {multiplier} BWT")
        self._check_turn("S(WTX request)")
        return self._send_request(SBlock(Supervisory.WTX, value=multiplier))

    def drop_command(self) -> None:
        """Gives up the command that the card has, or had: there will be no response to it.

        For a card that failed, or whose reader was told to abort. Nothing is sent; the interface
        device, which waits for a block that does not come, asks for it.
        """
        if self._works:
            self._works = False
            self._request = None

    def _check_turn(self, what: str) -> None:
        if not self._works:
            raise LocalProtocolError(f"{what} without a command")
        if self._request is not None:
            raise LocalProtocolError(f"{what} before {self._request!r} is answered")

    def _receive_answer(self, request: SBlock, block: Block | ErrorCode) -> bytes | CardWorks:
        if block != replace(request, response=True):
            return self._send(request)  # rule 7.3
        self._request = None
        # After S(ABORT response) an R-block gives back the right to send (rule 9).
        return CARD_WORKS if self._works else self._send(RBlock(self._expected_ns))

    def _receive_i_block(self, block: IBlock) -> bytes | CommandReady:
        # While our own chain goes on only an R-block may answer (rule 5).
        if block.ns != self._expected_ns or self._outgoing:
            return self._send(self._recovery(ErrorCode.OTHER))
        self._expected_ns ^= 1
        self._unacknowledged = None
        self._incoming += block.inf
        if len(self._incoming) > self._max_command:
            self._end_chains()
            return self._send_request(ABORT_REQUEST)
        if block.more:
            return self._send(RBlock(self._expected_ns))
        self._works = True
        apdu = bytes(self._incoming)
        self._incoming.clear()
        return CommandReady(apdu)

    def _receive_r_block(self, block: RBlock) -> bytes:
        if self._unacknowledged is not None and block.nr == self._unacknowledged.ns:
            return self._send(self._unacknowledged)
        if self._outgoing:
            return self._send_piece()
        # The interface device has all that we sent: a block of its own was lost.
        return self._send(self._recovery(ErrorCode.NONE))
