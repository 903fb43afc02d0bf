# SPDX-License-Identifier: Apache-2.0
"""The cards that --card asks for."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cards import transmit
from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU
from ccidd.card.card import Card
from ccidd.errors import UserError
from ccidd.keys.generated import private_key_pem
from ccidd.keys.key import KeyAlgorithm
from ccidd.service import embedded
from ccidd.service.cards import open_card, open_stored_card
from ccidd.service.options import parse_card
from ccidd.service.state import State
from crash import CHEAP
from credentials import credential, private_key
from piv import selected, verify

P_256, P_384 = KeyAlgorithm.P_256, KeyAlgorithm.P_384

CREDENTIALS = {
    "256-0": credential(P_256, 0),
    "256-1": credential(P_256, 1),
    "384-0": credential(P_384, 0),
}
CERTIFICATE_TAGS = {"9A": 0x5FC105, "9C": 0x5FC10A, "9D": 0x5FC10B, "9E": 0x5FC101}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Files of one key each: 256-0, 256-1, 384-0; both of the first in one; and a PIN and a PUK."""
    pem = {
        name: private_key_pem(private_key(each.key.algorithm, int(name[-1])))
        + each.certificate.public_bytes(Encoding.PEM)
        for name, each in CREDENTIALS.items()
    }
    for name, content in pem.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "both").write_bytes(pem["256-0"] + pem["256-1"])
    (tmp_path / "pin").write_text("123456\n")
    (tmp_path / "puk").write_text("12345678\n")
    for path in tmp_path.iterdir():
        if path.is_file():
            path.chmod(0o600)
    return tmp_path


async def keys_on(card: Card) -> str:
    """Tells which keys have the certificates of which file."""
    await selected(card)
    found = []
    for reference, tag in CERTIFICATE_TAGS.items():
        command = CommandAPDU(0, 0xCB, 0x3F, 0xFF, tlv.encode(0x5C, tag.to_bytes(3)), 65536, True)
        response = await transmit(card, command)
        found += [
            f"{reference} {name}"
            for name, each in CREDENTIALS.items()
            if each.certificate_der() in response.data
        ]
    return ", ".join(found)


def opened(text: str, files: Path, state: State) -> Card:
    """Opens a card; @ stands for the directory of the files."""
    return open_card(parse_card(text.replace("@", f"{files}/")), state)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("piv,keys=@256-0", "9A 256-0"),
        ("piv,keys=@384-0,keys=@both", "9A 384-0, 9C 256-0, 9D 256-1"),
        ("piv,key9E=@384-0,key9c=@256-1", "9C 256-1, 9E 384-0"),
        ("piv,key9A=@384-0,keys=@both", "9A 384-0, 9C 256-0, 9D 256-1"),
        ("piv,keys=@both,key9C=@384-0", "9A 256-0, 9C 384-0, 9D 256-1"),
    ],
)
async def test_keys_are_where_they_are_wanted(
    text: str, keys: str, files: Path, state: State
) -> None:
    assert await keys_on(opened(f"{text},pin-file=@pin", files, state)) == keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keys=@256-0,key9E=@256-0", "the same key is there twice"),
        ("keys=@256-0,keys=@256-0", "the same key is there twice"),
        (",".join(["keys=@256-0"] * 25), "25 keys, but a card has 24"),
        (",".join(["key9E=@384-0", *["keys=@both"] * 12]), "25 keys, but a card has 24"),
        ("key9A=@both", "both holds 2 keys, and one is needed"),
        ("key9A=@256-0,key9a=@256-1", "key9a: this key is given twice"),
        ("key9B=@256-0", "key9B: 9B is no key of a piv card; it has"),
        ("keys=@none", "cannot read"),
        ("keys=@pin", "pin"),
    ],
)
def test_keys_that_cannot_be_used(text: str, message: str, files: Path, state: State) -> None:
    with pytest.raises(UserError) as refused:
        opened(f"piv,{text},pin-file=@pin", files, state)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert state.cards() == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pin", "12345", "a PIN has 6 to 8 digits and nothing else"),
        ("pin", "", "pin is empty"),
        ("puk", "1234567", "a PUK has 8"),
    ],
)
def test_pins_that_cannot_be_used(
    name: str, content: str, message: str, files: Path, state: State
) -> None:
    (files / name).write_text(content)
    with pytest.raises(UserError, match=message):
        opened("piv,keys=@256-0,pin-file=@pin,puk-file=@puk", files, state)
    assert state.cards() == []


async def test_what_a_card_of_files_remembers_is_found_by_its_keys(
    files: Path, state: State
) -> None:
    text = "piv,keys=@256-0,pin-file=@pin,puk-file=@puk"
    card = await selected(opened(text, files, state))
    assert await verify(card, "000000") == 0x63C2
    assert [each.name for each in state.cards()] == [None]
    assert state.pins(state.cards()[0].guid) == [0x80, 0x81]
    state.resources.close()
    with State(files / "state", cost=CHEAP) as again:
        card = await selected(opened(text, files, again))
        assert await verify(card, "000000") == 0x63C1
        other = await selected(opened("piv,keys=@256-1,pin-file=@pin", files, again))
        assert await verify(other, "000000") == 0x63C2
        assert await verify(card, "123456") == 0x9000


async def test_the_embedded_card_is_made_once(state: State) -> None:
    record, secrets = embedded.load_or_make(state)
    assert secrets is not None
    assert embedded.load_or_make(state) == (record, None)
    assert secrets.pin not in repr(secrets)
    card = await selected(open_stored_card(record, state))
    assert await verify(card, "000000") == 0x63C2
    assert await verify(card, secrets.pin) == 0x9000


async def test_a_stored_card_is_opened_by_name(state: State, files: Path) -> None:
    record, _secrets = embedded.load_or_make(state)
    card = await selected(opened("piv,card=default", files, state))
    assert await verify(card, "000000") == 0x63C2
    with pytest.raises(UserError, match="the card default is being served by this process already"):
        opened("piv,card=default", files, state)
    with pytest.raises(UserError, match="is being served by this process already"):
        opened(f"piv,card={record.guid}", files, state)


def test_a_card_that_is_not_there(state: State, files: Path) -> None:
    with pytest.raises(UserError, match="there is no card alice"):
        opened("piv,card=alice", files, state)


def test_the_same_keys_are_served_once(state: State, files: Path) -> None:
    opened("piv,keys=@256-0,pin-file=@pin", files, state)
    with pytest.raises(UserError, match="is being served by this process already"):
        opened("piv,key9A=@256-0,pin-file=@pin", files, state)
