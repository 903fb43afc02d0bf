# SPDX-License-Identifier: Apache-2.0
"""The options of --reader."""

import os
from pathlib import Path

import pytest

from ccidd.errors import UserError
from ccidd.reader.profile import IDENTITIES, Level
from ccidd.service.options import parse_reader
from ccidd.service.readers import reader_profile


def test_by_default_there_is_a_slot_for_each_card() -> None:
    for cards in (1, 3, 16):
        profile = reader_profile({}, cards=cards, place="/run/s")
        assert profile.slots == cards
        assert profile.level is Level.EXTENDED_APDU


def test_the_default_identities_differ_by_slots() -> None:
    one = reader_profile({}, cards=1, place="/run/s")
    many = reader_profile({}, cards=2, place="/run/s")
    assert (one.vendor_id, one.product_id) == (0x0E0F, 0x0004)
    assert (many.vendor_id, many.product_id) == (0x1D50, 0x6141)


def test_all_options_are_taken() -> None:
    text = "slots=4,level=tpdu,usb-id=08e6:4433,serial=A,,B,manufacturer=Some One,product=Reader 1"
    profile = reader_profile(parse_reader(text), cards=2, place="/run/s")
    assert (profile.slots, profile.level) == (4, Level.TPDU)
    assert (profile.vendor_id, profile.product_id) == (0x08E6, 0x4433)
    assert (profile.serial, profile.manufacturer, profile.product) == (
        "A,B",
        "Some One",
        "Reader 1",
    )


@pytest.mark.parametrize("name", IDENTITIES)
def test_each_profile_can_be_chosen(name: str) -> None:
    profile = reader_profile({"profile": name}, cards=2, place="/run/s")
    identity = IDENTITIES[name]
    assert (profile.vendor_id, profile.product_id) == (identity.vendor_id, identity.product_id)


def test_the_longest_message_can_be_chosen_and_is_in_the_descriptor() -> None:
    profile = reader_profile({"max-message": "3072"}, cards=1, place="/run/s")
    assert profile.max_message_length == 3072
    assert profile.class_descriptor().max_message_length == 3072


@pytest.mark.parametrize("level", Level)
def test_each_level_can_be_chosen(level: Level) -> None:
    profile = reader_profile({"level": level.value}, cards=1, place="/run/s")
    assert profile.level is level


def test_the_serial_number_is_the_place_s_own(tmp_path: Path) -> None:
    places = ["/run/a", "/run/b", str(tmp_path)]
    serials = [reader_profile({}, cards=1, place=place).serial for place in places]
    assert len(set(serials)) == len(places)
    assert [reader_profile({}, cards=1, place=place).serial for place in places] == serials
    assert all(len(serial) == 12 and serial.isalnum() for serial in serials)


def test_a_relative_path_is_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = reader_profile({}, cards=1, place="s").serial
    assert relative == reader_profile({}, cards=1, place=os.fspath(tmp_path / "s")).serial


def test_the_serial_number_of_an_address_does_not_depend_on_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = reader_profile({}, cards=1, place="localhost:4000").serial
    monkeypatch.chdir(tmp_path)
    assert reader_profile({}, cards=1, place="localhost:4000").serial == before


@pytest.mark.parametrize(
    ("text", "cards", "message"),
    [
        ("slots=0", 1, "slots: 0 are not"),
        ("slots=17", 1, "at most 16"),
        ("slots=1", 2, "one for each card"),
        ("slots=-1", 1, "slots: -1 is no number"),
        ("slots=two", 1, "slots: two is no number"),
        ("slots=²", 1, "is no number"),
        ("level=apdu", 1, "none of extended, short, tpdu"),
        ("usb-id=8e6:4433", 1, "not of the form VVVV:PPPP"),
        ("usb-id=08e6-4433", 1, "not of the form VVVV:PPPP"),
        ("usb-id=08e6:4433 ", 1, "not of the form VVVV:PPPP"),
        ("profile=nobody", 1, "profile: nobody is none of vmware, sysmocom, gemalto"),
        ("profile=vmware,usb-id=08e6:4433", 1, "exclude each other"),
        ("max-message=270", 1, "not within 271 to 65554"),
        ("max-message=65555", 1, "not within 271 to 65554"),
        ("max-message=many", 1, "not within 271 to 65554"),
        ("max-message=1000,level=short", 1, "max-message: this is for level=extended"),
        ("serial=é", 1, "serial: this is not printable ASCII"),
        ("product=a\tb", 1, "product: this is not printable ASCII"),
        (f"manufacturer={'x' * 127}", 1, "at most 126 bytes"),
        ("colour=red", 1, "no option 'colour'"),
        ("slots", 1, "needs a value"),
        ("serial=", 1, "needs a value"),
        ("slots=1,slots=2", 1, "given twice"),
    ],
)
def test_wrong_options_are_one_line(text: str, cards: int, message: str) -> None:
    with pytest.raises(UserError) as caught:
        reader_profile(parse_reader(text), cards=cards, place="/run/s")
    assert message in str(caught.value)
    assert "--reader" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_cards_than_slots_are_refused() -> None:
    with pytest.raises(UserError, match="at most 16"):
        reader_profile({}, cards=17, place="/run/s")


def test_a_number_of_any_length_is_refused() -> None:
    with pytest.raises(UserError):
        reader_profile({"slots": "9" * 5000}, cards=1, place="/run/s")


def test_the_longest_strings_fit_their_descriptors() -> None:
    assert reader_profile({"serial": "x" * 126}, cards=1, place="/run/s").serial == "x" * 126
