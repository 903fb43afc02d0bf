# SPDX-License-Identifier: Apache-2.0
import pytest

from ccidd.errors import UserError
from ccidd.service.where import COMMAND_LINE, PlacedError, Where, in_file

CARD = COMMAND_LINE.within("card=piv")
FILE = in_file("ccidd.toml")
TABLE = FILE.within("readers").within("alice")


@pytest.mark.parametrize(
    ("where", "text", "of", "name"),
    [
        (COMMAND_LINE, "", "--connect", "--connect"),
        (CARD, "--card=piv", "--card=piv: connect", "connect"),
        (FILE, "ccidd.toml", "ccidd.toml: connect", "connect"),
        (TABLE, "ccidd.toml: readers.alice", "ccidd.toml: readers.alice.connect", "connect"),
        (
            TABLE.within("cards[0]"),
            *[f"ccidd.toml: readers.alice.cards[0]{x}" for x in ("", ".connect")],
            "connect",
        ),
        (Where("soft=(,A,…)", None), "soft=(,A,…)", "soft=(,A,…)", "connect"),
    ],
)
def test_places_are_named(where: Where, text: str, of: str, name: str) -> None:
    assert str(where) == text
    assert where.of("connect") == of
    assert where.name("connect") == name


def test_an_error_says_where() -> None:
    assert str(CARD.error("it is wrong")) == "--card=piv: it is wrong"
    assert str(CARD.error("this is wrong", "pin-file")) == "--card=piv: pin-file: this is wrong"
    assert str(COMMAND_LINE.error("it is wrong")) == "it is wrong"


def test_what_is_raised_has_its_place_once() -> None:
    with pytest.raises(PlacedError) as caught, TABLE.naming(), CARD.naming("pin-file"):
        raise UserError("cannot read a")
    assert str(caught.value) == "--card=piv: pin-file: cannot read a"


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(KeyError), TABLE.naming():
        raise KeyError
