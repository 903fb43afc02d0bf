# SPDX-License-Identifier: Apache-2.0
"""Cards whose keys are on tokens and in NSS databases: SoftHSM's, certutil's."""

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
from ccidd.keys.pkcs11 import open_token
from ccidd.keys.token import ChangeResult, LoginResult, Token
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
PIV, ACA = "A00000030800001000", "A0000000790300"


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
def opened_tokens(monkeypatch: pytest.MonkeyPatch) -> list[Token]:
    """The PKCS#11 tokens that a test opens for its cards."""
    opened: list[Token] = []

    def open_and_tell(uri: str, *, timeout: float, log_in: bool) -> Token:
        opened.append(open_token(uri, timeout=timeout, log_in=log_in))
        return opened[-1]

    monkeypatch.setattr("ccidd.service.keysources.open_token", open_and_tell)
    return opened


@pytest.fixture
def files(tmp_path: Path) -> Path:
    pem = private_key_pem(private_key(P_256, 1))
    pem += credential(P_256, 1).certificate.public_bytes(Encoding.PEM)
    contents = {"key": pem, "pin": b"111111\n", "password": PASSWORD.encode(), "wrong": b"wrong\n"}
    contents["token-password"] = b"123456\n"
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


async def change_pin(card: Card, current: str, new: str) -> int:
    data = current.encode().ljust(8, b"\xff") + new.encode().ljust(8, b"\xff")
    return (await transmit(card, CommandAPDU(0, 0x24, 0, 0x80, data))).sw


async def test_a_guest_changes_the_pin_of_the_token(
    state: State, softhsm: SoftHsm, token: str
) -> None:
    card = await selected(open_card(parse_card(f"piv,pkcs11={token}"), state))
    assert await change_pin(card, "000000", "s3cret") == 0x63C2
    assert await change_pin(card, "123456", "123") == 0x6A80  # SoftHSM wants four characters
    assert await change_pin(card, "123456", "") == 0x6A80
    assert await verify(card, "123456") == 0x9000
    assert await change_pin(card, "123456", "s3cret") == 0x9000
    assert await sign(card, 0x9A, P_256) == 0x9000
    assert await verify(card, "123456") == 0x63C2
    assert await sign(card, 0x9A, P_256) == 0x6982
    assert await verify(card, "s3cret") == 0x9000
    assert await sign(card, 0x9C, RSA) == 0x9000
    softhsm.set_pin("a token", b"s3cret", b"123456")  # which fails if it is another


async def test_the_puk_does_not_change_the_pin_of_a_token(
    state: State, token: str, files: Path
) -> None:
    (files / "puk").write_text("12345678")
    (files / "puk").chmod(0o600)
    text = f"piv,pkcs11={token},puk-file={files}/puk"
    card = await selected(open_card(parse_card(text), state))
    assert await verify(card, "123456") == 0x9000
    command = CommandAPDU(0, 0x2C, 0, 0x80, b"12345678222222\xff\xff")
    assert (await transmit(card, command)).sw == 0x6A81
    assert await verify(card, "222222") == 0x63C2
    assert await verify(card, "123456") == 0x9000


async def test_a_token_with_its_pin_in_a_file_is_always_open_for_keys_that_need_none(
    state: State, token: str, files: Path, opened_tokens: list[Token]
) -> None:
    (files / "wrong").write_bytes(b"123456")
    source = token.replace("?", ";object=first?") + f"&pin-source={files}/wrong"
    card = open_card(parse_card(f"piv,key9E={source}"), state)
    for pin in ("", "000000", "123456", "000000", "123456"):
        await selected(card)
        assert await sign(card, 0x9E, P_256) == 0x9000
        if pin:
            assert await verify(card, pin) == (0x9000 if pin == "123456" else 0x63C2)
            assert await sign(card, 0x9E, P_256) == 0x9000
        opened_tokens[0]._discard_idle()
        assert await sign(card, 0x9E, P_256) == 0x9000
        await card.power_off()
    await selected(card)
    assert await change_pin(card, "123456", "222222") == 0x9000
    await selected(card)
    assert await sign(card, 0x9E, P_256) == 0x9000


async def test_a_card_is_not_reset_whose_pin_is_a_token_s(state: State, token: str) -> None:
    text = f"piv,pkcs11={token},vendor-extensions=on"
    card = await selected(open_card(parse_card(text), state))
    for pin in ("000000", "000000", "000000"):
        await verify(card, pin)
    assert await verify(card, "123456") == 0x6983
    assert (await transmit(card, CommandAPDU(0, 0xFB, 0, 0))).sw == 0x6A81
    assert await verify(card, "123456") == 0x6983
    assert state.contents(state.cards()[0].guid) == {}


async def test_a_token_that_is_used_twice_has_one_pin(state: State, token: str) -> None:
    first, second = (token.replace("?", f";object={name}?") for name in ("first", "second"))
    card = await selected(open_card(parse_card(f"piv,key9A={first},key9D={second}"), state))
    assert await change_pin(card, "123456", "222222") == 0x9000
    assert await sign(card, 0x9A, P_256) == 0x9000
    assert await sign(card, 0x9D, RSA) == 0x9000
    assert await verify(card, "222222") == 0x9000
    assert await sign(card, 0x9D, RSA) == 0x9000


async def test_a_guest_changes_the_password_of_a_database(state: State, tmp_path: Path) -> None:
    database = nss_database(tmp_path / "nss", {"one": (RSA, 0), "two": (P_384, 0)}, PASSWORD)
    options = parse_card(f"piv,nss=sql:{database},cert1=two,cert2=one")
    card = await selected(open_card(options, state))
    assert await verify(card, PASSWORD) == 0x9000
    assert await sign(card, 0x9A, P_384) == 0x9000
    with State(tmp_path / "state", cost=CHEAP) as elsewhere:
        other = await selected(open_card(options, elsewhere))
        assert await verify(other, PASSWORD) == 0x9000
        assert await change_pin(card, PASSWORD, "n0 digit") == 0x9000
        assert await sign(card, 0x9A, P_384) == 0x9000
        assert await verify(other, PASSWORD) == 0x63C2
        assert await verify(other, "n0 digit") == 0x9000
        assert await sign(other, 0x9A, P_384) == 0x9000
    state.resources.close()
    with State(tmp_path / "state", cost=CHEAP) as again:
        card = await selected(open_card(options, again))
        assert await verify(card, PASSWORD) == 0x63C2
        assert await verify(card, "n0 digit") == 0x9000
        assert await sign(card, 0x9C, RSA) == 0x9000


@pytest.mark.parametrize("kind", ["piv", "cac", "piv+cac"])
async def test_what_a_pin_opened_ends_with_the_power(
    state: State, token: str, kind: str, opened_tokens: list[Token]
) -> None:
    card = open_card(parse_card(f"{kind},pkcs11={token.replace('?', ';object=second?')}"), state)
    (on_token,) = opened_tokens
    verifications = {"piv": [(PIV, 0x80)], "cac": [(ACA, 0)], "piv+cac": [(PIV, 0x80), (ACA, 0)]}
    for aid, reference in verifications[kind]:
        for end in (card.power_on, card.power_off):
            await card.power_on()
            await transmit(card, CommandAPDU(0, 0xA4, 4, 0, bytes.fromhex(aid), 256))
            command = CommandAPDU(0, 0x20, 0, reference, b"123456\xff\xff")
            assert (await transmit(card, command)).sw == 0x9000
            assert private_keys(on_token) == 2
            await end()
            assert not on_token.is_logged_in
            assert private_keys(on_token) == 0


def private_keys(token: Token) -> int:
    """Tells how many private keys the token's only session shows, which are those after a login."""
    session = token._take_alive()
    try:
        assert token._pool._sessions == {session}
        return len(session.cryptoki.objects("CKO_PRIVATE_KEY"))
    finally:
        token._pool.give_back(session)


@pytest.mark.parametrize("kind", ["piv", "cac", "own PIN"])
async def test_a_pin_that_somebody_else_has_changed_must_be_entered_again(
    state: State, softhsm: SoftHsm, files: Path, opened_tokens: list[Token], kind: str
) -> None:
    token = softhsm.add("a token", [StoredKey(P_256, b"\1", "key")])
    (files / "password").write_bytes(b"123456")
    pins = f",pin-file={files}/pin,password-file={files}/password" if kind == "own PIN" else ""
    on_piv = kind != "cac"
    card = open_card(parse_card(f"{'piv' if on_piv else kind},pkcs11={token}{pins}"), state)
    await card.power_on()
    aid = bytes.fromhex(PIV if on_piv else "A0000000790100")
    await transmit(card, CommandAPDU(0, 0xA4, 4, 0, aid, 256))

    async def verified(pin: str) -> int:
        data = pin.encode().ljust(8, b"\xff") if pin else b""
        return (await transmit(card, CommandAPDU(0, 0x20, 0, 0x80 * on_piv, data))).sw

    async def signed() -> int:
        if on_piv:
            return await sign(card, 0x9A, P_256)
        return (await transmit(card, CommandAPDU(0x80, 0x42, 0, 0, bytes(32), 256))).sw

    assert await verified("111111" if pins else "123456") == 0x9000
    assert await signed() == 0x9000
    softhsm.set_pin("a token", b"123456", b"222222")
    for session in opened_tokens[0]._pool._sessions:
        session.cryptoki.kill()  # it would know the PIN as it was when it began
    if pins:
        assert await signed() == 0x6F00
        assert await verified("") == 0x9000
    else:
        assert await signed() == (0x6982 if on_piv else 0x6985)
        assert await verified("") == 0x63C2
        assert await verified("222222") == 0x9000
        assert await signed() == 0x9000


async def test_the_cac_side_stays_open_while_piv_is_deselected(state: State, token: str) -> None:
    card = open_card(parse_card(f"piv+cac,pkcs11={token}"), state)
    await card.power_on()
    for command in (f"00A4040C07{ACA}", "0020000008313233343536FFFF"):
        assert await card.transmit(bytes.fromhex(command)) == b"\x90\0"
    await transmit(card, CommandAPDU(0, 0xA4, 4, 0, bytes.fromhex(PIV), 256))
    assert await verify(card, "123456") == 0x9000
    assert await card.transmit(bytes.fromhex("00A4040C07A0000000790100")) == b"\x90\0"
    assert (await transmit(card, CommandAPDU(0x80, 0x42, 0, 0, bytes(32), 256))).sw == 0x9000


# Several tokens of one card.


class ChangingToken:
    """Takes new PINs, or does not; test_pkcs11.py holds `Token` to what real tokens do."""

    def __init__(self, name: str, result: ChangeResult | None = ChangeResult.OK) -> None:
        self.name = name
        self.result = result
        self.pins: list[bytes] = []

    def is_same(self, other: "ChangingToken") -> bool:
        return self.name == other.name

    async def follow_change(self, new: bytes) -> None:
        self.pins.append(new)

    async def change_pin(self, new: bytes) -> ChangeResult:
        if self.result is None:
            raise KeyUnavailableError("it is gone")
        self.pins.append(new)
        return self.result


@pytest.mark.parametrize(
    ("result", "sw"),
    [(ChangeResult.UNFIT, "6A80"), (ChangeResult.IMPOSSIBLE, "6A81"), (None, "6F00")],
)
async def test_several_tokens_keep_one_pin(
    state: State, result: ChangeResult | None, sw: str
) -> None:
    state.note_card(GUID, "piv")
    tokens = [ChangingToken("one"), ChangingToken("one"), ChangingToken("two", result)]
    pin = TokenPin(state, GUID, 0x80, cast("Any", tokens))
    with pytest.raises(CardError, match=sw):
        await pin.replace(b"123456\xff\xff", b"222222\xff\xff")
    assert tokens[0].pins == tokens[1].pins == [b"222222", b"123456"]
    tokens[2].result = ChangeResult.OK
    await pin.replace(b"123456\xff\xff", b"222222\xff\xff")
    assert [token.pins[-1] for token in tokens] == [b"222222"] * 3


async def test_a_card_blocks_though_its_token_does_not(state: State, token: str) -> None:
    card = await selected(open_card(parse_card(f"piv,pkcs11={token}"), state))
    tries = [await verify(card, "000000") for _ in range(4)]
    assert tries == [0x63C2, 0x63C1, 0x63C0, 0x6983]
    assert await verify(card, "123456") == 0x6983
    (record,) = state.cards()
    state.restore_tries(record.guid, 0x80)
    assert await verify(card, "123456") == 0x9000


async def test_two_processes_can_serve_a_token(state: State, token: str, tmp_path: Path) -> None:
    options = parse_card(f"piv,pkcs11={token}")
    card = await selected(open_card(options, state))
    with State(tmp_path / "state", cost=CHEAP) as elsewhere:
        other = await selected(open_card(options, elsewhere))
        assert await verify(card, "123456") == 0x9000
        assert await sign(other, 0x9A, P_256) == 0x6982
        assert await verify(other, "000000") == 0x63C2
        assert await sign(card, 0x9A, P_256) == 0x9000
        assert await verify(card, "000000") == 0x63C1
        assert await verify(other, "123456") == 0x9000
        assert await sign(other, 0x9A, P_256) == 0x9000


@pytest.mark.parametrize("options", ["vendor-extensions=on", "key9D=@key,pin-file=@pin"])
def test_a_card_on_which_something_may_be_stored_is_not_shared(
    state: State, token: str, tmp_path: Path, files: Path, options: str
) -> None:
    text = f"piv,pkcs11={token},{options}".replace("@", f"{files}/")
    if "pin-file" in options:
        text += f",password-file={files}/token-password"
    open_card(parse_card(text), state)
    with State(tmp_path / "state", cost=CHEAP) as elsewhere, pytest.raises(UserError, match="by"):
        open_card(parse_card(text), elsewhere)


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
    has_keypad = False

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


async def test_tries_that_are_kept_from_guests_are_not_spent(state: State) -> None:
    state.note_card(GUID, "piv")
    token = FlaggedToken()
    pin = TokenPin(state, GUID, 0x80, cast("Any", [token]), keep=1)
    for _ in range(4):
        assert not await pin.compare(b"000000\xff\xff")
    assert await pin.tries_left() == 1
    assert len(token.pins) == 2


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
