# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.apdu import (
    CommandAPDU,
    ResponseAPDU,
    bytes_available,
    tries_left,
    wrong_le,
)
from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError

BYTE = st.integers(0, 255)
HEADER = (0x00, 0xA4, 0x04, 0x0C)


@pytest.mark.parametrize(
    ("body", "data", "ne", "extended"),
    [
        pytest.param("", "", 0, False, id="1"),
        pytest.param("08", "", 8, False, id="2S"),
        pytest.param("00", "", 256, False, id="2S of 256"),
        pytest.param("02AABB", "AABB", 0, False, id="3S"),
        pytest.param("02AABB10", "AABB", 16, False, id="4S"),
        pytest.param("02AABB00", "AABB", 256, False, id="4S of 256"),
        pytest.param("000100", "", 256, True, id="2E"),
        pytest.param("000000", "", 65536, True, id="2E of 65536"),
        pytest.param("000002AABB", "AABB", 0, True, id="3E"),
        pytest.param("000002AABB0001", "AABB", 1, True, id="4E"),
        pytest.param("000002AABB0000", "AABB", 65536, True, id="4E of 65536"),
    ],
)
def test_each_case_of_iso_7816_3(body: str, data: str, ne: int, *, extended: bool) -> None:
    raw = bytes(HEADER) + bytes.fromhex(body)
    command = CommandAPDU(*HEADER, bytes.fromhex(data), ne, extended)
    assert CommandAPDU.decode(raw) == command
    assert command.encode() == raw


@given(
    st.builds(CommandAPDU, BYTE, BYTE, BYTE, BYTE, st.binary(max_size=255), st.integers(0, 256))
    | st.builds(
        CommandAPDU,
        BYTE,
        BYTE,
        BYTE,
        BYTE,
        st.binary(min_size=1, max_size=600),
        st.integers(0, 65536),
        st.just(True),
    )
)
def test_what_was_encoded_is_decoded(command: CommandAPDU) -> None:
    assert CommandAPDU.decode(command.encode()) == command


@given(st.binary(max_size=600))
def test_whatever_comes_only_a_remote_protocol_error_leaves(raw: bytes) -> None:
    try:
        command = CommandAPDU.decode(raw)
    except RemoteProtocolError:
        return
    assert command.encode() == raw


@pytest.mark.parametrize(
    "raw", ["", "00A404", "00A4040003AABB", "00A4040001AABBCC", "00A40400000003AABB"]
)
def test_lengths_that_do_not_agree_are_refused(raw: str) -> None:
    with pytest.raises(RemoteProtocolError):
        CommandAPDU.decode(bytes.fromhex(raw))


@pytest.mark.parametrize(
    "command",
    [
        CommandAPDU(*HEADER, bytes(256)),
        CommandAPDU(*HEADER, ne=257),
        CommandAPDU(*HEADER, bytes(65536), extended=True),
        CommandAPDU(*HEADER, ne=65537, extended=True),
    ],
)
def test_what_does_not_fit_its_form_is_not_encoded(command: CommandAPDU) -> None:
    with pytest.raises(LocalProtocolError):
        command.encode()


@given(st.builds(ResponseAPDU, st.binary(max_size=600), st.integers(0, 0xFFFF)))
def test_responses_come_back(response: ResponseAPDU) -> None:
    assert ResponseAPDU.decode(response.encode()) == response


@pytest.mark.parametrize("raw", [b"", b"\x90"])
def test_a_response_has_a_status_word(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ResponseAPDU.decode(raw)


def test_status_words_that_count() -> None:
    assert tries_left(3) == 0x63C3
    assert tries_left(20) == 0x63CF
    assert bytes_available(1) == 0x6101
    assert bytes_available(255) == 0x61FF
    assert bytes_available(256) == bytes_available(3000) == 0x6100
    assert wrong_le(0x17) == 0x6C17
    assert wrong_le(256) == 0x6C00


def test_data_stays_out_of_reprs() -> None:
    command = CommandAPDU(0, 0x20, 0, 0x80, b"123456\xff\xff")
    assert "123456" not in repr(command)
    assert "123456" not in repr(ResponseAPDU(b"123456"))
