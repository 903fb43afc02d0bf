# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.errors import LocalProtocolError
from ccid_protocol.t1 import (
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

SELECT_PIV = bytes.fromhex("00A4040009A00000030800001000")

VECTORS: dict[str, Block] = {
    "00 00 0E 00A4040009A00000030800001000 1C": IBlock(0, inf=SELECT_PIV),
    "00 40 02 9000 D2": IBlock(1, inf=b"\x90\x00"),
    "00 20 01 00 21": IBlock(0, more=True, inf=b"\0"),
    "00 60 01 00 61": IBlock(1, more=True, inf=b"\0"),
    "00 40 00 40": IBlock(1),
    "00 80 00 80": RBlock(0),
    "00 90 00 90": RBlock(1),
    "00 91 00 91": RBlock(1, ErrorCode.REDUNDANCY_CODE),
    "00 82 00 82": RBlock(0, ErrorCode.OTHER),
    "00 C0 00 C0": SBlock(Supervisory.RESYNCH),
    "00 E0 00 E0": SBlock(Supervisory.RESYNCH, response=True),
    "00 C1 01 FE 3E": SBlock(Supervisory.IFS, value=254),
    "00 E1 01 FE 1E": SBlock(Supervisory.IFS, response=True, value=254),
    "00 C2 00 C2": SBlock(Supervisory.ABORT),
    "00 E2 00 E2": SBlock(Supervisory.ABORT, response=True),
    "00 C3 01 02 C0": SBlock(Supervisory.WTX, value=2),
    "00 E3 01 FF 1D": SBlock(Supervisory.WTX, response=True, value=255),
}

bits = st.integers(0, 1)
s_blocks = (
    st.builds(
        SBlock, st.sampled_from([Supervisory.RESYNCH, Supervisory.ABORT]), st.booleans(), st.none()
    )
    | st.builds(SBlock, st.just(Supervisory.IFS), st.booleans(), st.integers(1, 254))
    | st.builds(SBlock, st.just(Supervisory.WTX), st.booleans(), st.integers(1, 255))
)
blocks = (
    st.builds(IBlock, bits, st.booleans(), st.binary(max_size=MAX_INF))
    | st.builds(RBlock, bits, st.sampled_from(ErrorCode))
    | s_blocks
)
nads = st.integers(0, 0xFF).filter(is_node_address)


@pytest.mark.parametrize(("raw", "block"), VECTORS.items())
def test_a_known_block_is_read_and_written(raw: str, block: Block) -> None:
    assert decode(bytes.fromhex(raw)) == block
    assert encode(block) == bytes.fromhex(raw)


@given(blocks, nads)
def test_what_is_written_is_read_back(block: Block, nad: int) -> None:
    raw = encode(block, nad)
    assert raw[0] == nad
    assert decode(raw, nad) == block


@given(st.binary(max_size=12) | blocks.map(encode))
def test_any_bytes_are_refused_or_read_for_what_they_are(raw: bytes) -> None:
    try:
        block = decode(raw)
    except InvalidBlockError:
        return
    assert encode(block) == raw


@given(blocks, st.data())
def test_one_damaged_byte_is_always_seen(block: Block, data: st.DataObject) -> None:
    raw = bytearray(encode(block))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 0xFF))
    with pytest.raises(InvalidBlockError):
        decode(bytes(raw))


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("", ErrorCode.OTHER),
        ("00 80 80", ErrorCode.OTHER),
        ("00 80 00 81", ErrorCode.REDUNDANCY_CODE),
        ("00 00 02 9000 93", ErrorCode.REDUNDANCY_CODE),
        ("00 00 03 9000 93", ErrorCode.OTHER),  # a byte is missing
        ("00 00 01 9000 91", ErrorCode.OTHER),  # a byte too many
        ("12 80 00 92", ErrorCode.OTHER),  # another NAD
        ("00 01 00 01", ErrorCode.OTHER),  # reserved bits of an I-block
        ("00 A0 00 A0", ErrorCode.OTHER),  # bit 6 of an R-block
        ("00 83 00 83", ErrorCode.OTHER),  # a reserved error code
        ("00 80 01 00 81", ErrorCode.OTHER),  # an R-block with INF
        ("00 C4 00 C4", ErrorCode.OTHER),  # a reserved kind of S-block
        ("00 D0 00 D0", ErrorCode.OTHER),
        ("00 C0 01 00 C1", ErrorCode.OTHER),  # RESYNCH with INF
        ("00 C2 01 00 C3", ErrorCode.OTHER),  # ABORT with INF
        ("00 C1 00 C1", ErrorCode.OTHER),  # IFS without
        ("00 C3 00 C3", ErrorCode.OTHER),  # WTX without
        ("00 C1 02 2020 C3", ErrorCode.OTHER),
        ("00 C1 01 00 C0", ErrorCode.OTHER),  # IFS 0 is reserved
        ("00 C1 01 FF 3F", ErrorCode.OTHER),  # IFS 255 is reserved
        ("00 C3 01 00 C2", ErrorCode.OTHER),  # a time of 0
    ],
)
def test_what_is_no_block_is_refused_with_the_code_for_the_r_block(
    raw: str, code: ErrorCode
) -> None:
    with pytest.raises(InvalidBlockError) as refusal:
        decode(bytes.fromhex(raw))
    assert refusal.value.code is code


def test_a_refusal_says_what_is_wrong() -> None:
    with pytest.raises(InvalidBlockError) as refusal:
        decode(bytes.fromhex("00 80 00 81"))
    assert str(refusal.value) == "block with a wrong LRC"


def test_len_255_is_refused() -> None:
    raw = bytes([0, 0, 255]) + bytes(255) + b"\xff"
    with pytest.raises(InvalidBlockError):
        decode(raw)


@pytest.mark.parametrize(
    "block",
    [
        IBlock(2),
        IBlock(0, inf=bytes(255)),
        RBlock(2),
        SBlock(Supervisory.RESYNCH, value=1),
        SBlock(Supervisory.ABORT, value=0),
        SBlock(Supervisory.IFS),
        SBlock(Supervisory.IFS, value=0),
        SBlock(Supervisory.IFS, value=255),
        SBlock(Supervisory.WTX),
        SBlock(Supervisory.WTX, value=0),
        SBlock(Supervisory.WTX, value=256),
    ],
)
def test_a_block_that_the_format_does_not_allow_is_not_written(block: Block) -> None:
    with pytest.raises(LocalProtocolError):
        encode(block)


@pytest.mark.parametrize("nad", [-1, 0x08, 0x80, 0x11, 0x77, 0xFF, 0x100])
def test_a_nad_that_is_not_allowed_is_not_written(nad: int) -> None:
    with pytest.raises(LocalProtocolError):
        encode(RBlock(0), nad)


def test_a_repr_does_not_hold_the_information_field() -> None:
    assert "31337" not in repr(IBlock(0, inf=b"31337"))
