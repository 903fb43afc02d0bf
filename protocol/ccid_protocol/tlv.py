# SPDX-License-Identifier: Apache-2.0
"""BER-TLV data objects, as cards use them.

Source: ISO/IEC 7816-4:2013, 5.2.2 (BER-TLV data objects) and annex E. Tags have 1 to 3 bytes,
lengths are definite and have 1 to 4 bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError

_MAX_TAG_BYTES: Final = 3
_MAX_LENGTH_BYTES: Final = 3


@dataclass(frozen=True, slots=True)
class Tlv:
    """One data object.

    Attributes:
        tag: the tag's bytes read as one big-endian number, 0x5C or 0x7F61 for example.
        value: the value field, left out of the repr: it may be a secret.
    """

    tag: int
    value: bytes = field(repr=False)


def encode(tag: int, *values: bytes) -> bytes:
    """Gives a data object with the shortest length field; several values are joined.

    Raises:
        LocalProtocolError: The value is longer than 2^24 - 1 bytes.
    """
    value = b"".join(values)
    return tag.to_bytes(max(1, (tag.bit_length() + 7) // 8)) + _encode_length(len(value)) + value


def _encode_length(length: int) -> bytes:
    if length < 0x80:
        return bytes([length])
    size = (length.bit_length() + 7) // 8
    if size > _MAX_LENGTH_BYTES:
        raise LocalProtocolError(f"a value of {length} bytes in a data object")
    return bytes([0x80 | size]) + length.to_bytes(size)


def decode(data: bytes) -> Iterator[Tlv]:
    """Reads data objects that follow each other and fill `data` exactly.

    Raises:
        RemoteProtocolError: A tag or length is not allowed, or `data` ends too early.
    """
    position = 0
    while position < len(data):
        tag, position = _decode_tag(data, position)
        length, position = _decode_length(data, position)
        end = position + length
        if end > len(data):
            raise RemoteProtocolError(
                f"data object {tag:X} of {length} bytes where {len(data) - position} are left"
            )
        yield Tlv(tag, data[position:end])
        position = end


def decode_to_dict(data: bytes) -> dict[int, bytes]:
    """Reads data objects of which each tag may stand only once.

    Raises:
        RemoteProtocolError: As `decode`, and when a tag stands twice.
    """
    objects: dict[int, bytes] = {}
    for tlv in decode(data):
        if tlv.tag in objects:
            raise RemoteProtocolError(f"data object {tlv.tag:X} stands twice")
        objects[tlv.tag] = tlv.value
    return objects


def _decode_tag(data: bytes, position: int) -> tuple[int, int]:
    tag = data[position]
    position += 1
    if tag & 0x1F != 0x1F:
        return tag, position
    for _ in range(_MAX_TAG_BYTES - 1):
        if position == len(data):
            raise RemoteProtocolError("data object that ends in its tag")
        byte = data[position]
        position += 1
        tag = tag << 8 | byte
        if not byte & 0x80:
            return tag, position
    raise RemoteProtocolError(f"tag of more than {_MAX_TAG_BYTES} bytes")


def _decode_length(data: bytes, position: int) -> tuple[int, int]:
    if position == len(data):
        raise RemoteProtocolError("data object without a length")
    first = data[position]
    position += 1
    if first < 0x80:
        return first, position
    size = first & 0x7F
    if not 1 <= size <= _MAX_LENGTH_BYTES:
        raise RemoteProtocolError(f"length field of the form {first:02X}")
    if position + size > len(data):
        raise RemoteProtocolError("data object that ends in its length")
    return int.from_bytes(data[position : position + size]), position + size
