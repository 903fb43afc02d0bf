# SPDX-License-Identifier: Apache-2.0
"""The blocks of T=1.

Source: ISO/IEC 7816-3:2006, 11.3. A block is a prologue of three bytes (NAD, PCB, LEN), an
information field INF of LEN bytes and an epilogue, here always the one-byte LRC, the exclusive-or
of all bytes before it. A card announces in its ATR if it has the CRC instead; ours do not.
"""

import enum
from dataclasses import dataclass, field
from functools import reduce
from operator import xor
from typing import Final, TypeAlias

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError

MAX_INF: Final = 254
"""Bytes of the longest information field; LEN 255 is reserved (11.3.2.3)."""

_PROLOGUE_SIZE: Final = 3
_LRC_SIZE: Final = 1


class ErrorCode(enum.IntEnum):
    """What an R-block says of the block that it answers (11.3.2.2)."""

    NONE = 0
    REDUNDANCY_CODE = 1
    OTHER = 2


class Supervisory(enum.IntEnum):
    """What an S-block is about (11.3.2.2)."""

    RESYNCH = 0
    IFS = 1
    ABORT = 2
    WTX = 3


@dataclass(frozen=True, slots=True)
class IBlock:
    """A piece of an APDU.

    Attributes:
        ns: N(S), the number of the block, 0 or 1.
        more: the M bit: the APDU goes on in the next block.
        inf: the piece, 0 to 254 bytes. It may hold a PIN, so the repr leaves it out.
    """

    ns: int
    more: bool = False
    inf: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class RBlock:
    """An acknowledgement, or the wish to have a block again.

    Attributes:
        nr: N(R), the number of the I-block that is expected next, 0 or 1.
        error: what was wrong with the block before.
    """

    nr: int
    error: ErrorCode = ErrorCode.NONE


@dataclass(frozen=True, slots=True)
class SBlock:
    """A request, or the response to one.

    Attributes:
        about: what is asked for.
        response: whether it is the response.
        value: the one byte of INF: for IFS the bytes of INF that the sender takes (1 to 254), for
            WTX the multiple of the block waiting time BWT that the card needs (1 to 255). None for
            RESYNCH and ABORT.
    """

    about: Supervisory
    response: bool = False
    value: int | None = None


Block: TypeAlias = IBlock | RBlock | SBlock

RESYNCH_REQUEST: Final = SBlock(Supervisory.RESYNCH)
ABORT_REQUEST: Final = SBlock(Supervisory.ABORT)

S_BLOCK_VALUES: Final = {Supervisory.IFS: range(1, 0xFF), Supervisory.WTX: range(1, 0x100)}
"""The values that S-blocks about IFS and WTX may have."""


class InvalidBlockError(RemoteProtocolError):
    """The received bytes are no block.

    Attributes:
        code: what an R-block says of it.
    """

    def __init__(self, message: str, code: ErrorCode = ErrorCode.OTHER) -> None:
        super().__init__(message)
        self.code: Final = code


def encode(block: Block, nad: int = 0) -> bytes:
    """Gives a block's bytes.

    Args:
        block: the block.
        nad: the node address byte: the source in bits 1 to 3, the destination in bits 5 to 7.

    Raises:
        LocalProtocolError: A field has a value that the format does not allow.
    """
    if not is_node_address(nad):
        raise LocalProtocolError(f"NAD {nad:02X}")
    pcb, inf = _pcb_and_inf(block)
    body = bytes([nad, pcb, len(inf)]) + inf
    return body + bytes([reduce(xor, body)])


def _pcb_and_inf(block: Block) -> tuple[int, bytes]:
    match block:
        case IBlock(ns, more, inf) if ns in {0, 1} and len(inf) <= MAX_INF:
            return ns << 6 | more << 5, inf
        case RBlock(nr, error) if nr in {0, 1}:
            return 0x80 | nr << 4 | error, b""
        case SBlock(about, response, None) if about not in S_BLOCK_VALUES:
            return 0xC0 | response << 5 | about, b""
        case SBlock(about, response, int(value)) if value in S_BLOCK_VALUES.get(about, ()):
            return 0xC0 | response << 5 | about, bytes([value])
    raise LocalProtocolError(f"{block!r} with a field that the format does not allow")


def decode(raw: bytes, nad: int = 0) -> Block:
    """Reads a block.

    Args:
        raw: the whole block.
        nad: the node address byte that it must have.

    Raises:
        InvalidBlockError: It is not a block of the format, or not one with this NAD.
    """
    if len(raw) < _PROLOGUE_SIZE + _LRC_SIZE:
        raise InvalidBlockError(f"block of {len(raw)} bytes")
    received_nad, pcb, length = raw[:_PROLOGUE_SIZE]
    if length > MAX_INF or len(raw) != _PROLOGUE_SIZE + length + _LRC_SIZE:
        raise InvalidBlockError(f"LEN {length} in a block of {len(raw)} bytes")
    if reduce(xor, raw):
        raise InvalidBlockError("block with a wrong LRC", ErrorCode.REDUNDANCY_CODE)
    if received_nad != nad:
        raise InvalidBlockError(f"NAD {received_nad:02X} where {nad:02X} is in use")
    inf = raw[_PROLOGUE_SIZE:-_LRC_SIZE]
    if not pcb & 0x80:
        if pcb & 0x1F:
            raise InvalidBlockError(f"I-block with PCB {pcb:02X}")
        return IBlock(pcb >> 6, bool(pcb & 0x20), inf)
    if not pcb & 0x40:
        return _decode_r_block(pcb, length)
    return _decode_s_block(pcb, inf)


def _decode_r_block(pcb: int, length: int) -> RBlock:
    if pcb & 0x20 or pcb & 0x0F > max(ErrorCode) or length:
        raise InvalidBlockError(f"R-block with PCB {pcb:02X} and LEN {length}")
    return RBlock(pcb >> 4 & 1, ErrorCode(pcb & 0x0F))


def _decode_s_block(pcb: int, inf: bytes) -> SBlock:
    if pcb & 0x1F > max(Supervisory):
        raise InvalidBlockError(f"S-block with PCB {pcb:02X}")
    about = Supervisory(pcb & 0x1F)
    value = inf[0] if inf else None
    if len(inf) > 1 or value not in S_BLOCK_VALUES.get(about, {None}):
        raise InvalidBlockError(f"S({about.name}) with LEN {len(inf)} or a reserved value")
    return SBlock(about, bool(pcb & 0x20), value)


def is_node_address(nad: int) -> bool:
    """Tells whether a NAD is allowed (11.3.2.1): source and destination differ, or are both 0."""
    source, destination = nad & 0x07, nad >> 4 & 0x07
    return not nad & ~0x77 and (source != destination or not source)
