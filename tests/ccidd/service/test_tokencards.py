# SPDX-License-Identifier: Apache-2.0
"""Cards whose keys are on tokens and in NSS databases: SoftHSM's, certutil's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cards import transmit
from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU
from ccidd.card.application import CardError
from ccidd.card.card import Card
from ccidd.card.piv.references import ALGORITHM_IDENTIFIERS
from ccidd.errors import UserError
from ccidd.keys.generated import private_key_pem
from ccidd.keys.key import KeyAlgorithm, KeyUnavailableError
from ccidd.keys.token import LoginResult
from ccidd.service.cards import open_card
from ccidd.service.options import parse_card
from ccidd.service.state import State
from ccidd.service.tokenpin import TokenPin
from crash import CHEAP
from credentials import credential, private_key
from piv import selected, verify
from tokens import SoftHsm, StoredKey, nss_database

RSA, P_256, P_384 = KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256, KeyAlgorithm.P_384
GUID = "00000000-0000-4000-8000-000000000001"
PASSWORD = "654321"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(tmp_path / "state", cost=CHEAP) as state:
        yield state


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    return SoftHsm(tmp_path / "softhsm", monkeypatch)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keys = {"one": (RSA, 0), "two": (P_384, 0)}
    return nss_database(tmp_path_factory.mktemp("nss") / "database", keys, PASSWORD)


@pytest.fixture
def token(softhsm: SoftHsm) -> str:
    uri = softhsm.add(
        "a token", [StoredKey(P_256, b"\1", "first"), StoredKey(RSA, b"\2", "second")]
    )
    return uri.replace(",", ",,")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    pem = private_key_pem(private_key(P_256, 1))
    pem += credential(P_256, 1).certificate.public_bytes(Encoding.PEM)
    contents = {"key": pem, "pin": b"111111\n", "password": PASSWORD.encode(), "wrong": b"wrong\n"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    return tmp_path


async def sign(card: Card, reference: int, algorithm: KeyAlgorithm) -> int:
    size = {RSA: 256, P_256: 32, P_384: 48}[algorithm]
    template = tlv.encode(0x7C, tlv.encode(0x82), tlv.encode(0x81, bytes(size - 1) + b"\2"))
    identifier = ALGORITHM_IDENTIFIERS[algorithm]
    command = CommandAPDU(0, 0x87, identifier, reference, template, 65536, extended=True)
    return (await transmit(card, command)).sw


async def test_the_pin_of_a_card_is_that_of_its_token(state: State, token: str) -> None:
    card = await selected(open_card(parse_card(f"piv,pkcs11={token}"), state))
    assert await verify(card, "000000") == 0x63C2
    assert await sign(card, 0x9A, P_256) == 0x6982
    assert await verify(card, "123456") == 0x9000
    assert await sign(card, 0x9A, P_256) == 0x9000
    assert await verify(card, "123456") == 0x9000
    assert await sign(card, 0x9C, RSA) == 0x9000
    change = b"123456\xff\xff654321\xff\xff"
    assert (await transmit(card, CommandAPDU(0, 0x24, 0, 0x80, change))).sw == 0x6A81


async def test_a_card_blocks_though_its_token_does_not(state: State, token: str) -> None:
    card = await selected(open_card(parse_card(f"piv,pkcs11={token}"), state))
    tries = [await verify(card, "000000") for _ in range(4)]
    assert tries == [0x63C2, 0x63C1, 0x63C0, 0x6983]
    assert await verify(card, "123456") == 0x6983
    (record,) = state.cards()
    state.restore_tries(record.guid, 0x80)
    assert await verify(card, "123456") == 0x9000


async def test_a_token_that_is_gone_costs_no_try(
    state: State, softhsm: SoftHsm, token: str
) -> None:
    card = await selected(open_card(parse_card(f"piv,pkcs11={token}"), state))
    assert await verify(card, "000000") == 0x63C2
    softhsm.remove()
    for _ in range(3):
        assert await verify(card, "123456") == 0x6F00
    softhsm.bring_back()
    assert await verify(card, "123456") == 0x9000


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (",cert1=two,cert2=one", {0x9A: P_384, 0x9C: RSA}),
        (",cert2=one,cert10=two", {0x9A: RSA, 0x9C: P_384}),
        (",key9D=nss:two", {0x9D: P_384}),
        (",key9D=nss:two,cert1=one", {0x9A: RSA, 0x9D: P_384}),
    ],
)
async def test_keys_of_a_database(
    state: State, database: Path, options: str, keys: dict[int, KeyAlgorithm]
) -> None:
    card = await selected(open_card(parse_card(f"piv,nss=sql:{database}{options}"), state))
    for reference, algorithm in keys.items():
        assert await verify(card, PASSWORD) == 0x9000
        assert await sign(card, reference, algorithm) == 0x9000
    others = {0x9A, 0x9C, 0x9D, 0x9E} - set(keys)
    assert {await sign(card, reference, RSA) for reference in others} <= {0x6A86, 0x6A80, 0x6A88}


async def test_all_keys_of_a_database(state: State, database: Path) -> None:
    card = await selected(open_card(parse_card(f"piv,nss=sql:{database}"), state))
    found = set()
    for reference in (0x9A, 0x9C, 0x9D):
        for algorithm in (RSA, P_384):
            assert await verify(card, PASSWORD) == 0x9000
            if await sign(card, reference, algorithm) == 0x9000:
                found.add((reference, algorithm))
    assert found in ({(0x9A, RSA), (0x9C, P_384)}, {(0x9A, P_384), (0x9C, RSA)})


async def test_any_mixture_with_a_pin_of_its_own(
    state: State, database: Path, token: str, files: Path, softhsm: SoftHsm
) -> None:
    softhsm.set_pin("a token", b"123456", PASSWORD.encode())
    second = token.replace("?", ";object=second?")
    text = (
        f"piv,keys={files}/key,key9C={second},"
        f"nss=sql:{database},key9D=nss:two,pin-file={files}/pin,password-file={files}/password"
    )
    card = await selected(open_card(parse_card(text), state))
    for reference, algorithm in ((0x9A, P_256), (0x9C, RSA), (0x9D, P_384)):
        assert await verify(card, PASSWORD) in {0x63C2, 0x63C1}
        assert await verify(card, "111111") == 0x9000
        assert await sign(card, reference, algorithm) == 0x9000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("pin-file=@pin", "needs a PIN: leave out pin-file"),
        ("pin-file=@pin,password-file=@wrong", "is wrong"),
        ("cert1=three", "three"),
        ("cert1=one,key9C=nss:one", "the same key is there twice"),
    ],
)
def test_databases_that_cannot_be_used(
    state: State, database: Path, files: Path, options: str, message: str
) -> None:
    text = f"piv,nss=sql:{database},{options}".replace("@", f"{files}/")
    with pytest.raises(UserError, match=message):
        open_card(parse_card(text), state)
    assert state.cards() == []


def test_a_nickname_needs_a_database(state: State) -> None:
    with pytest.raises(UserError, match="a nickname needs a database: nss=sql:DIR"):
        open_card(parse_card("piv,key9A=nss:one,pin-file=/dev/null"), state)


def test_a_token_without_a_pin_gives_the_card_none(
    state: State, tmp_path: Path, files: Path
) -> None:
    directory = nss_database(tmp_path / "open", {"one": (P_256, 0)}, "")
    with pytest.raises(UserError, match=r"has no PIN; give it one .*, or the card \(pin-file=\)"):
        open_card(parse_card(f"piv,nss=sql:{directory}"), state)
    open_card(parse_card(f"piv,nss=sql:{directory},pin-file={files}/pin"), state)


# What tokens with counters of their own say.


class FlaggedToken:
    """Says what it is told to; test_pkcs11.py holds `Token` to what real tokens say."""

    name = "a token"

    def __init__(self) -> None:
        self.status = LoginResult.OK
        self.pins: list[bytes] = []

    async def login(self, pin: bytes) -> LoginResult:
        self.pins.append(pin)
        if pin == b"123456":
            return LoginResult.OK
        return LoginResult.WRONG if self.status is LoginResult.OK else self.status

    async def pin_status(self) -> LoginResult:
        return self.status


class GoneToken(FlaggedToken):
    async def login(self, pin: bytes) -> LoginResult:
        raise KeyUnavailableError("it is gone")

    async def pin_status(self) -> LoginResult:
        raise KeyUnavailableError("it is gone")


def token_pin(state: State, *tokens: FlaggedToken) -> TokenPin:
    state.note_card(GUID, "piv")
    return TokenPin(state, GUID, 0x80, cast("Any", tokens))


@pytest.mark.parametrize(
    ("status", "left"),
    [
        (LoginResult.OK, 3),
        (LoginResult.FEW_LEFT, 2),
        (LoginResult.LAST_TRY, 1),
        (LoginResult.LOCKED, 0),
    ],
)
async def test_the_flags_of_a_token_are_tries(state: State, status: LoginResult, left: int) -> None:
    token = FlaggedToken()
    token.status = status
    pin = token_pin(state, token)
    assert await pin.tries_left() == left
    await pin.compare(b"000000\xff\xff")
    assert await pin.tries_left() == min(left, 2)
    await pin.compare(b"000000\xff\xff")
    assert await pin.tries_left() == min(left, 1)
    assert token.pins == [b"000000", b"000000"]


async def test_what_was_counted_outlives_the_card(state: State) -> None:
    await token_pin(state, FlaggedToken()).compare(b"000000\xff\xff")
    pin = token_pin(state, FlaggedToken())
    assert (await pin.tries_left(), await pin.max_tries()) == (2, 3)
    await pin.set_max_tries(5)
    assert (await pin.tries_left(), await pin.max_tries()) == (5, 5)


async def test_a_blocked_pin_is_not_shown_to_the_token(state: State) -> None:
    token = FlaggedToken()
    pin = token_pin(state, token)
    for _ in range(5):
        assert not await pin.compare(b"000000\xff\xff")
    assert len(token.pins) == 3


async def test_a_wrong_pin_is_shown_to_one_token(state: State) -> None:
    first, second = FlaggedToken(), FlaggedToken()
    pin = token_pin(state, first, second)
    assert not await pin.compare(b"000000\xff\xff")
    assert second.pins == []
    assert await pin.compare(b"123456\xff\xff")
    assert second.pins == [b"123456"]


async def test_a_token_that_is_gone_has_its_tries(state: State) -> None:
    pin = token_pin(state, GoneToken())
    for _ in range(4):
        with pytest.raises(CardError, match="6F00"):
            await pin.compare(b"123456\xff\xff")
    assert await pin.tries_left() == 3
