# SPDX-License-Identifier: Apache-2.0
import pytest

from ccidd.errors import UserError
from ccidd.service.options import CARD_TYPES, card_help, parse_card


def test_options_are_split_at_single_commas() -> None:
    options = parse_card("piv,keys=a,,b.p12,keys=c,,,pin-file=/p=q")
    assert options.type == "piv"
    assert options.values["keys"] == ("a,b.p12", "c,")
    assert options.one("pin-file") == "/p=q"
    assert options.one("password-file") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no such type"),
        ("pvi,keys=a", "--card=pvi: there is no such type of card"),
        ("piv,key=a", "no option 'key'"),
        ("piv,keys=a,pin-file=p,", "no option ''"),
        ("piv,keys", "needs a value"),
        ("piv,keys=", "needs a value"),
        ("piv,keys=a,pin-file=b,pin-file=c", "pin-file is given twice"),
        ("piv,pin-file=b", "keys=FILE.p12|FILE.pem is missing"),
        ("piv,keys=a", "pin-file=FILE is missing"),
    ],
)
def test_wrong_options_are_named(text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_card(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_help_tells_of_every_type_and_option() -> None:
    text = card_help()
    for card_type, (_description, options) in CARD_TYPES.items():
        assert f"\n{card_type}: " in text
        for name, option in options.items():
            assert f"  {name}={option.value}" in text
