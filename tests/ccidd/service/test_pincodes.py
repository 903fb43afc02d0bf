# SPDX-License-Identifier: Apache-2.0
import pytest

from ccidd.errors import UserError
from ccidd.service.pincodes import (
    MANAGEMENT_ALGORITHMS,
    parse_management_key,
    pin_on_wire,
    puk_on_wire,
    random_pin,
    random_puk,
)


def test_a_pin_is_filled_up() -> None:
    assert pin_on_wire(b"123456", "f") == b"123456\xff\xff"
    assert pin_on_wire(b"12345678", "f") == b"12345678"
    assert puk_on_wire(b"abCD!~12", "f") == b"abCD!~12"


@pytest.mark.parametrize(
    "pin", [b"", b"12345", b"123456789", b"12345a", b"123456\n", "١٢٣٤٥٦".encode()]
)
def test_what_is_no_pin_is_refused(pin: bytes) -> None:
    with pytest.raises(UserError, match=r"^some/file: a PIN has 6 to 8 digits"):
        pin_on_wire(pin, "some/file")


@pytest.mark.parametrize("puk", [b"", b"1234567", b"123456789", b"1234 678", "1234567é".encode()])
def test_what_is_no_puk_is_refused(puk: bytes) -> None:
    with pytest.raises(UserError, match=r"^some/file: a PUK has 8"):
        puk_on_wire(puk, "some/file")


def test_random_ones_will_do() -> None:
    pins, puks = {random_pin() for _ in range(100)}, {random_puk() for _ in range(100)}
    assert len(pins) > 90
    assert len(puks) > 90
    for pin in pins:
        assert len(pin_on_wire(pin.encode(), "").rstrip(b"\xff")) == 6
    for puk in puks:
        assert puk_on_wire(puk.encode(), "").isdigit()


@pytest.mark.parametrize(("name", "digits"), [("3DES", 48), ("AES-128", 32), ("AES-256", 64)])
def test_an_administration_key_is_of_the_size_that_its_algorithm_has(
    name: str, digits: int
) -> None:
    algorithm = MANAGEMENT_ALGORITHMS[name]
    key = parse_management_key(b"aB" * (digits // 2), algorithm)
    assert (key.algorithm, key.key.hex()) == (algorithm, "ab" * (digits // 2))
    for wrong in (b"", b"ab", b"ab" * 33, b"x" * digits, b"\xff" * digits):
        with pytest.raises(UserError, match=f"for {name} has {digits} hexadecimal digits"):
            parse_management_key(wrong, algorithm)
