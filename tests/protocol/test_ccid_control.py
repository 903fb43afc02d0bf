# SPDX-License-Identifier: Apache-2.0
"""The three class-specific requests (CCID Rev 1.1, 5.3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol import LocalProtocolError, RemoteProtocolError
from ccid_protocol.ccid import (
    AbortRequest,
    ControlRequest,
    GetClockFrequencies,
    GetDataRates,
    decode_control_request,
    decode_rates,
    encode_control_request,
    encode_rates,
)
from ccid_protocol.usb import SetupPacket

REQUESTS = {
    "21 01 0203 0000 0000": AbortRequest(slot=2, seq=3),
    "A1 02 0000 0100 0400": GetClockFrequencies(length=4, interface=1),
    "A1 03 0000 0000 0C00": GetDataRates(length=12),
}


@pytest.mark.parametrize(("raw", "request_"), REQUESTS.items())
def test_a_request_has_the_bytes_of_the_specification(raw: str, request_: ControlRequest) -> None:
    assert encode_control_request(request_).encode() == bytes.fromhex(raw)
    assert decode_control_request(SetupPacket.decode(bytes.fromhex(raw))) == request_


@pytest.mark.parametrize(
    "raw",
    [
        "21 00 0000 0000 0000",
        "21 04 0000 0000 0000",
        "A1 01 0203 0000 0000",
        "21 01 0203 0000 0100",
        "21 02 0000 0000 0000",
        "A1 02 0100 0000 0400",
        "A1 03 0100 0000 0400",
        "A0 02 0000 0000 0400",
        "81 03 0000 0000 0400",
        "C1 03 0000 0000 0400",
    ],
)
def test_what_is_no_request_of_ccid_is_not_taken_for_one(raw: str) -> None:
    assert decode_control_request(SetupPacket.decode(bytes.fromhex(raw))) is None


@given(st.binary(min_size=8, max_size=8))
def test_a_request_that_is_taken_encodes_to_the_bytes_that_came(raw: bytes) -> None:
    request = decode_control_request(SetupPacket.decode(raw))
    if request is not None:
        assert encode_control_request(request).encode() == raw


@given(
    st.builds(AbortRequest, st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535))
    | st.builds(GetClockFrequencies, st.integers(0, 65535), st.integers(0, 65535))
    | st.builds(GetDataRates, st.integers(0, 65535), st.integers(0, 65535))
)
def test_a_request_survives_its_encoding(request_: ControlRequest) -> None:
    assert decode_control_request(encode_control_request(request_)) == request_


@pytest.mark.parametrize("request_", [AbortRequest(256, 0), AbortRequest(0, -1)])
def test_an_abort_of_no_slot_or_message_is_not_encoded(request_: AbortRequest) -> None:
    with pytest.raises(LocalProtocolError):
        encode_control_request(request_)


def test_clock_frequencies_and_data_rates_are_double_words() -> None:
    assert encode_rates((4000, 344086)) == bytes.fromhex("A00F0000 16400500")
    assert decode_rates(bytes.fromhex("A00F0000 16400500")) == (4000, 344086)
    assert encode_rates(()) == b""


def test_bad_rates_are_refused_both_ways() -> None:
    with pytest.raises(LocalProtocolError):
        encode_rates((2**32,))
    with pytest.raises(RemoteProtocolError):
        decode_rates(bytes(5))
