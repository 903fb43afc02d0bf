# SPDX-License-Identifier: Apache-2.0
"""`ccidd card change-pin`, `unblock` and `reset-pin`."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import trio

from card_command import Command, matches, refused
from ccidd.service.state import State, StoredMemory


def tries(state: State, reference: int) -> int:
    record = state.pin(state.card("alice").guid, reference)
    assert record is not None
    return record.tries_left


def test_the_pin_is_changed(
    card: Command, alice: str, state: State, secret: Callable[[str], Path]
) -> None:
    old, new = secret("123456"), secret("654321")
    shown = card("change-pin", alice, f"--pin-file={old}", f"--new-pin-file={new}")
    assert "PIN   3 of 3 tries left" in shown
    assert matches(state, alice, 0x80, b"654321")


def test_the_puk_is_changed(
    card: Command, alice: str, state: State, secret: Callable[[str], Path]
) -> None:
    old, new = secret("12345678"), secret("87654321")
    files = (f"--pin-file={old}", f"--new-pin-file={new}")
    assert "PUK   3 of 3" in card("change-pin", alice, "--which=puk", *files)
    assert matches(state, alice, 0x81, b"87654321")
    assert matches(state, alice, 0x80, b"123456")


def test_a_wrong_pin_costs_a_try_and_a_wrong_new_one_does_not(
    card: Command, alice: str, state: State, secret: Callable[[str], Path]
) -> None:
    right, wrong, short = (f"--pin-file={secret(pin)}" for pin in ("123456", "111111", "12345"))
    new, no_pin = f"--new-pin-file={secret('654321')}", f"--new-pin-file={secret('6543')}"
    assert "a PIN has 6 to 8 digits" in refused(card, "change-pin", alice, right, no_pin)
    assert "a PIN has 6 to 8 digits" in refused(card, "change-pin", alice, short, new)
    assert tries(state, 0x80) == 3
    for left in (2, 1):
        message = refused(card, "change-pin", alice, wrong, new)
        assert message == f"this is not the PIN; {left} tries are left"
    for pin in (wrong, right):
        message = refused(card, "change-pin", alice, pin, new)
        assert message == "the PIN is blocked; `ccidd card unblock --which=pin` frees it"
    assert not matches(state, alice, 0x80, b"123456")


def test_the_operator_unblocks(card: Command, alice: str, state: State) -> None:
    guid = state.card(alice).guid
    for reference, which in ((0x80, "pin"), (0x81, "puk")):
        while state.spend_try(guid, reference):
            pass
        shown = json.loads(card("unblock", guid, f"--which={which}", "--json"))
        assert shown == {"guid": guid, "tries_left": 3, "max_tries": 3}
    assert matches(state, alice, 0x80, b"123456")
    assert matches(state, alice, 0x81, b"12345678")


def test_the_puk_unblocks(
    card: Command, alice: str, state: State, secret: Callable[[str], Path]
) -> None:
    guid = state.card(alice).guid
    while state.spend_try(guid, 0x80):
        pass
    new = f"--new-pin-file={secret('654321')}"
    right, wrong = (f"--puk-file={secret(puk)}" for puk in ("12345678", "11111111"))
    message = refused(card, "unblock", alice, "--with-puk", wrong, new)
    assert message == "this is not the PUK; 2 tries are left"
    assert tries(state, 0x80) == 0
    card("unblock", alice, "--with-puk", right, new)
    assert matches(state, alice, 0x80, b"654321")
    assert tries(state, 0x81) == 3
    message = refused(card, "unblock", alice, "--with-puk", "--which=puk", right, new)
    assert "the PUK does not unblock the PUK" in message


def test_a_pin_is_reset_and_shown(
    card: Command, alice: str, state: State, secret: Callable[[str], Path]
) -> None:
    while state.spend_try(state.card(alice).guid, 0x80):
        pass
    (pin,) = re.findall(r"^PIN +(\d{6})$", card("reset-pin", alice), re.MULTILINE)
    assert matches(state, alice, 0x80, pin.encode())
    puk = json.loads(card("reset-pin", alice, "--which=puk", "--json"))["puk"]
    assert matches(state, alice, 0x81, puk.encode())
    shown = card("reset-pin", alice, f"--new-pin-file={secret('777777')}")
    assert "777777" not in shown
    assert matches(state, alice, 0x80, b"777777")


def test_a_card_without_a_pin_is_given_one(card: Command, state: State) -> None:
    other = "11111111-2222-5333-8444-555555555555"
    state.note_card(other, "piv")
    assert "has no PIN; `ccidd card reset-pin` sets one" in refused(card, "unblock", other)
    pin = json.loads(card("reset-pin", other, "--json"))["pin"]
    assert matches(state, other, 0x80, pin.encode())


def test_a_pin_that_is_kept_elsewhere_is_unblocked_and_not_changed(
    card: Command, state: State, secret: Callable[[str], Path]
) -> None:
    other = "11111111-2222-5333-8444-555555555555"
    state.note_card(other, "piv")
    state.set_max_tries(other, 0x80, 3)
    while state.spend_try(other, 0x80):
        pass
    assert "3 of 3" in card("unblock", other)
    new = f"--new-pin-file={secret('654321')}"
    for command in (["reset-pin"], ["change-pin"], ["unblock", "--with-puk"]):
        assert "kept elsewhere; change it there" in refused(card, *command, other, new)


def test_pins_can_be_changed_while_the_card_is_served(
    card: Command, alice: str, state: State
) -> None:
    served = StoredMemory(state, state.card(alice)).pin(0x80)
    for _ in range(3):
        trio.run(served.compare, b"000000\xff\xff")
    card("unblock", alice)
    assert trio.run(served.compare, b"123456\xff\xff")
    pin = json.loads(card("reset-pin", alice, "--json"))["pin"]
    assert not trio.run(served.compare, b"123456\xff\xff")
    assert trio.run(served.compare, pin.encode() + b"\xff\xff")
