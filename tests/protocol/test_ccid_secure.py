# SPDX-License-Identifier: Apache-2.0
"""What PC_to_RDR_Secure holds, as OpenSC and GnuPG ask for it and libccid sends it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol import LocalProtocolError
from ccid_protocol.ccid import (
    BadFieldError,
    EntryValidation,
    OtherPinOperation,
    PinEncoding,
    PinFormat,
    PinModification,
    PinOperation,
    PinRequest,
    PinTemplate,
    PinVerification,
    decode_pin_request,
)

VERIFY = bytes.fromhex("00200080")
CHANGE = bytes.fromhex("00240080")
FILLED = b"\xff" * 8
IN_BLOCK = PinFormat(PinEncoding.ASCII, block_size=8)
AS_LONG_AS_IT_IS = PinFormat(PinEncoding.ASCII)

REQUESTS: dict[str, PinRequest] = {
    # OpenSC, PIV, a reader without a display
    "00 1E820800 0804 02 00 0000 00 000000 0020008008 FFFFFFFFFFFFFFFF": PinVerification(
        PinTemplate(VERIFY, FILLED), IN_BLOCK, 4, 8, timeout=30, number_messages=0, language=0
    ),
    # GnuPG, OpenPGP card: a PIN as long as it is
    "00 00820000 2006 02 01 0904 00 000000 00200080": PinVerification(
        PinTemplate(VERIFY), AS_LONG_AS_IT_IS, 6, 32
    ),
    # A T=1 block's prologue, the reader's default messages, and a time-out as confirmation
    "00 05820000 2006 05 FF 0704 02 004005 00200080": PinVerification(
        PinTemplate(VERIFY),
        AS_LONG_AS_IT_IS,
        6,
        32,
        timeout=5,
        validation=EntryValidation.MAX_SIZE_REACHED | EntryValidation.TIMEOUT,
        number_messages=255,
        language=0x0407,
        message_index=2,
        teo_prologue=bytes.fromhex("004005"),
    ),
    # OpenSC, PIV, a reader without a display: one bMsgIndex
    "01 1E820800 00 08 0804 03 02 00 0000 00 000000 0024008010" + "FF" * 16: PinModification(
        PinTemplate(CHANGE, FILLED * 2),
        IN_BLOCK,
        4,
        8,
        timeout=30,
        insertion_offset_new=8,
        number_messages=0,
        language=0,
        message_indices=(0,),
    ),
    # OpenSC, a new PIN only, a reader with a display: two; the offset of no PIN is nonsense
    "01 1E820800 FB 00 0804 01 02 02 0000 01 02 000000 0024008008" + "FF" * 8: PinModification(
        PinTemplate(CHANGE, FILLED),
        IN_BLOCK,
        4,
        8,
        timeout=30,
        insertion_offset_old=0xFB,
        asks_current=False,
        number_messages=2,
        language=0,
        message_indices=(1, 2),
    ),
    # GnuPG, OpenPGP card: three
    "01 00820000 00 00 2006 03 02 03 0904 00 01 02 000000 00240080": PinModification(
        PinTemplate(CHANGE), AS_LONG_AS_IT_IS, 6, 32
    ),
    "01 00820000 00 00 2006 00 02 01 0904 00 01 000000 00240080": PinModification(
        PinTemplate(CHANGE),
        AS_LONG_AS_IT_IS,
        6,
        32,
        asks_current=False,
        confirms=False,
        number_messages=1,
        message_indices=(0, 1),
    ),
    "01 00820000 00 00 2006 02 07 FF 0904 00 01 02 000000 00240080": PinModification(
        PinTemplate(CHANGE),
        AS_LONG_AS_IT_IS,
        6,
        32,
        confirms=False,
        validation=EntryValidation(7),
        number_messages=255,
    ),
    "02": OtherPinOperation(PinOperation.TRANSFER),
    "03": OtherPinOperation(PinOperation.WAIT_ICC_RESPONSE),
    "04": OtherPinOperation(PinOperation.CANCEL),
    "05": OtherPinOperation(PinOperation.RESEND_LAST_BLOCK),
    "06": OtherPinOperation(PinOperation.SEND_NEXT_PART),
}


@pytest.mark.parametrize(("raw", "request_"), REQUESTS.items())
def test_a_request_has_the_bytes_that_hosts_send(raw: str, request_: PinRequest) -> None:
    assert decode_pin_request(bytes.fromhex(raw)) == request_
    assert request_.encode() == bytes.fromhex(raw)


def test_an_lc_of_zero_is_taken_though_it_is_not_sent() -> None:
    # GnuPG: the PIN's length is not known before it is entered.
    verify = bytes.fromhex("00 00820000 2006 02 01 0904 00 000000 0020008000")
    request = decode_pin_request(verify)
    assert isinstance(request, PinVerification)
    assert request.command(b"123456") == bytes.fromhex("0020008006 313233343536")


def test_the_pin_of_a_verification_goes_into_the_apdu() -> None:
    in_block = PinVerification(PinTemplate(VERIFY, FILLED), IN_BLOCK, 4, 8)
    assert in_block.command(b"123456") == VERIFY + b"\x08123456\xff\xff"
    with_le = replace(in_block, template=PinTemplate(VERIFY, FILLED, b"\0"))
    assert with_le.command(b"12345678") == VERIFY + b"\x0812345678\0"
    longest = PinVerification(PinTemplate(VERIFY), AS_LONG_AS_IT_IS, 0, 255)
    assert longest.command(b"1" * 255) == VERIFY + b"\xff" + b"1" * 255
    assert longest.command(b"") == VERIFY


def test_blocks_of_a_size_go_to_their_insertion_offsets() -> None:
    request = PinModification(
        PinTemplate(CHANGE, FILLED * 2), IN_BLOCK, 4, 8, insertion_offset_new=8
    )
    assert request.command(b"654321", b"1234") == (
        CHANGE + b"\x101234\xff\xff\xff\xff654321\xff\xff"
    )
    swapped = replace(request, insertion_offset_old=8, insertion_offset_new=0)
    assert swapped.command(b"654321", b"1234") == (
        CHANGE + b"\x10654321\xff\xff1234\xff\xff\xff\xff"
    )


def test_blocks_without_a_size_follow_each_other() -> None:
    request = PinModification(PinTemplate(CHANGE), AS_LONG_AS_IT_IS, 4, 32)
    assert request.command(b"87654321", b"123456") == CHANGE + b"\x0e12345687654321"
    apart = replace(request, insertion_offset_new=7)
    assert apart.command(b"87654321", b"123456") == CHANGE + b"\x0f123456\xff87654321"


def test_a_new_pin_alone_goes_to_its_insertion_offset() -> None:
    request = PinModification(
        PinTemplate(CHANGE), AS_LONG_AS_IT_IS, 4, 8, insertion_offset_new=2, asks_current=False
    )
    assert request.command(b"1234") == CHANGE + b"\x06\xff\xff1234"


# The worked examples of ACS ACR83 Reference Manual 1.05, 12.9 and 12.12.
def test_a_new_pin_in_bits_behind_an_insertion_offset() -> None:
    request = PinModification(
        PinTemplate(bytes.fromhex("00240001"), bytes.fromhex("20573030303030303030")),
        PinFormat.decode(0x39, 0x49, 0x02),
        1,
        10,
        insertion_offset_new=1,
        asks_current=False,
    )
    expected = "002400010A 20662468ACF010303030"
    assert request.command(b"123456780") == bytes.fromhex(expected)
    right = replace(request, format=PinFormat.decode(0x3D, 0x49, 0x02))
    expected = "002400010A 20673030303123456780"
    assert right.command(b"123456780") == bytes.fromhex(expected)


def test_both_pins_in_bits_behind_insertion_offsets() -> None:
    template = "0802 30303030303030 0903 30303030303030"
    request = PinModification(
        PinTemplate(bytes.fromhex("00240001"), bytes.fromhex(template)),
        PinFormat.decode(0x41, 0x48, 0x04),
        1,
        10,
        insertion_offset_old=1,
        insertion_offset_new=10,
        confirms=False,
        number_messages=2,
        message_indices=(0, 1),
    )
    assert decode_pin_request(request.encode()) == request
    expected = "0024000112 0806 12345630303030 090A 12345678903030"
    assert request.command(b"1234567890", b"123456") == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("pin", "accepted"),
    [
        (b"123", False),
        (b"1234", True),
        (b"12345678", True),
        (b"123456789", False),
        (b"12\x0034", False),
    ],
)
def test_a_pin_is_held_against_the_hosts_limits(pin: bytes, *, accepted: bool) -> None:
    # The host allows 12 characters, but the block has room for 8.
    request = PinVerification(PinTemplate(VERIFY, FILLED), IN_BLOCK, 4, 12)
    assert request.accepts(pin) is accepted
    if not accepted:
        with pytest.raises(LocalProtocolError):
            request.command(pin)


def test_a_modification_holds_both_pins_against_the_limits() -> None:
    request = PinModification(PinTemplate(CHANGE), AS_LONG_AS_IT_IS, 4, 255)
    assert request.longest == 127
    for new, current in ((b"123", b"1234"), (b"1234", b"123"), (b"1" * 128, b"1234")):
        with pytest.raises(LocalProtocolError):
            request.command(new, current)


def test_the_longest_pins_fill_the_longest_apdu() -> None:
    request = PinModification(
        PinTemplate(CHANGE), AS_LONG_AS_IT_IS, 4, 255, insertion_offset_old=55
    )
    assert request.longest == 100
    apdu = request.command(b"2" * 100, b"1" * 100)
    assert apdu == CHANGE + b"\xff" * 56 + b"1" * 100 + b"2" * 100
    new_only = replace(request, asks_current=False, insertion_offset_new=100)
    assert new_only.longest == 155
    assert len(new_only.command(b"2" * 155)) == 5 + 255


def test_a_block_may_end_where_the_longest_apdu_does() -> None:
    last = bytearray(MODIFICATION)
    last[6] = 247
    request = decode_pin_request(bytes(last))
    assert isinstance(request, PinModification)
    assert len(request.command(b"1234", b"1234")) == 5 + 255


def test_the_current_pin_is_given_if_and_only_if_it_is_asked_for() -> None:
    request = PinModification(PinTemplate(CHANGE), AS_LONG_AS_IT_IS, 4, 8)
    with pytest.raises(LocalProtocolError):
        request.command(b"1234")
    with pytest.raises(LocalProtocolError):
        replace(request, asks_current=False).command(b"1234", b"1234")


def test_no_exception_or_repr_tells_a_pin() -> None:
    request = PinVerification(PinTemplate(VERIFY, b"987654"), AS_LONG_AS_IT_IS, 1, 4)
    with pytest.raises(LocalProtocolError) as caught:
        request.command(b"987654")
    assert "987654" not in str(caught.value) + repr(request)


VERIFICATION = bytes.fromhex("00 1E820800 0804 02 00 0000 00 000000 0020008008") + FILLED
MODIFICATION = (
    bytes.fromhex("01 1E820800 00 08 0804 03 02 03 0000 00 01 02 000000 0024008010") + FILLED * 2
)


@pytest.mark.parametrize(
    ("good", "index", "value", "offset"),
    [
        (VERIFICATION, 0, 7, 10),
        (VERIFICATION, 0, 0x10, 10),
        (VERIFICATION, 2, 0x83, 12),
        (VERIFICATION, 3, 0x48, 14),
        (VERIFICATION, 4, 0x40, 14),
        (VERIFICATION, 5, 0x00, 15),
        (VERIFICATION, 5, 0x03, 15),
        (VERIFICATION, 6, 0x09, 15),
        (VERIFICATION, 7, 0x00, 17),
        (VERIFICATION, 7, 0x08, 17),
        (VERIFICATION, 8, 0x02, 18),
        (VERIFICATION, 8, 0xFE, 18),
        (VERIFICATION, 19, 0x06, 29),
        (MODIFICATION, 2, 0x83, 12),
        (MODIFICATION, 4, 0x40, 14),
        (MODIFICATION, 5, 0x01, 16),
        (MODIFICATION, 6, 0x07, 16),
        (MODIFICATION, 6, 0xF8, 16),
        (MODIFICATION, 7, 0x03, 17),
        (MODIFICATION, 8, 0x09, 17),
        (MODIFICATION, 9, 0x04, 19),
        (MODIFICATION, 10, 0x00, 20),
        (MODIFICATION, 11, 0x04, 21),
        (MODIFICATION, 24, 0x0E, 34),
    ],
)
def test_a_bad_field_is_told_by_its_offset(
    good: bytes, index: int, value: int, offset: int
) -> None:
    assert decode_pin_request(good).encode() == good
    bad = good[:index] + bytes([value]) + good[index + 1 :]
    with pytest.raises(BadFieldError) as caught:
        decode_pin_request(bad)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\3\0",
        b"\4\0",
        b"\5\0",
        *(VERIFICATION[:size] for size in range(1, 19)),
        *(MODIFICATION[:size] for size in range(1, 24)),
    ],
)
def test_too_few_or_too_many_bytes_are_a_bad_length(raw: bytes) -> None:
    with pytest.raises(BadFieldError) as caught:
        decode_pin_request(raw)
    assert caught.value.offset == 1


@pytest.mark.parametrize(
    "request_",
    [
        PinVerification(PinTemplate(VERIFY), AS_LONG_AS_IT_IS, 1, 256),
        PinVerification(PinTemplate(VERIFY), AS_LONG_AS_IT_IS, 5, 4),
        PinVerification(PinTemplate(VERIFY), AS_LONG_AS_IT_IS, 1, 4, timeout=256),
        PinVerification(PinTemplate(VERIFY), AS_LONG_AS_IT_IS, 1, 4, number_messages=3),
        PinVerification(PinTemplate(VERIFY), AS_LONG_AS_IT_IS, 1, 4, validation=EntryValidation(0)),
        PinVerification(PinTemplate(b"123"), AS_LONG_AS_IT_IS, 1, 4),
        PinVerification(PinTemplate(VERIFY), replace(AS_LONG_AS_IT_IS, block_size=16), 1, 4),
        PinModification(PinTemplate(CHANGE), AS_LONG_AS_IT_IS, 1, 4, message_indices=(0, 1)),
        PinModification(PinTemplate(CHANGE), AS_LONG_AS_IT_IS, 1, 4, number_messages=4),
        PinModification(PinTemplate(CHANGE), AS_LONG_AS_IT_IS, 1, 4, message_indices=(0, 1, 256)),
        PinModification(PinTemplate(CHANGE), IN_BLOCK, 1, 4, insertion_offset_new=7),
    ],
)
def test_a_request_that_cannot_be_is_not_encoded(request_: PinRequest) -> None:
    with pytest.raises(LocalProtocolError):
        request_.encode()


one_byte = st.integers(0, 255)


@st.composite
def requests(draw: st.DrawFn) -> PinRequest:
    pin_format = PinFormat(
        draw(st.sampled_from(PinEncoding)),
        draw(st.integers(1, 7)),
        right_justified=draw(st.booleans()),
        block_size=draw(st.integers(0, 15)),
        length_size=draw(st.integers(0, 8)),
    )
    template = PinTemplate(draw(st.binary(min_size=4, max_size=4)), draw(st.binary(max_size=60)))
    least = draw(st.integers(0, min(20, pin_format.capacity(20))))
    most = draw(st.integers(max(1, least), 255))
    common: dict[str, Any] = {
        "timeout": draw(one_byte),
        "validation": draw(st.integers(1, 7).map(EntryValidation)),
        "language": draw(st.integers(0, 0xFFFF)),
        "teo_prologue": draw(st.binary(min_size=3, max_size=3)),
    }
    if draw(st.booleans()):
        common["number_messages"] = draw(st.sampled_from([0, 1, 255]))
        common["message_index"] = draw(one_byte)
        return PinVerification(template, pin_format, least, most, **common)
    messages = draw(st.sampled_from([0, 1, 2, 3, 255]))
    count = {0: 1, 1: 2, 2: 2}.get(messages, 3)
    return PinModification(
        template,
        pin_format,
        least,
        most,
        **common,
        number_messages=messages,
        message_indices=tuple(draw(st.lists(one_byte, min_size=count, max_size=count))),
        insertion_offset_old=draw(st.integers(0, 20)),
        insertion_offset_new=draw(st.integers(50, 70)),
        asks_current=draw(st.booleans()),
        confirms=draw(st.booleans()),
    )


@given(requests())
def test_a_request_survives_its_encoding(request_: PinRequest) -> None:
    assert decode_pin_request(request_.encode()) == request_


@given(requests())
def test_every_pin_that_is_accepted_fits(request_: PinRequest) -> None:
    assert not isinstance(request_, OtherPinOperation)
    for size in (request_.min_digits, request_.longest):
        pin = b"7" * size
        assert request_.accepts(pin)
        if isinstance(request_, PinVerification):
            apdu = request_.command(pin)
        else:
            apdu = request_.command(pin, pin if request_.asks_current else None)
        assert len(apdu) == 4 or apdu[4] == len(apdu) - 5
    assert not request_.accepts(b"7" * (request_.longest + 1))


@given(st.sampled_from([0, 1]), st.binary(max_size=40))
def test_whatever_comes_only_a_bad_field_leaves_the_decoder(operation: int, rest: bytes) -> None:
    offset = None
    try:
        request = decode_pin_request(bytes([operation]) + rest)
    except BadFieldError as error:
        offset = error.offset
    else:
        assert decode_pin_request(request.encode()) == request
    assert offset in {None, 1, *range(10, 35)}
