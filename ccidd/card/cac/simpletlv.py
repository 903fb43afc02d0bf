# SPDX-License-Identifier: Apache-2.0
"""SIMPLE-TLV data objects, and the two buffers of a container.

Source: GSC-IS 2.1, 8.4 (the containers of virtual machine cards). A tag has one
byte. A length has one byte, or it is FF and two more, little-endian (unlike ISO/IEC 7816-4, 5.2.1).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ccid_protocol.errors import RemoteProtocolError

MAX_SIZE: Final = 0xFFFF
"""Bytes of the longest value, and of the longest buffer without its length."""

_LONG_LENGTH: Final = 0xFF
_SIZE_OF_LONG_LENGTH: Final = 3


@dataclass(frozen=True, slots=True)
class SimpleTlv:
    """One data object.

    Attributes:
        tag: 0 to 255.
        value: the value, `MAX_SIZE` bytes at most; left out of the repr, as it may be personal.
    """

    tag: int
    value: bytes = field(default=b"", repr=False)

    def header(self) -> bytes:
        """Gives tag and length."""
        length = len(self.value)
        if length < _LONG_LENGTH:
            return bytes([self.tag, length])
        return bytes([self.tag, _LONG_LENGTH]) + length.to_bytes(2, "little")


def encode(*objects: SimpleTlv) -> bytes:
    """Gives the objects one after the other."""
    return b"".join(tlv.header() + tlv.value for tlv in objects)


def decode(data: bytes) -> Iterator[SimpleTlv]:
    """Reads objects that follow each other and fill `data` exactly.

    Raises:
        RemoteProtocolError: `data` ends within an object.
    """
    position = 0
    while position < len(data):
        tag, *length = data[position : position + 2]
        size = 1
        if length == [_LONG_LENGTH]:
            size = _SIZE_OF_LONG_LENGTH
            length = list(data[position + 2 : position + 4])
        start = position + 1 + size
        position = start + int.from_bytes(bytes(length), "little")
        if start > len(data) or position > len(data):
            raise RemoteProtocolError(f"SIMPLE-TLV object {tag:02X} that ends too late")
        yield SimpleTlv(tag, data[start:position])


@dataclass(frozen=True, slots=True)
class Buffers:
    """The two buffers in which a container of a virtual machine card holds its data objects.

    Attributes:
        tags: the T-buffer: its length in two bytes, little-endian, then tags and lengths.
        values: the V-buffer: its length likewise, then the values.
    """

    tags: bytes
    values: bytes = field(repr=False)

    @classmethod
    def holding(cls, objects: Sequence[SimpleTlv]) -> "Buffers":
        """Gives the buffers that hold objects."""
        tags = b"".join(tlv.header() for tlv in objects)
        values = b"".join(tlv.value for tlv in objects)
        return cls(_with_length(tags), _with_length(values))

    def sizes(self) -> bytes:
        """Gives the sizes of both, each in two bytes, little-endian."""
        return b"".join(len(b).to_bytes(2, "little") for b in (self.tags, self.values))


def _with_length(content: bytes) -> bytes:
    return len(content).to_bytes(2, "little") + content
