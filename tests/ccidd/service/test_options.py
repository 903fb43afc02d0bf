# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from ccidd.errors import UserError
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.options import card_help, card_options, parse_card


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
        ("piv,keys", "keys: this needs a value: keys=..."),
        ("piv,keys=", "keys: this needs a value: keys=..."),
        ("piv,keys=a,pin-file=b,pin-file=c", "pin-file: this is given twice"),
        ("piv", "give it keys=FILE.p12|FILE.pem, or card=NAME"),
        ("piv,pin-file=b", "give it keys=FILE.p12|FILE.pem, or card=NAME"),
        ("piv,keys=a", "pin-file=FILE is missing"),
        ("piv,key9A=a", "pin-file=FILE is missing"),
        ("piv,key9A=a,key9A=b,pin-file=p", "key9A: this is given twice"),
        ("piv,key9=a", "no option 'key9'"),
        ("piv,key9AA=a", "no option 'key9AA'"),
        ("piv,keyXX=a", "no option 'keyXX'"),
        ("piv,card=alice,keys=a", "leave out keys or card"),
        ("piv,pin-file=p,card=alice", "leave out pin-file or card"),
        ("piv,token=mine", "--card=piv: token: a PKCS#11 URI begins with pkcs11:"),
        ("piv,pkcs11=pkcs11:tokn=a", "--card=piv: pkcs11: a PKCS#11 URI with 'tokn'"),
        ("cac,token=any,key9A=01", "--card=cac: key9A: a PKCS#11 URI begins with pkcs11:"),
        ("piv,keys=a,key9A=pkcs11:id,pin-file=p", "--card=piv: key9A: a PKCS#11 URI has a part"),
    ],
)
def test_wrong_options_are_named(text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_card(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_card_that_is_kept_needs_nothing_else() -> None:
    assert parse_card("piv,card=alice").one("card") == "alice"


def test_keys_can_be_placed() -> None:
    options = parse_card("piv,key9c=a,,b,keys=c,key9A=d,pin-file=p,puk-file=q")
    assert options.values["key9c"] == ("a,b",)
    assert options.values["key9A"] == ("d",)


@pytest.fixture
def switched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of card that has an option which is on or off."""
    kind = replace(CARD_TYPES["piv"], switches={"legacy-rsa": "with short keys"})
    monkeypatch.setitem(CARD_TYPES, "piv", kind)


@pytest.mark.usefixtures("switched")
def test_switches_are_on_or_off() -> None:
    assert parse_card("piv,card=alice").switches == frozenset()
    assert parse_card("piv,card=alice,legacy-rsa=on").switches == {"legacy-rsa"}
    assert parse_card("piv,legacy-rsa=off,card=alice").switches == frozenset()
    with pytest.raises(UserError, match="legacy-rsa: this is on or off"):
        parse_card("piv,card=alice,legacy-rsa=yes")
    assert "  legacy-rsa=on|off\n      with short keys" in card_help()


def test_the_help_tells_of_every_type_and_option() -> None:
    text = card_help()
    for name, kind in CARD_TYPES.items():
        assert f"\n{name}: {kind.description}\n" in text
        for option_name, option in card_options(name).items():
            assert f"  {option_name}={option.value}" in text
