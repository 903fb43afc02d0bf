# SPDX-License-Identifier: Apache-2.0
"""The protocol data structures of T=0 and T=1 (CCID Rev 1.1, 6.1.7; ISO/IEC 7816-3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol import LocalProtocolError
from ccid_protocol.atr import ATR, InterfaceBytes
from ccid_protocol.ccid import (
    MAX_FREQUENCY,
    BadFieldError,
    ClockStop,
    T0Parameters,
    T1Parameters,
    data_rate,
    t0_parameters,
    t1_parameters,
)
from ccid_protocol.pps import BAUD_RATE_ADJUSTMENT, CLOCK_RATE_CONVERSION
from ccid_protocol.t1 import is_node_address

T0 = bytes.fromhex("1100000A00")
T1 = bytes.fromhex("1110004D002000")


def changed(raw: bytes, index: int, value: int) -> bytes:
    return raw[:index] + bytes([value]) + raw[index + 1 :]


def test_the_defaults_are_those_after_power_on() -> None:
    assert T0Parameters().encode() == T0
    assert T1Parameters().encode() == T1
    assert T0Parameters.decode(T0) == T0Parameters()
    assert T1Parameters.decode(T1) == T1Parameters()


# Every value of every byte, against the values that the two standards leave.
FACTORS = {
    fi << 4 | di
    for fi in (0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13)
    for di in (1, 2, 3, 4, 5, 6, 7, 8, 9)
}
ALL = set(range(256))
NAD = {d << 4 | s for d in range(8) for s in range(8) if d != s} | {0}


@pytest.mark.parametrize(
    ("kind", "raw", "index", "good"),
    [
        (T0Parameters, T0, 0, FACTORS),
        (T0Parameters, T0, 1, {0, 2}),
        (T0Parameters, T0, 2, ALL),
        (T0Parameters, T0, 3, ALL - {0}),
        (T0Parameters, T0, 4, {0, 1, 2, 3}),
        (T1Parameters, T1, 0, FACTORS),
        (T1Parameters, T1, 1, {0x10, 0x11, 0x12, 0x13}),
        (T1Parameters, T1, 2, ALL),
        (T1Parameters, T1, 3, set(range(0xA0))),
        (T1Parameters, T1, 4, {0, 1, 2, 3}),
        (T1Parameters, T1, 5, ALL - {0, 255}),
        (T1Parameters, T1, 6, NAD),
    ],
)
def test_each_byte_is_taken_or_told_by_its_offset(
    kind: type[T0Parameters | T1Parameters], raw: bytes, index: int, good: set[int]
) -> None:
    for value in range(256):
        data = changed(raw, index, value)
        if value in good:
            assert kind.decode(data).encode() == data
        else:
            with pytest.raises(BadFieldError) as caught:
                kind.decode(data)
            assert caught.value.offset == 10 + index


def test_the_first_bad_byte_is_told() -> None:
    for i in range(7):
        with pytest.raises(BadFieldError) as caught:
            T1Parameters.decode(T1[:i] + b"\xff" * (7 - i))
        # A guard time of 255 is no mistake.
        assert caught.value.offset == 10 + (3 if i == 2 else i)


@pytest.mark.parametrize("size", [0, 4, 6, 7, 8])
def test_a_structure_of_another_size_is_a_bad_length(size: int) -> None:
    with pytest.raises(BadFieldError) as caught:
        T0Parameters.decode(bytes(size))
    assert caught.value.offset == 1
    with pytest.raises(BadFieldError) as caught:
        T1Parameters.decode(T1[:-1] if size == 7 else bytes(size))
    assert caught.value.offset == 1


@given(st.binary(max_size=8))
def test_whatever_comes_only_a_bad_field_leaves_the_decoders(raw: bytes) -> None:
    for kind in (T0Parameters, T1Parameters):
        offset = None
        try:
            decoded = kind.decode(raw)
        except BadFieldError as error:
            offset = error.offset
        else:
            assert decoded.encode() == raw
        assert offset in {None, 1, *range(10, 17)}


@pytest.mark.parametrize(
    "parameters",
    [
        T0Parameters(findex=7),
        T0Parameters(dindex=0),
        T0Parameters(guard_time=256),
        T0Parameters(waiting_integer=0),
        T0Parameters(waiting_integer=256),
        T1Parameters(findex=16),
        T1Parameters(dindex=10),
        T1Parameters(bwi=10),
        T1Parameters(bwi=-1),
        T1Parameters(cwi=16),
        T1Parameters(ifsc=0),
        T1Parameters(ifsc=255),
        T1Parameters(nad=0x11),
        T1Parameters(nad=0x08),
    ],
)
def test_rfu_values_are_not_sent(parameters: T0Parameters | T1Parameters) -> None:
    with pytest.raises(LocalProtocolError):
        parameters.encode()


def test_a_node_address_names_two_nodes_or_none() -> None:
    assert {nad for nad in range(256) if is_node_address(nad)} == NAD


def test_the_tables_are_those_of_iso_7816_3() -> None:
    # Tables 7 and 8, from index 0 to 15; what is RFU is left out.
    rfu = None
    fi = (372, 372, 558, 744, 1116, 1488, 1860, rfu, rfu, 512, 768, 1024, 1536, 2048, rfu, rfu)
    megahertz = (4, 5, 6, 8, 12, 16, 20, rfu, rfu, 5, 7.5, 10, 15, 20, rfu, rfu)
    di = (rfu, 1, 2, 4, 8, 16, 32, 64, 12, 20)
    assert {i: n for i, n in enumerate(fi) if n} == CLOCK_RATE_CONVERSION
    assert {i: 1000 * n for i, n in enumerate(megahertz) if n} == MAX_FREQUENCY
    assert {i: n for i, n in enumerate(di) if n} == BAUD_RATE_ADJUSTMENT


@pytest.mark.parametrize(
    ("clock", "findex", "dindex", "rate"),
    [
        (4000, 1, 1, 10752),
        (4000, 1, 6, 344086),
        (3571, 1, 1, 9599),
        (5000, 9, 4, 78125),
        (20000, 13, 7, 625000),
        (4000, 1, 8, 129032),
    ],
)
def test_data_rates_are_those_of_iso_7816_3(
    clock: int, findex: int, dindex: int, rate: int
) -> None:
    assert data_rate(clock, findex, dindex) == rate
    assert T0Parameters(findex, dindex).data_rate(clock) == rate
    assert T1Parameters(findex, dindex).data_rate(clock) == rate


# QEMU's default card, a YubiKey and a SIM; and the shortest ATR there is.
ATRS = {
    "3B00": (T0Parameters(), T1Parameters()),
    "3F00": (T0Parameters(inverse=True), T1Parameters(inverse=True)),
    # TA1 18, TC1 FF; TD1 80 → TD2 91 → TA3 FE, TD3 1F → TA4 C3
    "3BD518FF8091FE1FC38073C8211308": (
        T0Parameters(1, 8, guard_time=255, clock_stop=ClockStop.EITHER),
        T1Parameters(1, 8, guard_time=255, clock_stop=ClockStop.EITHER, ifsc=254),
    ),
    # TA1 13; TD1 81 → TD2 31 → TA3 FE, TB3 15
    "3BF81300008131FE15597562696B657934D4": (
        T0Parameters(1, 3),
        T1Parameters(1, 3, bwi=1, cwi=5, ifsc=254),
    ),
    # TA1 96; TD1 80 → TD2 1F → TA3 C7
    "3B9F96801FC78031A073BE21136743200718000001A5": (
        T0Parameters(9, 6, clock_stop=ClockStop.EITHER),
        T1Parameters(9, 6, clock_stop=ClockStop.EITHER),
    ),
}


@pytest.mark.parametrize(("raw", "expected"), ATRS.items())
def test_an_atr_proposes_its_parameters(
    raw: str, expected: tuple[T0Parameters, T1Parameters]
) -> None:
    atr = ATR.decode(bytes.fromhex(raw))
    assert (t0_parameters(atr), t1_parameters(atr)) == expected


def test_wi_is_tc2() -> None:
    atr = ATR(b"", (InterfaceBytes(protocol=0), InterfaceBytes(tc=0x20)))
    assert t0_parameters(atr).waiting_integer == 32
    assert t1_parameters(atr) == T1Parameters()


def test_the_checksum_is_a_crc_if_the_first_tc_for_t1_says_so() -> None:
    first, second = InterfaceBytes(tc=1, protocol=1), InterfaceBytes(tc=0)
    atr = ATR(b"", (InterfaceBytes(protocol=1), InterfaceBytes(protocol=1), first, second))
    assert t1_parameters(atr).crc
    atr = ATR(b"", (InterfaceBytes(protocol=1), InterfaceBytes(protocol=1), second))
    assert not t1_parameters(atr).crc


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (InterfaceBytes(ta=1), T1Parameters(ifsc=1)),
        (InterfaceBytes(ta=254), T1Parameters(ifsc=254)),
        (InterfaceBytes(tb=0x9F), T1Parameters(bwi=9, cwi=15)),
        (InterfaceBytes(tb=0x00), T1Parameters(bwi=0, cwi=0)),
        (InterfaceBytes(tc=0xFE), T1Parameters()),
    ],
)
def test_values_at_the_edge_are_taken(group: InterfaceBytes, expected: T1Parameters) -> None:
    atr = ATR(b"", (InterfaceBytes(protocol=1), InterfaceBytes(protocol=1), group))
    assert t1_parameters(atr) == expected


@pytest.mark.parametrize("stop", ClockStop)
def test_the_clock_stop_indicator_is_the_top_of_the_first_ta_for_t15(stop: ClockStop) -> None:
    first, second = InterfaceBytes(ta=stop << 6 | 7, protocol=15), InterfaceBytes(ta=0x55)
    atr = ATR(b"", (InterfaceBytes(protocol=0), InterfaceBytes(protocol=15), first, second))
    assert t0_parameters(atr) == T0Parameters(clock_stop=stop)


def test_bytes_of_one_protocol_say_nothing_of_another() -> None:
    atr = ATR(
        b"",
        (
            InterfaceBytes(protocol=0),
            InterfaceBytes(protocol=0),
            InterfaceBytes(ta=0x80, tb=0x12, tc=1, protocol=0),
        ),
    )
    assert t1_parameters(atr) == T1Parameters()


def test_the_second_group_is_not_specific_to_t1() -> None:
    atr = ATR(b"", (InterfaceBytes(protocol=1), InterfaceBytes(ta=0x80, tb=0x12, tc=1)))
    assert t1_parameters(atr) == T1Parameters()


def test_in_specific_mode_ta1_holds_unless_the_factors_are_implicit() -> None:
    explicit = ATR(b"", (InterfaceBytes(ta=0x96, protocol=1), InterfaceBytes(ta=0x01)))
    implicit = ATR(b"", (InterfaceBytes(ta=0x96, protocol=1), InterfaceBytes(ta=0x11)))
    assert t1_parameters(explicit) == T1Parameters(9, 6)
    assert t1_parameters(implicit) == T1Parameters()


@pytest.mark.parametrize("ta1", [0x71, 0xE1, 0x10, 0x1A])
def test_rfu_factors_are_taken_for_the_defaults(ta1: int) -> None:
    atr = ATR(b"", (InterfaceBytes(ta=ta1),))
    assert t0_parameters(atr) == T0Parameters()


def test_rfu_values_of_t0_and_t1_are_taken_for_the_defaults() -> None:
    atr = ATR(
        b"",
        (
            InterfaceBytes(protocol=0),
            InterfaceBytes(tc=0, protocol=1),
            InterfaceBytes(ta=255, tb=0xA0),
        ),
    )
    assert t0_parameters(atr) == T0Parameters()
    assert t1_parameters(atr) == T1Parameters()


one_byte = st.integers(0, 255)
groups = st.builds(
    InterfaceBytes,
    ta=st.none() | one_byte,
    tb=st.none() | one_byte,
    tc=st.none() | one_byte,
    protocol=st.sampled_from([0, 1, 15]),
)


@given(st.sampled_from([0x3B, 0x3F]), st.lists(groups, max_size=5))
def test_what_an_atr_proposes_can_always_be_sent(ts: int, chain: list[InterfaceBytes]) -> None:
    atr = ATR(b"", tuple(chain), ts)
    t0, t1 = t0_parameters(atr), t1_parameters(atr)
    assert T0Parameters.decode(t0.encode()) == t0
    assert T1Parameters.decode(t1.encode()) == t1
