# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.atr import ATR, InterfaceBytes
from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError

MAYBE_BYTE = st.none() | st.integers(0, 255)


@st.composite
def atrs(draw: st.DrawFn) -> ATR:
    """ATRs in the one form that each has: all groups but the last go on, none is empty."""
    # Two full groups and one of three bytes leave room for all the historical bytes.
    protocols = draw(st.lists(st.integers(0, 15), max_size=2))
    groups = [
        InterfaceBytes(*draw(st.tuples(MAYBE_BYTE, MAYBE_BYTE, MAYBE_BYTE)), protocol=t)
        for t in protocols
    ]
    last = InterfaceBytes(*draw(st.tuples(MAYBE_BYTE, MAYBE_BYTE, MAYBE_BYTE)))
    if last != InterfaceBytes():
        groups.append(last)
    historical = draw(st.binary(max_size=15))
    return ATR(historical, tuple(groups), draw(st.sampled_from([0x3B, 0x3F])))


@pytest.mark.parametrize(
    ("raw", "protocols", "historical"),
    [
        pytest.param("3BD518FF8091FE1FC38073C8211308", (0, 1), "8073C82113", id="QEMU's default"),
        pytest.param("3B7A1800007366746520636431343 4", (0,), b"sfte cd144".hex(), id="libcacard"),
        pytest.param("3B890056434152445F4E5353", (0,), b"VCARD_NSS".hex(), id="VCARD_NSS"),
        pytest.param(
            "3B8B0180F9A0000003080000100048", (1,), "80F9A00000030800001000", id="PIV over T=1"
        ),
        pytest.param(
            "3BFD1300008131FE158073C021C057597562694B657940",
            (1,),
            "8073C021C057597562694B6579",
            id="YubiKey",
        ),
        pytest.param("3B00", (0,), "", id="shortest"),
    ],
)
def test_atrs_of_real_cards(raw: str, protocols: tuple[int, ...], historical: str) -> None:
    data = bytes.fromhex(raw.replace(" ", ""))
    atr = ATR.decode(data)
    assert atr.protocols == protocols
    assert atr.historical == bytes.fromhex(historical)
    assert atr.encode() == data


@given(atrs())
def test_what_was_encoded_is_decoded(atr: ATR) -> None:
    assert ATR.decode(atr.encode()) == atr


@given(st.binary(max_size=40) | st.binary(max_size=38).map(b"\x3b".__add__))
def test_whatever_comes_only_a_remote_protocol_error_leaves(raw: bytes) -> None:
    try:
        atr = ATR.decode(raw)
    except RemoteProtocolError:
        return
    assert atr.encode() == raw


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("3B", id="no T0"),
        pytest.param("3C00", id="TS"),
        pytest.param("3B02AA", id="a historical byte is missing"),
        pytest.param("3B01AABB", id="a byte too many"),
        pytest.param("3BF0", id="interface bytes are missing"),
        pytest.param("3B8001", id="TCK is missing"),
        pytest.param("3B800180", id="TCK is wrong"),
        pytest.param("3B" + "00" * 33, id="too long"),
    ],
)
def test_broken_atrs_are_refused(raw: str) -> None:
    with pytest.raises(RemoteProtocolError):
        ATR.decode(bytes.fromhex(raw))


def test_tck_comes_with_any_protocol_but_t0() -> None:
    assert ATR(b"", (InterfaceBytes(protocol=0),)).encode().hex() == "3b8000"
    assert ATR(b"", (InterfaceBytes(protocol=1),)).encode().hex() == "3b800181"


def test_for_a_t0_reader_only_the_historical_bytes_stay() -> None:
    yubikey = ATR.decode(bytes.fromhex("3BFD1300008131FE158073C021C057597562694B657940"))
    assert yubikey.for_t0().encode() == bytes.fromhex("3B0D8073C021C057597562694B6579")


def test_more_historical_bytes_than_t0_can_count_are_not_encoded() -> None:
    with pytest.raises(LocalProtocolError):
        ATR(bytes(16)).encode()
