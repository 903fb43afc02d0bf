# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from cards import transmit
from ccid_protocol.apdu import CommandAPDU
from ccidd.card.card import Card
from ccidd.card.guard.guard import Guard, Rules
from ccidd.card.guard.guest import Guest
from ccidd.card.guard.operations import CONFIRMABLE, MANAGE, NOTHING, USE, Operation
from ccidd.errors import UserError
from ccidd.keys.key import KeyAlgorithm
from ccidd.service.cards import open_supply
from ccidd.service.guards import guard_rules, protector
from ccidd.service.options import parse_card
from ccidd.service.readers import Pinentries, pin_source
from ccidd.service.state import State
from ccidd.service.supply import UNPROTECTED, FixedCard
from crash import CHEAP
from piv import selected, verify
from recording_card import RecordingCard
from tokens import SoftHsm, StoredKey

READ = frozenset({Operation.READ})
OPEN = Rules(MANAGE, 0, NOTHING)
SHARED = Rules(USE, 1, NOTHING)

RULES = [
    # ccidd's own cards, unless somebody wants it otherwise.
    ("piv,card=alice", OPEN),
    ("piv,keys=a,pin-file=b", OPEN),
    ("piv+cac,card=alice,policy=use", Rules(USE, 0, NOTHING)),
    ("cac,card=alice,retry-floor=2", Rules(MANAGE, 2, NOTHING)),
    ("piv,card=alice,confirm=sign", Rules(MANAGE, 0, frozenset({Operation.SIGN}))),
    # What others use as well.
    ("piv,pkcs11=pkcs11:token=a?module-path=/m", SHARED),
    ("piv,nss=sql:/db", SHARED),
    ("piv,key9A=pkcs11:token=a?module-path=/m", SHARED),
    ("cac,pkcs11=pkcs11:token=a?module-name=m,pin-file=b", SHARED),
    ("piv,nss=sql:/db,policy=manage,retry-floor=0", OPEN),
    (
        "piv,nss=sql:/db,confirm=sign,decrypt,policy=read",
        Rules(READ, 1, CONFIRMABLE),
    ),
    ("piv,nss=sql:/db,confirm=decrypt+sign", Rules(USE, 1, CONFIRMABLE)),
    ("piv,nss=sql:/db,policy=use+change-pin", Rules(USE | {Operation.CHANGE_PIN}, 1, NOTHING)),
]


@pytest.mark.parametrize(("text", "rules"), RULES)
def test_the_rules_are_those_of_the_options(text: str, rules: Rules) -> None:
    assert guard_rules(parse_card(text)) == rules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("piv,card=a,policy=none", "policy: 'none' is none of use, manage, change-pin"),
        ("piv,card=a,retry-floor=15", "retry-floor: 15 is not within 0 to 14"),
        ("piv,card=a,retry-floor=-1", "retry-floor: -1 is not within"),
        ("piv,card=a,retry-floor=one", "retry-floor: one is not within"),
        ("piv,card=a,confirm=read", "confirm: read has something else than sign and decrypt"),
        ("piv,card=a,confirm-with=true", "confirm-with: this needs confirm=sign,decrypt"),
    ],
)
def test_wrong_rules_are_named(text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        guard_rules(parse_card(text))
    assert str(refused.value).startswith(f"--card=piv: {message}")
    assert "\n" not in str(refused.value)


def test_a_lone_word_is_no_confirmation() -> None:
    with pytest.raises(UserError, match="there is no option 'decrypt'"):
        parse_card("piv,card=a,decrypt")


def test_without_rules_there_is_no_guard() -> None:
    options = parse_card("piv,card=a")
    assert protector(options, Guest(), Pinentries()) is UNPROTECTED


def test_a_program_that_is_missing_is_named() -> None:
    options = parse_card("piv,card=a,confirm=sign,confirm-with=no-such-pinentry")
    with pytest.raises(UserError, match="there is no program no-such-pinentry"):
        protector(options, Guest(), Pinentries())


def test_a_pinentry_that_has_two_uses_is_one() -> None:
    pinentries = Pinentries()
    protection = protector(
        parse_card("piv,card=a,confirm=sign,confirm-with=pinentry-tty"), Guest(), pinentries
    )
    guarded = protection.protect(RecordingCard())
    assert isinstance(guarded, Guard)
    pins = pin_source({"pin-entry": "pinentry-tty"}, pinentries)
    assert vars(guarded._consent)["_pinentry"] is pins


async def test_the_cards_of_one_option_share_what_is_known_of_them() -> None:
    protection = protector(parse_card("piv,nss=sql:/db"), Guest(), Pinentries())
    cards = [protection.protect(RecordingCard()) for _ in range(2)]
    for card in cards:
        await card.power_on()
    first, second = (vars(vars(card)["_floor"])["_counts"] for card in cards)
    assert first is second


# A token.


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(tmp_path / "state", cost=CHEAP) as state:
        yield state


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    softhsm = SoftHsm(tmp_path / "softhsm", monkeypatch)
    uri = softhsm.add("a token", [StoredKey(KeyAlgorithm.P_256, b"\1", "first")])
    return uri.replace(",", ",,")


def guarded(state: State, text: str) -> Card:
    options = parse_card(text)
    supply = open_supply(options, state, protector(options, Guest("guest vm"), Pinentries()))
    assert isinstance(supply, FixedCard)
    assert isinstance(supply._card, Guard)
    return supply._card


async def test_a_guest_cannot_block_the_pin_of_a_token(state: State, token: str) -> None:
    card = await selected(guarded(state, f"piv,pkcs11={token}"))
    status = CommandAPDU(0, 0x20, 0, 0x80)
    tries = (await transmit(card, status)).sw & 0x0F
    assert tries > 0
    with capture_logs() as logs:
        for left in reversed(range(tries)):
            assert await verify(card, "999999") == 0x63C0 | left
        assert await verify(card, "999999") == 0x6983
    assert (await transmit(card, status)).sw == 0x6983
    refusals = [event for event in logs if event["event"] == "guard_refused"]
    assert refusals == [
        {
            "event": "guard_refused",
            "log_level": "warning",
            "guest": "guest vm",
            "instruction": "VERIFY",
            "key": "80",
            "reason": "retry-floor",
        }
    ]
    # One try is left, and whoever is not guarded from can use it.
    assert isinstance(card, Guard)
    await selected(card.card)
    assert (await transmit(card.card, status)).sw == 0x63C1


async def test_two_guests_that_try_at_once_leave_a_try_as_well(state: State, token: str) -> None:
    cards = [await selected(guarded(state, f"piv,pkcs11={token}")) for _ in range(2)]
    assert await verify(cards[0], "999999") == 0x63C1
    # Both are told that two tries are left, of which one is theirs.
    async with trio.open_nursery() as nursery:
        for card in cards:
            nursery.start_soon(verify, card, "999999")
    (record,) = state.cards()
    kept = state.pin(record.guid, 0x80)
    assert kept is not None
    assert kept.tries_left == 1


async def test_a_token_can_be_used_as_before(state: State, token: str) -> None:
    card = await selected(guarded(state, f"piv,pkcs11={token}"))
    assert await verify(card, "123456") == 0x9000
    template = bytes.fromhex("7C2482008120") + bytes(32)
    assert (await transmit(card, CommandAPDU(0, 0x87, 0x11, 0x9A, template, 256))).sw == 0x9000
    challenge = CommandAPDU(0, 0x87, 0x08, 0x9B, bytes.fromhex("7C028100"), 256)
    assert (await transmit(card, challenge)).sw == 0x9000
    changed = CommandAPDU(0, 0x24, 0, 0x80, b"123456\xff\xff654321\xff\xff")
    assert (await transmit(card, changed)).sw == 0x6985
