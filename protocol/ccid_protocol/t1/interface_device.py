# SPDX-License-Identifier: Apache-2.0
"""The interface device's end of T=1: that of the reader, or of the host behind it.

Source: ISO/IEC 7816-3:2006, 11.6; the rules that comments name are those of 11.6.3.
"""

from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.t1.blocks import (
    ABORT_REQUEST,
    MAX_INF,
    RESYNCH_REQUEST,
    S_BLOCK_VALUES,
    Block,
    ErrorCode,
    IBlock,
    RBlock,
    SBlock,
    Supervisory,
)
from ccid_protocol.t1.end import DEFAULT_IFS, MAX_COMMAND, MAX_RESPONSE, End

_MAX_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class ResponseReady:
    """The response to the command is complete.

    Attributes:
        apdu: the response APDU, left out of the repr.
    """

    apdu: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class IFSDAccepted:
    """The card knows how long its blocks may be.

    Attributes:
        ifsd: the bytes of INF.
    """

    ifsd: int


@dataclass(frozen=True, slots=True)
class Aborted:
    """The card aborted the command or its response; it is ready for another command."""


@dataclass(frozen=True, slots=True)
class Resynchronized:
    """Blocks got lost for good, and both ends start anew: with N(S) 0 and the IFSD of 32.

    If a command was under way its response is lost, and whether it was executed is unknown.
    """


ExchangeEnd: TypeAlias = ResponseReady | IFSDAccepted | Aborted | Resynchronized
"""How an exchange that the interface device began can end."""


class InterfaceDevice(End):
    """The interface device's end of T=1, without the I/O.

    It sends a block, then waits for the card's, for BWT times `waiting_time_multiplier` at most:
    so each block that it gives is followed by one call of `receive_block` or `time_out`.

    Args:
        ifsc: the bytes of INF that the card takes, as its ATR says in TA3.
        nad: the node address byte of this end's blocks.
        max_response: the bytes of response APDU above which the card is broken.

    Raises:
        LocalProtocolError: `ifsc` is not within 1 to 254, or there is no such NAD.
    """

    def __init__(
        self, ifsc: int = DEFAULT_IFS, nad: int = 0, max_response: int = MAX_RESPONSE
    ) -> None:
        self._max_response: Final = max_response
        self._failure: RemoteProtocolError | None = None
        super().__init__(nad, MAX_INF, ifsc)

    def _start(self) -> None:
        super()._start()
        self._waits = False
        self._aborted = False
        self._multiplier = 1
        self._errors = 0
        self._repetitions = 0

    @property
    def waiting_time_multiplier(self) -> int:
        """How many times BWT the card may take for its next block (1, or what S(WTX) says)."""
        return self._multiplier

    def send_command(self, apdu: bytes) -> bytes:
        """Gives the first block of a command.

        Args:
            apdu: the command APDU, 1 to 65544 bytes.

        Raises:
            LocalProtocolError: An exchange is under way, or the APDU is too short or too long.
            RemoteProtocolError: The card must be reset first.
        """
        if not 1 <= len(apdu) <= MAX_COMMAND:
            raise LocalProtocolError(f"command APDU of {len(apdu)} bytes")
        self._begin()
        self._outgoing += apdu
        return self._send_piece()

    def send_ifsd(self, ifsd: int = MAX_INF) -> bytes:
        """Gives S(IFS request), which tells the card how long its blocks may be (rule 4).

        Args:
            ifsd: the bytes of INF, 1 to 254.

        Raises:
            LocalProtocolError: An exchange is under way, or `ifsd` is out of range.
            RemoteProtocolError: The card must be reset first.
        """
        if ifsd not in S_BLOCK_VALUES[Supervisory.IFS]:
            raise LocalProtocolError(f"IFSD {ifsd}")
        self._begin()
        return self._send_request(SBlock(Supervisory.IFS, value=ifsd))

    def receive_block(self, raw: bytes) -> bytes | ExchangeEnd:
        """Takes one block of the card, whatever its bytes.

        Returns:
            The block to send, or how the exchange ended.

        Raises:
            RemoteProtocolError: The card cannot be brought back, or its response is too long: reset
                it. Every later call raises the same.
            LocalProtocolError: No block is awaited.
        """
        self._check_waiting()
        self._multiplier = 1
        block = self._decode(raw)
        if self._request is not None:
            return self._receive_answer(self._request, block)
        if isinstance(block, ErrorCode):
            return self._fail(block)
        self._errors = 0
        match block:
            case IBlock():
                return self._receive_i_block(block)
            case RBlock():
                return self._receive_r_block(block)
            case SBlock():
                return self._receive_s_block(block)

    def time_out(self) -> bytes:
        """Gives the block to send after the card's did not come within the waiting time.

        Raises:
            RemoteProtocolError, LocalProtocolError: As for `receive_block`.
        """
        self._check_waiting()
        self._multiplier = 1
        return self._fail(ErrorCode.OTHER)

    def _begin(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._waits:
            raise LocalProtocolError("a second exchange before the first has ended")
        self._waits = True
        self._aborted = False
        self._errors = 0
        self._repetitions = 0

    def _check_waiting(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._waits:
            raise LocalProtocolError("no block of the card is awaited")

    def _receive_answer(self, request: SBlock, block: Block | ErrorCode) -> bytes | ExchangeEnd:
        if block != replace(request, response=True):
            return self._fail(ErrorCode.OTHER)
        self._request = None
        self._waits = False
        return Resynchronized() if request.value is None else IFSDAccepted(request.value)

    def _receive_i_block(self, block: IBlock) -> bytes | ResponseReady:
        # While our own chain goes on only an R-block may answer (rule 5).
        if block.ns != self._expected_ns or self._outgoing:
            return self._repeat(self._recovery(ErrorCode.OTHER))
        self._expected_ns ^= 1
        self._unacknowledged = None
        self._aborted = False
        self._repetitions = 0
        self._incoming += block.inf
        if len(self._incoming) > self._max_response:
            raise self._broken(f"response of more than {self._max_response} bytes")
        if block.more:
            return self._send(RBlock(self._expected_ns))
        apdu = bytes(self._incoming)
        self._incoming.clear()
        self._waits = False
        return ResponseReady(apdu)

    def _receive_r_block(self, block: RBlock) -> bytes | Aborted:
        if self._aborted:
            self._waits = False
            return Aborted()
        if self._unacknowledged is not None and block.nr == self._unacknowledged.ns:
            return self._repeat(self._unacknowledged)
        if self._outgoing:
            self._repetitions = 0
            return self._send_piece()
        # The card has the whole command: it is the card's I-block that was lost.
        return self._repeat(self._recovery(ErrorCode.OTHER))

    def _receive_s_block(self, block: SBlock) -> bytes:
        if block.about is Supervisory.WTX and not block.response and block.value:  # rule 3
            self._multiplier = block.value
            return self._send(replace(block, response=True))
        response = self._response_to(block)
        self._aborted = self._aborted or block == ABORT_REQUEST
        return self._repeat(response or self._recovery(ErrorCode.OTHER))

    def _fail(self, error: ErrorCode) -> bytes:
        """Answers a block that is invalid or did not come."""
        self._errors += 1
        if self._errors == _MAX_ATTEMPTS:
            return self._resynchronize()
        return self._send(self._recovery(error))

    def _repeat(self, block: Block) -> bytes:
        """Answers a valid block that does not bring the exchange further.

        Rule 7.4.2 limits errors only: without a limit here a card could ask for a block for ever.
        """
        self._repetitions += 1
        if self._repetitions > _MAX_ATTEMPTS:
            return self._resynchronize()
        return self._send(block)

    def _resynchronize(self) -> bytes:
        if self._request == RESYNCH_REQUEST:  # rule 6.4
            raise self._broken(f"no answer to {_MAX_ATTEMPTS} S(RESYNCH request)")
        self._start()  # rule 7.4.2
        self._waits = True
        return self._send_request(RESYNCH_REQUEST)

    def _broken(self, fault: str) -> RemoteProtocolError:
        self._failure = RemoteProtocolError(f"T=1 card: {fault}; it must be reset")
        self._end_chains()
        return self._failure
