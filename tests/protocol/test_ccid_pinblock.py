# SPDX-License-Identifier: Apache-2.0
"""PIN blocks, held against what hosts send and what readers make of it.

The vectors named ACR83 are the worked examples of a pinpad's manual (ACS ACR83 Reference Manual
1.05, chapters 11 and 12), where bit positions, justification and lengths are all in use.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol import LocalProtocolError
from ccid_protocol.ccid import BadFieldError, PinEncoding, PinFormat, PinTemplate

# bmFormatString, bmPINBlockString, bmPINLengthFormat; the data field before; the PIN; and after.
BLOCKS = {
    "PIV: ASCII, a block of 8 filled with FF": (
        "82 08 00",
        "FFFFFFFFFFFFFFFF",
        b"123456",
        "313233343536FFFF",
    ),
    "PIV as OpenSC has it, with a position in bits": (
        "02 08 00",
        "FFFFFFFFFFFFFFFF",
        b"12345678",
        "3132333435363738",
    ),
    "OpenPGP: ASCII of its own length": ("82 00 00", "", b"123456", "313233343536"),
    "ISO 9564 format 2, positions in bytes": (
        "89 47 04",
        "20FFFFFFFFFFFFFF",
        b"12345",
        "2512345FFFFFFFFF",
    ),
    "ISO 9564 format 2, as OpenSC has it: positions in bits and a block of 8": (
        "41 48 04",
        "20FFFFFFFFFFFFFF",
        b"123456",
        "26123456FFFFFFFF",
    ),
    "BCD of its own length": ("81 00 00", "", b"12345", "12345F"),
    "binary": ("80 06 00", "FFFFFFFFFFFF", b"1090", "01000900FFFF"),
    "binary, right-justified": ("84 06 00", "FFFFFFFFFFFF", b"1090", "FFFF01000900"),
    "ASCII, right-justified, with zeros to fill": (
        "86 08 00",
        "00" * 8,
        b"1234",
        "0000000031323334",
    ),
    "a length in a byte of its own": ("8A 84 10", "00FFFFFFFF", b"123", "03313233FF"),
    "a length in half a byte behind another byte": (
        "91 46 11",
        "0AA6303030303030",
        b"123456",
        "0A66123456303030",
    ),
    "a template that is too short": ("82 08 00", "41", b"1234", "31323334FFFFFFFF"),
    "ACR83, 11.3: bits": ("39 49 02", "573030303030303030", b"123456780", "662468ACF010303030"),
    "ACR83, 11.3: bits, right-justified": (
        "3D 49 02",
        "573030303030303030",
        b"123456780",
        "673030303123456780",
    ),
    "ACR83, 11.4: bits": ("59 48 06", "57A5303030303030", b"12345", "5562468A30303030"),
    "ACR83, 11.4: bits, right-justified": (
        "5D 48 06",
        "57A5303030303030",
        b"12345",
        "5565303030312345",
    ),
    "ACR83, 11.5: bytes": ("89 48 04", "573030303030303030", b"123456780", "591234567800303030"),
    "ACR83, 12.11: bytes, right-justified": (
        "8D 48 04",
        "573030303030303030",
        b"123456780",
        "593030303123456780",
    ),
}


@pytest.mark.parametrize(("fields", "before", "pin", "after"), BLOCKS.values(), ids=BLOCKS)
def test_a_pin_is_written_where_and_how_the_format_says(
    fields: str, before: str, pin: bytes, after: str
) -> None:
    pin_format = PinFormat.decode(*bytes.fromhex(fields))
    assert pin_format.encode() == bytes.fromhex(fields)
    assert pin_format.insert(pin, bytes.fromhex(before)) == bytes.fromhex(after)


def test_an_insertion_offset_moves_the_digits_and_their_number() -> None:
    pin_format = PinFormat.decode(0x41, 0x48, 0x04)
    before = bytes.fromhex("080230303030303030 090330303030303030")
    after = pin_format.insert(b"123456", before, 1)
    assert after == bytes.fromhex("080612345630303030 090330303030303030")


def test_the_gap_before_an_insertion_offset_is_filled() -> None:
    assert PinFormat(PinEncoding.ASCII).insert(b"1", b"A", 3) == b"A\xff\xff1"


def test_an_empty_pin_writes_its_number_of_digits_only() -> None:
    pin_format = PinFormat.decode(0x89, 0x47, 0x04)
    before = bytes.fromhex("2FFFFFFFFFFFFFFF")
    assert pin_format.insert(b"", before) == bytes.fromhex("20FFFFFFFFFFFFFF")
    assert PinFormat(PinEncoding.BCD).insert(b"", b"") == b""


@pytest.mark.parametrize(
    ("fields", "offset"),
    [
        ((0x83, 0x00, 0x00), 12),
        ((0x82, 0x00, 0x20), 14),
        ((0x82, 0x00, 0x80), 14),
        # The digits begin where the block ends, in bits.
        ((0x42, 0x01, 0x00), 13),
        ((0x7A, 0x02, 0x00), 13),
        # The number of digits would stand in, or behind, the first digit.
        ((0x82, 0x48, 0x00), 14),
        ((0x89, 0x47, 0x05), 14),
        ((0x89, 0x47, 0x11), 14),
        ((0x89, 0x97, 0x00), 14),
    ],
)
def test_a_format_that_contradicts_itself_is_told_by_its_offset(
    fields: tuple[int, int, int], offset: int
) -> None:
    with pytest.raises(BadFieldError) as caught:
        PinFormat.decode(*fields)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("fields", "capacity"),
    [
        ((0x82, 0x08, 0x00), 8),
        ((0x81, 0x08, 0x00), 16),
        ((0x89, 0x47, 0x04), 14),
        ((0x41, 0x48, 0x04), 14),
        ((0x39, 0x49, 0x02), 16 - 1),
        ((0x89, 0x27, 0x04), 3),
        ((0x82, 0x00, 0x00), 255),
        ((0x81, 0x00, 0x00), 510),
        ((0x8A, 0x00, 0x00), 254),
    ],
)
def test_the_capacity_is_the_room_in_digits_and_what_their_number_can_tell(
    fields: tuple[int, int, int], capacity: int
) -> None:
    assert PinFormat.decode(*fields).capacity(255) == capacity


@pytest.mark.parametrize(
    ("encoding", "pin", "allowed"),
    [
        (PinEncoding.ASCII, b"Passw0rd!", True),
        (PinEncoding.ASCII, b" ~", True),
        (PinEncoding.ASCII, b"12\x1f", False),
        (PinEncoding.ASCII, b"12\x7f", False),
        (PinEncoding.BCD, b"0123456789", True),
        (PinEncoding.BCD, b"12A4", False),
        (PinEncoding.BINARY, b"1 2", False),
        (PinEncoding.BINARY, b"", True),
    ],
)
def test_only_ascii_takes_more_than_digits(
    encoding: PinEncoding, pin: bytes, *, allowed: bool
) -> None:
    assert PinFormat(encoding).allows(pin) is allowed


@pytest.mark.parametrize(
    "pin_format",
    [
        PinFormat(PinEncoding.ASCII, position=16),
        PinFormat(PinEncoding.ASCII, block_size=16),
        PinFormat(PinEncoding.ASCII, length_size=16),
        PinFormat(PinEncoding.ASCII, length_position=-1),
        PinFormat(PinEncoding.ASCII, length_size=4),
    ],
)
def test_a_format_that_cannot_be_is_not_encoded(pin_format: PinFormat) -> None:
    with pytest.raises(LocalProtocolError):
        pin_format.encode()


@given(st.binary(min_size=3, max_size=3))
def test_every_format_is_read_and_given_again_or_told_by_its_offset(raw: bytes) -> None:
    offset = None
    try:
        decoded = PinFormat.decode(*raw)
    except BadFieldError as error:
        offset = error.offset
    else:
        assert decoded.encode() == raw
    assert offset in {None, 12, 13, 14}


@st.composite
def formats(draw: st.DrawFn) -> PinFormat:
    """Formats whose number of digits, if there is one, stands before the digits."""
    in_bytes = draw(st.booleans())
    position = draw(st.integers(0, 15))
    start = 8 * position if in_bytes else position
    length_size = draw(st.integers(0, min(15, start)))
    length_position = draw(st.integers(0, min(15, start - length_size)))
    smallest = 1 if in_bytes else position // 8 + 2
    block_size = draw(st.just(0) | st.integers(smallest, 15))
    return PinFormat(
        draw(st.sampled_from(PinEncoding)),
        position,
        in_bytes,
        draw(st.booleans()),
        block_size,
        length_size,
        length_position,
    )


@given(formats(), st.data(), st.binary(max_size=40), st.integers(0, 20))
def test_the_digits_can_be_read_back_and_no_other_bit_has_changed(
    pin_format: PinFormat, data: st.DataObject, before: bytes, offset: int
) -> None:
    assert PinFormat.decode(*pin_format.encode()) == pin_format
    longest = min(20, pin_format.capacity(30))
    pin = bytes(data.draw(st.lists(st.sampled_from(b"0123456789"), max_size=longest)))
    after = pin_format.insert(pin, before, offset)
    bits = "".join(f"{byte:08b}" for byte in after)
    old = "".join(f"{byte:08b}" for byte in before).ljust(len(bits), "1")

    width = 4 if pin_format.encoding is PinEncoding.BCD else 8
    start = 8 * pin_format.position if pin_format.position_in_bytes else pin_format.position
    start += 8 * offset
    end = start + width * len(pin)
    if pin_format.block_size and pin_format.right_justified:
        end = 8 * (offset + pin_format.block_size)
        end += 8 * pin_format.position if pin_format.position_in_bytes else 0
        start = end - width * len(pin)
    prefix = "0011" if pin_format.encoding is PinEncoding.ASCII else "0000"
    expected = "".join((prefix if width == 8 else "") + f"{digit - 0x30:04b}" for digit in pin)
    assert bits[start:end] == expected

    number = 8 * offset + pin_format.length_position
    number_end = number + pin_format.length_size
    if pin_format.length_size:
        assert int(bits[number:number_end], 2) == len(pin)
    written = {*range(start, end), *range(number, number_end)}
    assert all(a == b for i, (a, b) in enumerate(zip(bits, old, strict=True)) if i not in written)


@pytest.mark.parametrize(
    ("raw", "template", "encoded"),
    [
        ("00200080", PinTemplate(bytes.fromhex("00200080")), "00200080"),
        ("0020008000", PinTemplate(bytes.fromhex("00200080")), "00200080"),
        ("0020008008", PinTemplate(bytes.fromhex("00200080")), "00200080"),
        ("00200080084142", PinTemplate(bytes.fromhex("00200080"), b"AB"), "00200080024142"),
        ("00200080024142", PinTemplate(bytes.fromhex("00200080"), b"AB"), "00200080024142"),
        (
            "0020008002414200",
            PinTemplate(bytes.fromhex("00200080"), b"AB", b"\0"),
            "0020008002414200",
        ),
        ("002000800010", PinTemplate(bytes.fromhex("00200080"), b"", b"\x10"), "002000800010"),
    ],
)
def test_a_template_may_come_with_or_without_its_lc(
    raw: str, template: PinTemplate, encoded: str
) -> None:
    assert PinTemplate.decode(bytes.fromhex(raw), 25) == template
    assert template.encode() == bytes.fromhex(encoded)


@pytest.mark.parametrize(("size", "offset"), [(0, 1), (3, 1), (7, 29), (300, 29)])
def test_a_template_that_is_no_apdu_is_told_by_its_offset(size: int, offset: int) -> None:
    with pytest.raises(BadFieldError) as caught:
        PinTemplate.decode(bytes(size), 25)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    "template",
    [
        PinTemplate(bytes(3)),
        PinTemplate(bytes(4), bytes(256)),
        PinTemplate(bytes(4), b"", bytes(2)),
    ],
)
def test_a_template_that_cannot_be_is_not_encoded(template: PinTemplate) -> None:
    with pytest.raises(LocalProtocolError):
        template.encode()
