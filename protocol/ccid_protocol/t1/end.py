# SPDX-License-Identifier: Apache-2.0
"""What the two ends of T=1 have in common: sequence numbers, chains, and rules 7.1 to 7.3.

Source: ISO/IEC 7816-3:2006, 11.6; the rules that comments name are those of 11.6.3.
"""

from dataclasses import replace
from typing import Final

from ccid_protocol.errors import LocalProtocolError
from ccid_protocol.t1.blocks import (
    MAX_INF,
    Block,
    ErrorCode,
    IBlock,
    InvalidBlockError,
    RBlock,
    SBlock,
    Supervisory,
    decode,
    encode,
    is_node_address,
)

DEFAULT_IFS: Final = 32
"""Bytes of INF that an end takes before it has said otherwise (11.4.2)."""

MAX_COMMAND: Final = 65544
"""Bytes of the longest command APDU: header 4, extended Lc 3, data 65535, Le 2."""

MAX_RESPONSE: Final = 65538
"""Bytes of the longest response APDU: data 65536, status word 2."""


def swap_nodes(nad: int) -> int:
    """Gives the node address byte of blocks in the other direction."""
    return (nad << 4 | nad >> 4) & 0xFF


class End:
    """One end of the transmission, as far as both are the same.

    Args:
        our_nad: the node address byte of the blocks that this end sends.
        our_ifs: the bytes of INF that this end takes.
        their_ifs: the bytes of INF that the other end takes until it says otherwise.
    """

    def __init__(self, our_nad: int, our_ifs: int, their_ifs: int) -> None:
        if not is_node_address(our_nad):
            raise LocalProtocolError(f"NAD {our_nad:02X}")
        if not (1 <= our_ifs <= MAX_INF and 1 <= their_ifs <= MAX_INF):
            raise LocalProtocolError(f"IFS {our_ifs} and {their_ifs}")
        self._our_nad: Final = our_nad
        self._their_nad: Final = swap_nodes(our_nad)
        self._our_ifs: Final = our_ifs
        self._their_initial_ifs: Final = their_ifs
        self._start()

    def _start(self) -> None:
        """Goes to the state after the ATR, which is also that after resynchronisation (rule 6)."""
        self._their_ifs = self._their_initial_ifs
        self._expected_ns = 0
        self._next_ns = 0
        self._sent: Block | None = None
        self._request: SBlock | None = None
        self._end_chains()

    def _end_chains(self) -> None:
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._unacknowledged: IBlock | None = None

    def _decode(self, raw: bytes) -> Block | ErrorCode:
        try:
            block = decode(raw, self._their_nad)
        except InvalidBlockError as error:
            return error.code
        too_long = isinstance(block, IBlock) and len(block.inf) > self._our_ifs
        return ErrorCode.OTHER if too_long else block

    def _send(self, block: Block) -> bytes:
        self._sent = block
        return encode(block, self._our_nad)

    def _send_request(self, request: SBlock) -> bytes:
        self._request = request
        return self._send(request)

    def _send_piece(self) -> bytes:
        """Sends the next I-block of what is outgoing."""
        inf = bytes(self._outgoing[: self._their_ifs])
        del self._outgoing[: self._their_ifs]
        self._unacknowledged = IBlock(self._next_ns, bool(self._outgoing), inf)
        self._next_ns ^= 1
        return self._send(self._unacknowledged)

    def _recovery(self, error: ErrorCode) -> Block:
        """Gives the block that answers one which is invalid, or not what has to come now."""
        if self._request is not None:  # rule 7.3
            return self._request
        if isinstance(self._sent, RBlock):  # rule 7.2
            return self._sent
        return RBlock(self._expected_ns, error)  # rules 7.1 and 7.5

    def _response_to(self, request: SBlock) -> SBlock | None:
        """Gives the response to a request that both ends may send, or None for anything else."""
        match request:
            case SBlock(Supervisory.IFS, False, int(size)):  # rule 4
                self._their_ifs = size
            case SBlock(Supervisory.ABORT, False):  # rule 9
                self._end_chains()
            case _:
                return None
        return replace(request, response=True)
