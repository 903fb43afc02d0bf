# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.atr import ATR, InterfaceBytes
from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.pps import MAX_SIZE, PPS, answer

VECTORS = {
    "FF 00 FF": PPS(0),
    "FF 10 94 7B": PPS(0, pps1=0x94),
    "FF 11 18 F6": PPS(1, pps1=0x18),
    "FF 71 95 01 02 18": PPS(1, pps1=0x95, pps2=0x01, pps3=0x02),
    "FF 41 00 BE": PPS(1, pps3=0x00),
}

# TA1 95h: Fi 512, Di 16
T0_AND_T1 = ATR(b"", (InterfaceBytes(ta=0x95, protocol=0), InterfaceBytes(protocol=1)))
T1_ONLY = ATR(b"", (InterfaceBytes(protocol=1), InterfaceBytes(protocol=1), InterfaceBytes(0xFE)))
SPECIFIC_MODE = ATR(b"", (InterfaceBytes(ta=0x95, protocol=1), InterfaceBytes(ta=0x01)))

bytes_or_none = st.none() | st.integers(0, 0xFF)
any_pps = st.builds(PPS, st.integers(0, 14), bytes_or_none, bytes_or_none, bytes_or_none)


@pytest.mark.parametrize(("raw", "pps"), VECTORS.items())
def test_a_known_pps_is_read_and_written(raw: str, pps: PPS) -> None:
    assert PPS.decode(bytes.fromhex(raw)) == pps
    assert pps.encode() == bytes.fromhex(raw)


@given(any_pps)
def test_what_is_written_is_read_back(pps: PPS) -> None:
    raw = pps.encode()
    assert len(raw) <= MAX_SIZE
    assert PPS.decode(raw) == pps


@given(st.binary(max_size=8) | any_pps.map(PPS.encode))
def test_any_bytes_are_refused_or_read_for_what_they_are(raw: bytes) -> None:
    try:
        pps = PPS.decode(raw)
    except RemoteProtocolError:
        return
    assert pps.encode() == raw


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "FF",
        "FF 00",
        "FE 00 FE",  # PPSS
        "FF 00 FE",  # PCK
        "FF 80 7F",  # bit 8 of PPS0 is reserved
        "FF 0F F0",  # T=15 is no protocol
        "FF 10 EF",  # PPS1 is missing
        "FF 00 94 6B",  # a byte too many
    ],
)
def test_what_is_no_pps_is_refused(raw: str) -> None:
    with pytest.raises(RemoteProtocolError):
        PPS.decode(bytes.fromhex(raw))


@pytest.mark.parametrize("pps", [PPS(-1), PPS(15), PPS(0, pps1=0x100), PPS(1, pps3=-1)])
def test_a_pps_that_the_format_does_not_allow_is_not_written(pps: PPS) -> None:
    with pytest.raises(LocalProtocolError):
        pps.encode()


@pytest.mark.parametrize(
    "pps1",
    [
        0x95,  # as offered
        0x94,  # Di 8
        0x98,  # Di 12, which is below 16 though its code is above
        0x11,  # the default values
        0x05,  # Fi 372, the lower of the two codes
    ],
)
def test_f_and_d_up_to_those_offered_are_echoed(pps1: int) -> None:
    assert answer(PPS(1, pps1), T0_AND_T1) == PPS(1, pps1)


@pytest.mark.parametrize(
    "pps1",
    [
        0x96,  # Di 32
        0x99,  # Di 20
        0x25,  # Fi 558
        0x75,  # a reserved F
        0x90,  # a reserved D
    ],
)
def test_f_and_d_beyond_those_offered_are_not_echoed(pps1: int) -> None:
    assert answer(PPS(0, pps1), T0_AND_T1) == PPS(0)


def test_an_atr_without_ta1_offers_the_default_values_only() -> None:
    assert answer(PPS(1, 0x11), T1_ONLY) == PPS(1, 0x11)
    assert answer(PPS(1, 0x12), T1_ONLY) == PPS(1)
    assert answer(PPS(0, 0x12), ATR(b"")) == PPS(0)
    assert answer(PPS(0, 0x12), ATR(b"", (InterfaceBytes(ta=0x12),))) == PPS(0, 0x12)


def test_pps2_and_pps3_are_not_echoed() -> None:
    assert answer(PPS(1, 0x95, pps2=0x01, pps3=0x00), T0_AND_T1) == PPS(1, 0x95)


@pytest.mark.parametrize(
    ("request_", "atr"),
    [(PPS(0), T1_ONLY), (PPS(1), ATR(b"")), (PPS(2), T0_AND_T1), (PPS(1, 0x95), SPECIFIC_MODE)],
)
def test_a_card_stays_silent_to_what_it_cannot_accept(request_: PPS, atr: ATR) -> None:
    with pytest.raises(RemoteProtocolError):
        answer(request_, atr)


@given(any_pps, st.sampled_from([T0_AND_T1, T1_ONLY, SPECIFIC_MODE, ATR(b"")]))
def test_an_answer_is_always_one_that_the_interface_device_may_take(pps: PPS, atr: ATR) -> None:
    try:
        response = answer(pps, atr)
    except RemoteProtocolError:
        assert atr is SPECIFIC_MODE or pps.protocol not in atr.protocols
        return
    assert response.protocol == pps.protocol
    assert response.pps1 in {None, pps.pps1}
    assert response.pps2 is None
    assert response.pps3 is None
