# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.cac.simpletlv import Buffers, SimpleTlv, decode, encode

OBJECTS = st.lists(
    st.builds(SimpleTlv, st.integers(0, 255), st.binary(max_size=10) | st.binary(max_size=700)),
    max_size=5,
)


@pytest.mark.parametrize(
    ("size", "header"),
    [(0, "7000"), (1, "7001"), (254, "70FE"), (255, "70FFFF00"), (0x1234, "70FF3412")],
)
def test_headers(size: int, header: str) -> None:
    assert SimpleTlv(0x70, bytes(size)).header().hex().upper() == header


@given(OBJECTS)
def test_what_was_encoded_is_decoded(objects: list[SimpleTlv]) -> None:
    assert list(decode(encode(*objects))) == objects


@given(st.binary(max_size=20))
def test_whatever_comes_only_a_remote_protocol_error_leaves(data: bytes) -> None:
    try:
        objects = list(decode(data))
    except RemoteProtocolError:
        return
    assert sum(len(tlv.value) for tlv in objects) < len(data) or not data


@pytest.mark.parametrize("broken", ["70", "7001", "70FF", "70FF01", "70FF0100", "7000 71"])
def test_what_ends_too_early(broken: str) -> None:
    with pytest.raises(RemoteProtocolError):
        list(decode(bytes.fromhex(broken)))


def test_buffers_begin_with_their_lengths() -> None:
    buffers = Buffers.holding([SimpleTlv(0x71, b"\x00"), SimpleTlv(0x70, bytes(0x300))])
    assert buffers.tags == bytes.fromhex("0600 7101 70FF0003")
    assert buffers.values == bytes.fromhex("0103") + bytes(0x301)
    assert buffers.sizes() == bytes.fromhex("0800 0303")


def test_a_value_is_not_shown() -> None:
    assert "Doe" not in repr(SimpleTlv(0x01, b"Doe"))
