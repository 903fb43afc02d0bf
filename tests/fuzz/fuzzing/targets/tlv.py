# SPDX-License-Identifier: Apache-2.0
"""BER-TLV data objects, and the SIMPLE-TLV of a CAC."""

from contextlib import suppress

from ccid_protocol import RemoteProtocolError, tlv
from ccidd.card.cac import simpletlv


def run(data: bytes) -> None:
    """Reads the input as data objects, and writes them again."""
    with suppress(RemoteProtocolError):
        _check_ber(data)
    with suppress(RemoteProtocolError):
        _check_simple(data)


def _check_ber(data: bytes) -> None:
    objects = list(tlv.decode(data))
    written = b"".join(tlv.encode(o.tag, o.value) for o in objects)
    # Lengths may be written in more bytes than they need.
    assert len(written) <= len(data)
    assert list(tlv.decode(written)) == objects
    by_tag = tlv.decode_to_dict(data)
    assert [tlv.Tlv(*item) for item in by_tag.items()] == objects


def _check_simple(data: bytes) -> None:
    objects = list(simpletlv.decode(data))
    written = simpletlv.encode(*objects)
    assert len(written) <= len(data)
    assert list(simpletlv.decode(written)) == objects
