# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol import tlv
from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.tlv import Tlv

TAGS = st.sampled_from([0x01, 0x53, 0x5C, 0x7C, 0x80, 0xFE, 0x5F2F, 0x7F61, 0x5FC105, 0x9F8101])


@pytest.mark.parametrize(
    ("tag", "length", "start"),
    [
        (0x53, 0, "5300"),
        (0x53, 127, "537F"),
        (0x53, 128, "538180"),
        (0x53, 255, "5381FF"),
        (0x53, 256, "53820100"),
        (0x5F2F, 65535, "5F2F82FFFF"),
        (0x7F61, 65536, "7F6183010000"),
    ],
)
def test_length_fields_are_as_short_as_can_be(tag: int, length: int, start: str) -> None:
    encoded = tlv.encode(tag, bytes(length))
    assert encoded == bytes.fromhex(start) + bytes(length)
    assert list(tlv.decode(encoded)) == [Tlv(tag, bytes(length))]


@given(st.lists(st.builds(Tlv, TAGS, st.binary(max_size=300))))
def test_what_was_encoded_is_decoded(objects: list[Tlv]) -> None:
    assert list(tlv.decode(b"".join(tlv.encode(o.tag, o.value) for o in objects))) == objects


@given(st.binary())
def test_whatever_comes_only_a_remote_protocol_error_leaves(data: bytes) -> None:
    try:
        objects = list(tlv.decode(data))
    except RemoteProtocolError:
        return
    # A tag may start with zeros, and lengths may be longer than they need to be.
    assert sum(len(o.value) for o in objects) <= len(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("53", id="no length"),
        pytest.param("5302AA", id="value too short"),
        pytest.param("5380", id="indefinite length"),
        pytest.param("5384000000 01AA", id="length of four bytes"),
        pytest.param("5382 01", id="ends in its length"),
        pytest.param("5F", id="ends in its tag"),
        pytest.param("5F818181 00", id="tag of four bytes"),
    ],
)
def test_broken_objects_are_refused(data: str) -> None:
    with pytest.raises(RemoteProtocolError):
        list(tlv.decode(bytes.fromhex(data)))


def test_longer_length_fields_than_needed_are_read() -> None:
    assert list(tlv.decode(bytes.fromhex("53830000 01AA"))) == [Tlv(0x53, b"\xaa")]


def test_a_tag_that_stands_twice_is_refused_where_it_must_not() -> None:
    assert tlv.decode_to_dict(bytes.fromhex("8100 8201AA")) == {0x81: b"", 0x82: b"\xaa"}
    with pytest.raises(RemoteProtocolError, match="twice"):
        tlv.decode_to_dict(bytes.fromhex("8100 8100"))


def test_a_value_can_be_too_long() -> None:
    with pytest.raises(LocalProtocolError):
        tlv.encode(0x53, bytes(1 << 24))


def test_values_stay_out_of_the_repr() -> None:
    assert repr(Tlv(0x81, b"secret")) == "Tlv(tag=129)"
