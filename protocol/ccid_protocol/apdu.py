# SPDX-License-Identifier: Apache-2.0
"""Command and response APDUs.

Source: ISO/IEC 7816-3:2006, 12.1 (the cases of commands, short and extended length fields) and
ISO/IEC 7816-4:2013, 5.1 (class byte, status words). Length fields are big-endian.
"""

import enum
from dataclasses import dataclass, field
from typing import Final, Self

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError

MAX_SHORT_NC: Final = 255
"""Bytes of command data that a short length field can announce."""

MAX_SHORT_NE: Final = 256
"""Bytes of response data that a short length field can ask for."""

MAX_EXTENDED_NC: Final = 65535
"""Bytes of command data that an extended length field can announce."""

MAX_EXTENDED_NE: Final = 65536
"""Bytes of response data that an extended length field can ask for."""

_HEADER_SIZE: Final = 4


class Instruction(enum.IntEnum):
    """The instruction bytes of ISO/IEC 7816-4 that the project's cards use."""

    VERIFY = 0x20
    CHANGE_REFERENCE_DATA = 0x24
    RESET_RETRY_COUNTER = 0x2C
    GENERATE_ASYMMETRIC_KEY_PAIR = 0x47
    GENERAL_AUTHENTICATE = 0x87
    SELECT = 0xA4
    GET_RESPONSE = 0xC0
    GET_DATA_CA = 0xCA
    GET_DATA = 0xCB
    PUT_DATA = 0xDB


class StatusWord(enum.IntEnum):
    """Status words SW1-SW2 (ISO/IEC 7816-4:2013, 5.1.3, tables 5 to 7)."""

    SUCCESS = 0x9000
    MEMORY_FAILURE = 0x6581
    WRONG_LENGTH = 0x6700
    LOGICAL_CHANNEL_NOT_SUPPORTED = 0x6881
    SECURE_MESSAGING_NOT_SUPPORTED = 0x6882
    CHAINING_NOT_SUPPORTED = 0x6884
    COMMAND_NOT_ALLOWED = 0x6900
    SECURITY_STATUS_NOT_SATISFIED = 0x6982
    AUTHENTICATION_METHOD_BLOCKED = 0x6983
    REFERENCE_DATA_NOT_USABLE = 0x6984
    CONDITIONS_NOT_SATISFIED = 0x6985
    WRONG_PARAMETERS = 0x6A00
    INCORRECT_DATA = 0x6A80
    FUNCTION_NOT_SUPPORTED = 0x6A81
    NOT_FOUND = 0x6A82
    NOT_ENOUGH_MEMORY = 0x6A84
    INCORRECT_P1_P2 = 0x6A86
    REFERENCED_DATA_NOT_FOUND = 0x6A88
    INSTRUCTION_NOT_SUPPORTED = 0x6D00
    CLASS_NOT_SUPPORTED = 0x6E00
    NO_PRECISE_DIAGNOSIS = 0x6F00


def tries_left(count: int) -> int:
    """Gives the status word 63CX, a failed comparison with `count` tries left (15 at most)."""
    return 0x63C0 | min(count, 15)


def bytes_available(count: int) -> int:
    """Gives the status word 61XX: `count` more bytes (at least 1) wait for GET RESPONSE."""
    return 0x6100 | (count if count < MAX_SHORT_NE else 0)


def wrong_le(count: int) -> int:
    """Gives the status word 6CXX: nothing was sent, as `count` bytes (256 at most) are there."""
    return 0x6C00 | count % MAX_SHORT_NE


@dataclass(frozen=True, slots=True)
class CommandAPDU:
    """A command to a card.

    Attributes:
        cla: class byte.
        ins: instruction byte.
        p1: first parameter byte.
        p2: second parameter byte.
        data: the command data field of Nc bytes. It may hold a PIN, so the repr leaves it out.
        ne: the most bytes of response data that the host takes; 0 without an Le field.
        extended: whether the length fields have the extended form.
    """

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes = field(default=b"", repr=False)
    ne: int = 0
    extended: bool = False

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Reads a command of any of the cases 1, 2S, 3S, 4S, 2E, 3E and 4E.

        Raises:
            RemoteProtocolError: The length fields do not agree with the number of bytes.
        """
        if len(raw) < _HEADER_SIZE:
            raise RemoteProtocolError(f"command APDU of {len(raw)} bytes")
        cla, ins, p1, p2, *_ = raw
        body = raw[_HEADER_SIZE:]
        extended = len(body) >= 3 and body[0] == 0
        data, ne = _decode_extended_body(body) if extended else _decode_short_body(body)
        return cls(cla, ins, p1, p2, data, ne, extended)

    def encode(self) -> bytes:
        """Gives the command's bytes, in the extended form if asked for.

        Raises:
            LocalProtocolError: The data or `ne` is too long for the form.
        """
        header = bytes([self.cla, self.ins, self.p1, self.p2])
        max_nc = MAX_EXTENDED_NC if self.extended else MAX_SHORT_NC
        max_ne = MAX_EXTENDED_NE if self.extended else MAX_SHORT_NE
        if len(self.data) > max_nc or not 0 <= self.ne <= max_ne:
            raise LocalProtocolError(
                f"Nc {len(self.data)} and Ne {self.ne} do not fit length fields of this form"
            )
        size = 2 if self.extended else 1
        body = b""
        if self.data:
            body += len(self.data).to_bytes(size) + self.data
        if self.ne:
            body += (self.ne % max_ne).to_bytes(size)
        return header + (b"\0" if self.extended and body else b"") + body


def _decode_short_body(body: bytes) -> tuple[bytes, int]:
    if not body:
        return b"", 0
    lc = body[0]
    if len(body) == 1:
        return b"", lc or MAX_SHORT_NE
    if lc and len(body) == 1 + lc:
        return body[1:], 0
    if lc and len(body) == 2 + lc:
        return body[1:-1], body[-1] or MAX_SHORT_NE
    raise RemoteProtocolError(f"Lc {lc} in a command APDU with a body of {len(body)} bytes")


def _decode_extended_body(body: bytes) -> tuple[bytes, int]:
    length = int.from_bytes(body[1:3])
    if len(body) == 3:
        return b"", length or MAX_EXTENDED_NE
    if length and len(body) == 3 + length:
        return body[3:], 0
    if length and len(body) == 5 + length:
        return body[3:-2], int.from_bytes(body[-2:]) or MAX_EXTENDED_NE
    raise RemoteProtocolError(
        f"extended Lc {length} in a command APDU with a body of {len(body)} bytes"
    )


@dataclass(frozen=True, slots=True)
class ResponseAPDU:
    """A card's answer.

    Attributes:
        data: the response data field, left out of the repr.
        sw: the status word SW1-SW2.
    """

    data: bytes = field(default=b"", repr=False)
    sw: int = StatusWord.SUCCESS

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Reads a response.

        Raises:
            RemoteProtocolError: There are fewer than the two bytes of a status word.
        """
        if len(raw) < 2:
            raise RemoteProtocolError(f"response APDU of {len(raw)} bytes")
        return cls(raw[:-2], int.from_bytes(raw[-2:]))

    def encode(self) -> bytes:
        """Gives the response's bytes."""
        return self.data + self.sw.to_bytes(2)
