# SPDX-License-Identifier: Apache-2.0
"""PIN blocks: how a PIN that was entered at the reader gets into the APDU for the card.

Source: USB CCID Rev 1.1, 6.1.11 (bmFormatString, bmPINBlockString, bmPINLengthFormat) and PC/SC
Part 10 Rev 2.02, 2.5.2 and 2.5.3.

The host sends the APDU as a template. The reader writes the PIN over the template's data field and
leaves all other bits as they are; where the template is too short, it appends bytes FFh, and it
sets Lc to what comes out. Positions count from the first byte of the data field, or from an
insertion offset behind it, and bit 0 is the most significant one:

    | ... | PIN length | ... | digits and filling |
          ^ length position  ^ PIN position       ^ end

Where the digits' room ends is not clear in the sources. Pinpads, and the hosts that ask for PIN
blocks of ISO 9564 format 2, have it so:

* PIN position in bytes: the block size counts from the PIN position.
* PIN position in bits: the block size counts from byte 0, so that the position is part of it.
* Block size 0: the room is just what the digits need.
"""

import enum
from dataclasses import dataclass, field
from typing import Final, Self

from ccid_protocol.ccid.fields import BadFieldError, Offset
from ccid_protocol.errors import LocalProtocolError

MAX_DATA: Final = 255
"""Bytes of the longest data field of an APDU with a PIN: Lc has the short form."""

_HEADER_SIZE: Final = 4
_FILLING: Final = b"\xff"
_DIGITS: Final = frozenset(b"0123456789")
_PRINTABLE: Final = frozenset(range(0x20, 0x7F))

# bmFormatString
_POSITION_IN_BYTES: Final = 0x80
_RIGHT_JUSTIFIED: Final = 0x04
# bmPINLengthFormat
_LENGTH_POSITION_IN_BYTES: Final = 0x10
_LENGTH_RESERVED: Final = 0xE0


class PinEncoding(enum.IntEnum):
    """How the digits are written: bits 1 and 0 of bmFormatString."""

    BINARY = 0
    """A byte of the value 0 to 9 for each digit."""
    BCD = 1
    """Half a byte for each digit."""
    ASCII = 2
    """A byte for each character, which a keyboard may let be another than a digit."""


class FormatOffset(enum.IntEnum):
    """Where the three format fields stand in a PC_to_RDR_Secure, as bError names them."""

    FORMAT_STRING = Offset.DATA + 2
    PIN_BLOCK_STRING = Offset.DATA + 3
    PIN_LENGTH_FORMAT = Offset.DATA + 4


@dataclass(frozen=True, slots=True)
class PinFormat:
    """The format of a PIN block.

    Attributes:
        encoding: how the digits are written.
        position: where the room for the digits begins, 0 to 15 bits or bytes.
        position_in_bytes: whether `position` counts bytes.
        right_justified: whether the digits stand at the end of their room.
        block_size: bytes of the block, 0 to 15; 0 for just what the digits need.
        length_size: bits of the field with the number of digits, 0 to 15; 0 for no such field.
        length_position: where that field begins, 0 to 15 bits or bytes.
        length_position_in_bytes: whether `length_position` counts bytes.
    """

    encoding: PinEncoding
    position: int = 0
    position_in_bytes: bool = True
    right_justified: bool = False
    block_size: int = 0
    length_size: int = 0
    length_position: int = 0
    length_position_in_bytes: bool = False

    @classmethod
    def decode(cls, format_string: int, block_string: int, length_format: int) -> Self:
        """Reads bmFormatString, bmPINBlockString and bmPINLengthFormat.

        Raises:
            BadFieldError: A value is RFU, the block has no room for a digit, or the field with the
                number of digits reaches into that room.
        """
        if format_string & 3 not in set(PinEncoding):
            raise BadFieldError(FormatOffset.FORMAT_STRING)
        if length_format & _LENGTH_RESERVED:
            raise BadFieldError(FormatOffset.PIN_LENGTH_FORMAT)
        decoded = cls(
            PinEncoding(format_string & 3),
            format_string >> 3 & 0x0F,
            bool(format_string & _POSITION_IN_BYTES),
            bool(format_string & _RIGHT_JUSTIFIED),
            block_string & 0x0F,
            block_string >> 4,
            length_format & 0x0F,
            bool(length_format & _LENGTH_POSITION_IN_BYTES),
        )
        if decoded.block_size and not decoded.capacity(MAX_DATA):
            raise BadFieldError(FormatOffset.PIN_BLOCK_STRING)
        if decoded.length_size and decoded._length_start + decoded.length_size > decoded._start:
            raise BadFieldError(FormatOffset.PIN_LENGTH_FORMAT)
        return decoded

    def encode(self) -> bytes:
        """Gives bmFormatString, bmPINBlockString and bmPINLengthFormat.

        Raises:
            LocalProtocolError: A value does not fit its bits, or `decode` would refuse the format.
        """
        numbers = (self.position, self.block_size, self.length_size, self.length_position)
        if not all(0 <= number <= 15 for number in numbers):
            raise LocalProtocolError("a PIN format with a number of more than four bits")
        raw = bytes(
            [
                _POSITION_IN_BYTES * self.position_in_bytes
                | self.position << 3
                | _RIGHT_JUSTIFIED * self.right_justified
                | self.encoding,
                self.length_size << 4 | self.block_size,
                _LENGTH_POSITION_IN_BYTES * self.length_position_in_bytes | self.length_position,
            ]
        )
        try:
            self.decode(*raw)
        except BadFieldError as error:
            raise LocalProtocolError("a PIN format that contradicts itself") from error
        return raw

    def capacity(self, room: int) -> int:
        """Tells how many digits fit.

        Args:
            room: bytes that a block without a size of its own may have.
        """
        digits = max(0, (self._fixed_end or 8 * room) - self._start) // self._digit_size
        return min(digits, (1 << self.length_size) - 1) if self.length_size else digits

    def allows(self, pin: bytes) -> bool:
        """Tells whether a PIN, in ASCII, has only characters that can be encoded."""
        allowed = _PRINTABLE if self.encoding is PinEncoding.ASCII else _DIGITS
        return allowed.issuperset(pin)

    def size(self, digits: int) -> int:
        """Tells the bytes of a block with so many digits, from byte 0 to the end of their room."""
        return (self._end(digits) + 7) // 8

    def insert(self, pin: bytes, data: bytes, offset: int = 0) -> bytes:
        """Writes a PIN block into a data field.

        Args:
            pin: the PIN in ASCII; it must fit, see `capacity` and `allows`.
            data: the data field.
            offset: the byte from which positions count.

        Returns:
            The data field with the block, longer where it was too short.
        """
        origin = 8 * offset
        end = self._end(len(pin))
        data = data.ljust(offset + self.size(len(pin)), _FILLING)
        if pin:
            size = self._digit_size * len(pin)
            start = end - size if self.right_justified else self._start
            data = _write_bits(data, origin + start, size, self._encode_digits(pin))
        if self.length_size:
            position = origin + self._length_start
            data = _write_bits(data, position, self.length_size, len(pin))
        return data

    @property
    def _digit_size(self) -> int:
        """Bits of a digit."""
        return 4 if self.encoding is PinEncoding.BCD else 8

    @property
    def _start(self) -> int:
        """The bit at which the room for the digits begins."""
        return 8 * self.position if self.position_in_bytes else self.position

    @property
    def _fixed_end(self) -> int:
        """The bit at which the room for the digits ends; 0 if the digits decide."""
        if not self.block_size:
            return 0
        return 8 * self.block_size + (self._start if self.position_in_bytes else 0)

    @property
    def _length_start(self) -> int:
        """The bit at which the number of digits begins."""
        return 8 * self.length_position if self.length_position_in_bytes else self.length_position

    def _end(self, digits: int) -> int:
        """The bit at which the room of so many digits ends."""
        return self._fixed_end or self._start + self._digit_size * digits

    def _encode_digits(self, pin: bytes) -> int:
        """Gives the digits' bits as one number, the first digit in the most significant ones."""
        if self.encoding is PinEncoding.BCD:
            return int(pin, 16)
        if self.encoding is PinEncoding.BINARY:
            pin = bytes(digit - ord("0") for digit in pin)
        return int.from_bytes(pin)


def _write_bits(data: bytes, position: int, size: int, value: int) -> bytes:
    """Replaces `size` bits from bit `position` on; bit 0 is the first byte's most significant."""
    shift = 8 * len(data) - position - size
    mask = ((1 << size) - 1) << shift
    return (int.from_bytes(data) & ~mask | value << shift).to_bytes(len(data))


@dataclass(frozen=True, slots=True)
class PinTemplate:
    """The APDU that a PIN is written into (abPINApdu).

    Lc is not kept: hosts set it to the final length, to 0 or leave it out where it is not known
    before the PIN is.

    Attributes:
        header: CLA, INS, P1 and P2.
        data: the data field, which may be empty or too short.
        le: the Le field if there is one.
    """

    header: bytes
    data: bytes = field(default=b"", repr=False)
    le: bytes = b""

    @classmethod
    def decode(cls, raw: bytes, offset: int) -> Self:
        """Reads a template.

        Args:
            raw: abPINApdu.
            offset: where it stands in the message.

        Raises:
            BadFieldError: There is no whole header, or more data than Lc and an Le allow.
        """
        if len(raw) < _HEADER_SIZE:
            raise BadFieldError(Offset.LENGTH)
        header, body = raw[:_HEADER_SIZE], raw[_HEADER_SIZE:]
        lc = body[0] if body else 0
        data, le = body[1 : 1 + lc], body[1 + lc :]
        if len(le) > 1:
            raise BadFieldError(offset + _HEADER_SIZE)
        return cls(header, data, le)

    def encode(self, data: bytes | None = None) -> bytes:
        """Gives the APDU, with another data field if one is given.

        Raises:
            LocalProtocolError: The header has not four bytes, Le has more than one, or the data
                field is too long for a short Lc.
        """
        data = self.data if data is None else data
        if len(self.header) != _HEADER_SIZE or len(self.le) > 1 or len(data) > MAX_DATA:
            raise LocalProtocolError(f"a command APDU with a data field of {len(data)} bytes")
        lc = bytes([len(data)]) if data or self.le else b""
        return self.header + lc + data + self.le
