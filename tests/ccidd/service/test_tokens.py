# SPDX-License-Identifier: Apache-2.0
"""Slots that follow tokens: SoftHSM's, made, taken out, swapped and put back under way."""

import os
import shutil
import signal
import subprocess
import textwrap
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing
from cryptography.hazmat.primitives.serialization import Encoding

from cards import transmit
from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU
from ccid_protocol.atr import ATR
from ccidd.card.card import Card, CardGoneError
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.contents import certificate_in
from ccidd.card.piv.references import ALGORITHM_IDENTIFIERS, KeyReference
from ccidd.errors import UserError
from ccidd.keys.key import KeyAlgorithm
from ccidd.reader.slot import Slot
from ccidd.service import tokens
from ccidd.service.cards import open_supply
from ccidd.service.options import parse_card
from ccidd.service.state import State
from ccidd.service.supply import fill
from crash import CHEAP
from credentials import credential
from pcsc_tokens import OPENSC, reader, use_pcscd_in
from piv import new_memory, selected, verify
from tokens import PIN, SOFTHSM, SoftHsm, StoredKey, uri

RSA, P_256, P_384 = KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256, KeyAlgorithm.P_384
ONE_KEY = [StoredKey(P_256, b"\1", "key")]

SOON = 30
"""Seconds to wait for a token to become a card: it takes one, on a machine at rest."""


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    return SoftHsm(tmp_path / "softhsm", monkeypatch)


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts code before SoftHSM, in the processes that use it."""

    def install(code: str) -> None:
        (tmp_path / "shim").mkdir()
        text = f"import time, PyKCS11\n{textwrap.dedent(code)}"
        (tmp_path / "shim/sitecustomize.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shim"), prepend=os.pathsep)

    return install


def workers() -> list[int]:
    """The processes of PKCS#11 modules that this one has started, the latest last."""
    command = ["pgrep", f"--parent={os.getpid()}", "--full", "cryptoki_worker"]
    found = subprocess.run(command, check=False, capture_output=True)
    return sorted(int(line) for line in found.stdout.split())


@asynccontextmanager
async def served(text: str, state: State) -> AsyncIterator[Sequence[Slot]]:
    """Has the slots of a `--card` filled."""
    supply = open_supply(parse_card(text), state)
    slots, fillings = fill([supply], supply.slot_count)
    async with trio.open_nursery() as nursery:
        for filling in fillings:
            nursery.start_soon(filling.run)
        yield slots
        nursery.cancel_scope.cancel()


async def wait_until(slots: Sequence[Slot], condition: Callable[[], bool], within: float) -> None:
    with trio.fail_after(within):
        while not condition():
            async with trio.open_nursery() as nursery:
                for slot in slots:
                    nursery.start_soon(_wait_for_change, slot, nursery.cancel_scope)


async def _wait_for_change(slot: Slot, scope: trio.CancelScope) -> None:
    await slot.wait_until_not(slot.insertion)
    scope.cancel()


async def inserted(slot: Slot, within: float = SOON) -> Card:
    await wait_until([slot], lambda: slot.insertion is not None, within)
    assert slot.insertion is not None
    return slot.insertion.card


async def emptied(slot: Slot, within: float = SOON) -> None:
    await wait_until([slot], lambda: slot.insertion is None, within)


def filled(slots: Sequence[Slot]) -> list[int]:
    return [index for index, slot in enumerate(slots) if slot.insertion is not None]


async def sign(card: Card, reference: int = 0x9A, algorithm: KeyAlgorithm = P_256) -> int:
    size = {RSA: 256, P_256: 32, P_384: 48}[algorithm]
    template = tlv.encode(0x7C, tlv.encode(0x82), tlv.encode(0x81, bytes(size - 1) + b"\2"))
    identifier = ALGORITHM_IDENTIFIERS[algorithm]
    command = CommandAPDU(0, 0x87, identifier, reference, template, 65536, extended=True)
    return (await transmit(card, command)).sw


async def guid(card: Card) -> bytes:
    """The GUID in the CHUID."""
    command = CommandAPDU(0, 0xCB, 0x3F, 0xFF, bytes.fromhex("5C035FC102"), 65536, extended=True)
    response = await transmit(card, command)
    assert response.sw == 0x9000
    return tlv.decode_to_dict(tlv.decode_to_dict(response.data)[0x53])[0x34]


def token_option(softhsm: SoftHsm, label: str, keys: Sequence[StoredKey]) -> str:
    return softhsm.add(label, keys).replace(",", ",,")


ANY = f"piv,token=any,module={SOFTHSM}"


async def test_a_token_is_a_card_while_it_is_there(state: State, softhsm: SoftHsm) -> None:
    uri = token_option(softhsm, "a token", ONE_KEY)
    softhsm.remove()
    async with served(f"piv,token={uri}", state) as (slot,):
        await trio.sleep(1)
        assert slot.insertion is None
        softhsm.bring_back()
        card = await selected(await inserted(slot))
        assert await verify(card, "000000") == 0x63C2
        assert await verify(card, "123456") == 0x9000
        assert await sign(card) == 0x9000
        softhsm.remove()
        await emptied(slot)
        with pytest.raises(CardGoneError):
            await card.transmit(bytes(4))
        softhsm.bring_back()
        again = await selected(await inserted(slot))
        assert again is not card
        assert await sign(again) == 0x6982
        assert await verify(again, "123456") == 0x9000
        assert await sign(again) == 0x9000


async def test_the_state_lets_the_card_of_a_token_be_used_again(
    state: State, softhsm: SoftHsm
) -> None:
    uri = token_option(softhsm, "a token", ONE_KEY)
    for _ in range(2):
        async with served(f"piv,token={uri}", state) as (slot,):
            await inserted(slot)
    assert len(state.cards()) == 1
    assert state.served_by(state.cards()[0].guid) is None


async def test_another_token_in_the_same_place_is_another_card(
    state: State, softhsm: SoftHsm
) -> None:
    uri = token_option(softhsm, "a token", ONE_KEY)
    for kind in ("piv", "cac", "piv+cac"):
        atrs, guids = [], []
        async with served(f"{kind},token={uri}", state) as (slot,):
            for key in ONE_KEY, ONE_KEY, [StoredKey(P_256, b"\1", "key", 1)]:
                card = await inserted(slot)
                atrs.append((await card.power_on()).encode())
                if kind != "cac":
                    guids.append(await guid(await selected(card)))
                softhsm.remove()
                await emptied(slot)
                shutil.rmtree(softhsm.directory / "removed")
                softhsm.add("a token", key)
        assert len(set(atrs)) == 3
        assert len(set(guids)) in {0, 3}


async def test_a_token_that_is_swapped_at_once_is_another_card(
    state: State, softhsm: SoftHsm
) -> None:
    softhsm.add("second", [StoredKey(P_256, b"\1", "key", 1)])
    second = softhsm.tokens.rename(softhsm.directory / "second")
    softhsm.tokens.mkdir()
    softhsm.add("first", ONE_KEY)
    async with served(ANY, state) as slots:
        first = await inserted(slots[0])
        softhsm.remove()
        softhsm.tokens.rmdir()
        second.rename(softhsm.tokens)
        await wait_until(slots, lambda: any(is_other(slot, first) for slot in slots), SOON)
        await wait_until(slots, lambda: len(filled(slots)) == 1, SOON)


def is_other(slot: Slot, card: Card) -> bool:
    return slot.insertion is not None and slot.insertion.card is not card


async def test_a_command_is_answered_before_its_token_s_card_goes(
    state: State, softhsm: SoftHsm
) -> None:
    uri = token_option(softhsm, "a token", ONE_KEY)
    async with served(f"piv,token={uri}", state) as (slot,):
        card = await selected(await inserted(slot))
        assert await verify(card, "123456") == 0x9000
        answers = []
        os.kill(workers()[-1], signal.SIGSTOP)

        async def use() -> None:
            answers.append(await sign(card))
            assert slot.insertion is not None

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await trio.testing.wait_all_tasks_blocked()
            softhsm.remove()
            await emptied(slot)
        assert answers == [0x6F00]


# Where keys go.


async def test_keys_have_the_places_that_they_are_given(state: State, softhsm: SoftHsm) -> None:
    keys = [StoredKey(P_256, b"\1", "a"), StoredKey(RSA, b"\2", "b"), StoredKey(P_384, b"\3", "c")]
    uri = token_option(softhsm, "a token", keys)
    text = f"piv,token={uri},key9D=pkcs11:id=%01,key9a=pkcs11:object=c,key9C=pkcs11:id=%07"
    async with served(text, state) as (slot,):
        card = await selected(await inserted(slot))
        assert await certificates(card) == {0x9A: P_384, 0x9C: RSA, 0x9D: P_256}


CERTIFICATES = {0x9A: "5FC105", 0x9C: "5FC10A", 0x9D: "5FC10B", 0x9E: "5FC101"}


async def certificates(card: Card) -> dict[int, KeyAlgorithm]:
    """The algorithms of the keys on a card."""
    found = {}
    known = {credential(a).certificate_der(): a for a in (RSA, P_256, P_384)}
    for reference, tag in CERTIFICATES.items():
        data = bytes.fromhex("5C03" + tag)
        response = await transmit(
            card, CommandAPDU(0, 0xCB, 0x3F, 0xFF, data, 65536, extended=True)
        )
        if response.sw == 0x9000:
            content = tlv.decode_to_dict(response.data)[0x53]
            found[reference] = known[certificate_in(content).public_bytes(Encoding.DER)]
    return found


async def test_keys_that_are_put_on_a_token_later_make_it_a_card(
    state: State, softhsm: SoftHsm
) -> None:
    softhsm.add("a token", [])
    with structlog.testing.capture_logs() as logs:
        async with served(ANY, state) as slots:
            await wait_until_logged(logs, "token_not_used")
            softhsm.put("a token", ONE_KEY)
            card = await selected(await inserted(slots[0]))
            assert await verify(card, "123456") == 0x9000
    assert sum(entry["event"] == "token_not_used" for entry in logs) == 1


async def test_a_token_that_gets_another_key_becomes_another_card(
    state: State, softhsm: SoftHsm
) -> None:
    uri = token_option(softhsm, "a token", ONE_KEY)
    async with served(f"piv,token={uri}", state) as (slot,):
        first = await selected(await inserted(slot))
        assert await verify(first, "123456") == 0x9000
        softhsm.put("a token", [StoredKey(RSA, b"\2", "second")])
        # It is left alone while it is in use.
        await trio.sleep(2 * tokens._LOOK_INTERVAL)
        assert await sign(first) == 0x9000
        await first.power_off()
        await wait_until([slot], lambda: is_other(slot, first), 2 * tokens._LOOK_INTERVAL)
        second = await selected(await inserted(slot))
        assert await certificates(second) == {0x9A: P_256, 0x9C: RSA}


async def wait_until_logged(logs: Sequence[Mapping[str, object]], event: str) -> None:
    with trio.fail_after(SOON):
        while not any(entry["event"] == event for entry in logs):  # noqa: ASYNC110 (no event)
            await trio.sleep(0.02)


async def test_a_cac_leaves_out_what_it_cannot_have(state: State, softhsm: SoftHsm) -> None:
    keys = [StoredKey(KeyAlgorithm.ED25519, b"\1", "a"), StoredKey(P_256, b"\2", "b")]
    uri = token_option(softhsm, "a token", keys)
    with structlog.testing.capture_logs() as logs:
        async with served(f"cac,token={uri}", state) as (slot,):
            await inserted(slot)
            # The name by which the tries are given back.
            (entry,) = (e for e in logs if e["event"] == "token_inserted")
            assert state.card(str(entry["card"])).type == "cac"
    assert [e["subject"] for e in logs if e["event"] == "key_left_out"] == ["CN=test Ed25519 0"]


# Every token.


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_every_token_is_in_a_slot(state: State, softhsm: SoftHsm, count: int) -> None:
    for number in range(count):
        softhsm.add(f"token {number}", [StoredKey(P_256, b"\1", "key", number)])
    softhsm.add("empty", [])
    async with served(ANY, state) as slots:
        assert len(slots) == 4
        if not count:
            await trio.sleep(2)
        await wait_until(slots, lambda: len(filled(slots)) == count, 10)
        guids = {await guid(await selected(await inserted(slots[i]))) for i in filled(slots)}
        assert len(guids) == count
        softhsm.add("another", [StoredKey(P_256, b"\1", "key", 7)])
        await wait_until(slots, lambda: len(filled(slots)) == count + 1, SOON)
        softhsm.remove()
        await wait_until(slots, lambda: not filled(slots), SOON)
        softhsm.bring_back()
        await wait_until(slots, lambda: len(filled(slots)) == count + 1, 2 * SOON)


async def test_a_token_waits_until_a_slot_is_free(state: State, softhsm: SoftHsm) -> None:
    softhsm.add("one", ONE_KEY)
    (one,) = softhsm.tokens.iterdir()
    async with served(f"{ANY},slots=1", state) as slots:
        first = await inserted(slots[0])
        with structlog.testing.capture_logs() as logs:
            softhsm.add("two", [StoredKey(P_256, b"\1", "key", 1)])
            await wait_until_logged(logs, "token_waits_for_a_slot")
        shutil.rmtree(one)
        await wait_until(slots, lambda: is_other(slots[0], first), SOON)


async def test_a_token_comes_back_into_its_slot(state: State, softhsm: SoftHsm) -> None:
    softhsm.add("one", ONE_KEY)
    (one,) = softhsm.tokens.iterdir()
    async with served(ANY, state) as slots:
        await inserted(slots[0])
        softhsm.add("two", [StoredKey(P_256, b"\1", "key", 1)])
        await inserted(slots[1])
        away = one.rename(softhsm.directory / "one")
        await emptied(slots[0])
        assert filled(slots) == [1]
        away.rename(one)
        await inserted(slots[0])


# PINs.


async def test_tries_are_counted_for_the_token_however_often_it_comes(
    state: State, softhsm: SoftHsm
) -> None:
    uri = token_option(softhsm, "a token", ONE_KEY)
    async with served(f"piv,token={uri}", state) as (slot,):
        for left in (0x63C2, 0x63C1, 0x63C0):
            card = await selected(await inserted(slot))
            assert await verify(card, "000000") == left
            softhsm.remove()
            await emptied(slot)
            softhsm.bring_back()
        card = await selected(await inserted(slot))
        assert await verify(card, "123456") == 0x6983


async def test_two_processes_use_one_token_at_once(
    tmp_path: Path, state: State, softhsm: SoftHsm
) -> None:
    uri = token_option(softhsm, "a token", ONE_KEY)
    text = f"piv,token={uri}"
    with State(tmp_path / "state", cost=CHEAP) as other:
        async with served(text, state) as (one,), served(text, other) as (two,):
            cards = [await selected(await inserted(slot)) for slot in (one, two)]
            for card in cards:
                assert await verify(card, "123456") == 0x9000
            for card in (*cards, *cards):
                assert await sign(card) == 0x9000
            # Tries are common, logins are not.
            assert await verify(cards[0], "000000") == 0x63C2
            assert await sign(cards[0]) == 0x6982
            assert await sign(cards[1]) == 0x9000
            assert await verify(cards[1], "000000") == 0x63C1


async def test_a_token_that_hides_its_certificates_shows_them_to_the_pin_of_a_file(
    state: State, softhsm: SoftHsm, tmp_path: Path
) -> None:
    hidden = StoredKey(P_256, b"\1", "key", with_public_key=False, is_hidden=True)
    softhsm.add("a token", [hidden])
    pin_file = tmp_path / "pin"
    pin_file.write_bytes(PIN)
    named = uri(token="a token", pin_file=pin_file).replace(",", ",,")
    async with served(f"piv,token={named}", state) as (slot,):
        card = await selected(await inserted(slot))
        assert await sign(card) == 0x6982
        assert await verify(card, "123456") == 0x9000
        assert await sign(card) == 0x9000


async def test_a_wrong_pin_of_a_file_is_tried_once(
    state: State, softhsm: SoftHsm, tmp_path: Path
) -> None:
    softhsm.add("a token", ONE_KEY)
    pin_file = tmp_path / "pin"
    pin_file.write_bytes(b"654321")
    named = uri(token="a token", pin_file=pin_file).replace(",", ",,")
    with structlog.testing.capture_logs() as logs:
        async with served(f"piv,token={named}", state) as (slot,):
            await wait_until_logged(logs, "token_not_used")
            softhsm.remove()
            # Whatever the token says of its tries: it could be another's, or keep none.
            await trio.sleep(1)
            softhsm.bring_back()
            await trio.sleep(2)
            assert slot.insertion is None
    reasons = [str(entry["reason"]) for entry in logs if entry["event"] == "token_not_used"]
    assert ["is wrong" in reasons[0], "was refused before" in reasons[1]] == [True, True]
    assert len(reasons) == 2


# Tokens with a keypad: SoftHSM's, before which the PIN comes from a file that the test writes.
# test_pkcs11.py shows that what reaches such a token's module is C_Login without a PIN.

KEYPAD = """
import os, pathlib

plain_info = PyKCS11.PyKCS11Lib.getTokenInfo
plain_login = PyKCS11.Session.login

def get_token_info(self, slot):
    info = plain_info(self, slot)
    info.flags |= PyKCS11.CKF_PROTECTED_AUTHENTICATION_PATH
    return info

def login(self, pin, user_type=PyKCS11.CKU_USER):
    assert not pin
    keypad = pathlib.Path(os.environ["KEYPAD"])
    while not keypad.exists():
        time.sleep(0.02)
    entered = keypad.read_bytes()
    keypad.unlink()
    if not entered:
        raise PyKCS11.PyKCS11Error(PyKCS11.CKR_FUNCTION_CANCELED)
    plain_login(self, entered, user_type)

PyKCS11.PyKCS11Lib.getTokenInfo = get_token_info
PyKCS11.Session.login = login
"""


@pytest.fixture
def keypad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shim: Callable[[str], None]
) -> Callable[[bytes], None]:
    """Gives what enters a PIN at a token's keypad, or nothing."""
    shim(KEYPAD)
    file = tmp_path / "keypad"
    monkeypatch.setenv("KEYPAD", str(file))

    def enter(pin: bytes) -> None:
        (tmp_path / "new").write_bytes(pin)
        (tmp_path / "new").rename(file)

    return enter


async def test_a_token_with_a_keypad_gets_its_pin_there(
    state: State, softhsm: SoftHsm, keypad: Callable[[bytes], None]
) -> None:
    uri = token_option(softhsm, "a token", [*ONE_KEY, StoredKey(RSA, b"\2", "b")])
    async with served(f"piv,token={uri}", state) as (slot,):
        card = await selected(await inserted(slot))
        keypad(PIN)
        assert await verify(card, "000000") == 0x9000
        assert await sign(card) == 0x9000
        keypad(PIN)
        assert await verify(card, "000000") == 0x9000
        assert await sign(card, 0x9C, RSA) == 0x9000
        change = b"123456\xff\xff654321\xff\xff"
        keypad(PIN)
        assert (await transmit(card, CommandAPDU(0, 0x24, 0, 0x80, change))).sw == 0x6A81


async def test_what_is_entered_at_a_keypad_is_told(
    state: State, softhsm: SoftHsm, keypad: Callable[[bytes], None]
) -> None:
    uri = token_option(softhsm, "a token", ONE_KEY)
    async with served(f"piv,token={uri}", state) as (slot,):
        card = await selected(await inserted(slot))
        keypad(b"654321")
        assert await verify(card, "123456") == 0x63C2
        for _ in range(4):
            keypad(b"")
            assert await verify(card, "123456") == 0x6985
        keypad(b"654321")
        assert await verify(card, "123456") == 0x63C1
        keypad(PIN)
        assert await verify(card, "123456") == 0x9000


async def test_nobody_is_asked_at_a_keypad_who_does_not_expect_it(
    state: State, softhsm: SoftHsm, keypad: Callable[[bytes], None]
) -> None:
    uri = token_option(softhsm, "a token", ONE_KEY)
    async with served(f"piv,token={uri}", state) as (slot,):
        card = await selected(await inserted(slot))
        keypad(PIN)
        assert await verify(card, "123456") == 0x9000
        assert await sign(card) == 0x9000
        # The module crashes, and its session is opened again.
        os.kill(workers()[-1], signal.SIGKILL)
        assert await sign(card) == 0x6F00
        keypad(PIN)
        assert await verify(card, "123456") == 0x9000
        assert await sign(card) == 0x9000


@pytest.mark.usefixtures("keypad")
async def test_a_token_that_goes_while_its_keypad_waits(state: State, softhsm: SoftHsm) -> None:
    uri = token_option(softhsm, "a token", ONE_KEY)
    async with served(f"piv,token={uri}", state) as (slot,):
        card = await selected(await inserted(slot))
        answers = []

        async def use() -> None:
            answers.append(await verify(card, "123456"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await trio.sleep(0.5)
            softhsm.remove()
            await emptied(slot)
        assert answers == [0x6F00]


@pytest.mark.usefixtures("keypad")
def test_a_keypad_and_a_pin_from_a_file_exclude_each_other(
    state: State, softhsm: SoftHsm, tmp_path: Path
) -> None:
    uri = token_option(softhsm, "a token", ONE_KEY)
    pin_file = tmp_path / "pin"
    pin_file.write_bytes(PIN)
    with pytest.raises(UserError, match="keypad of its own; leave out pin-source"):
        open_supply(parse_card(f"piv,pkcs11={uri}&pin-source={pin_file}"), state)
    with pytest.raises(UserError, match="keypad of its own: leave this out"):
        open_supply(parse_card(f"piv,pkcs11={uri},pin-file={pin_file}"), state)


# A token that is a card itself, in a reader of pcscd's, through OpenSC's module.


class SlowCard(Card):
    """A PIV card that signs when it is told to."""

    def __init__(self) -> None:
        keys = {KeyReference.AUTHENTICATION: credential(P_256)}
        self.memory = new_memory()
        self._card = piv_card(keys, self.memory)
        self.signing = trio.Event()
        self.may_sign = trio.Event()

    async def power_on(self) -> ATR:
        return await self._card.power_on()

    async def power_off(self) -> None:
        await self._card.power_off()

    async def transmit(self, command: bytes) -> bytes:
        if command[1] == 0x87:  # GENERAL AUTHENTICATE
            self.signing.set()
            await self.may_sign.wait()
        return await self._card.transmit(command)


async def test_a_card_in_a_reader_of_the_host_is_a_token(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_pcscd_in(tmp_path, monkeypatch)
    hardware, place = SlowCard(), Slot()
    hardware.may_sign.set()
    text = f"piv,token=any,module={OPENSC}"
    async with reader(tmp_path, place), served(text, state) as slots:
        for _ in range(2):
            place.insert(hardware)
            card = await selected(await inserted(slots[0]))
            assert await verify(card, "654321") == 0x63C2
            assert await verify(card, "123456") == 0x9000
            assert await sign(card) == 0x9000
            place.remove()
            await emptied(slots[0])

        # It is taken out while it signs, which some of OpenSC's versions wait for without end.
        place.insert(hardware)
        card = await selected(await inserted(slots[0]))
        assert await verify(card, "123456") == 0x9000
        hardware.may_sign, hardware.signing = trio.Event(), trio.Event()
        answers = []

        async def use() -> None:
            # Whether before or after the card goes depends on how soon the module gives up.
            answers.append(await sign(card))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await hardware.signing.wait()
            place.remove()
            await emptied(slots[0])
        assert answers == [0x6F00]
        hardware.may_sign.set()
        place.insert(hardware)
        card = await selected(await inserted(slots[0]))
        assert await verify(card, "123456") == 0x9000
        assert await sign(card) == 0x9000


async def test_tries_that_the_host_has_used_up_are_not_the_guest_s(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_pcscd_in(tmp_path, monkeypatch)
    hardware, place = SlowCard(), Slot()
    hardware.may_sign.set()
    pin = hardware.memory.pin(0x80)
    status = CommandAPDU(0, 0x20, 0, 0x80)
    async with reader(tmp_path, place), served(f"piv,token=any,module={OPENSC}", state) as slots:
        for tries, left in ((2, 0x63C1), (1, 0x6983)):
            for _ in range(tries):
                await pin.compare(b"000000\xff\xff")
            place.insert(hardware)
            card = await selected(await inserted(slots[0]))
            assert (await transmit(card, status)).sw == left
            place.remove()
            await emptied(slots[0])


# What goes wrong.


async def test_a_token_whose_module_hangs_holds_up_no_other(
    state: State, softhsm: SoftHsm, shim: Callable[[str], None]
) -> None:
    softhsm.add("hangs", ONE_KEY)
    softhsm.add("works", [StoredKey(P_256, b"\1", "key", 1)])
    shim("""
        plain = PyKCS11.PyKCS11Lib.openSession

        def open_session(self, slot, flags=0):
            if self.getTokenInfo(slot).label.strip() == "hangs":
                time.sleep(1000)
            return plain(self, slot, flags)

        PyKCS11.PyKCS11Lib.openSession = open_session
    """)
    async with served(ANY, state) as slots:
        await wait_until(slots, lambda: len(filled(slots)) == 1, 10)
        card = await selected(await inserted(slots[filled(slots)[0]]))
        assert await verify(card, "123456") == 0x9000
        began = trio.current_time()
    assert trio.current_time() - began < 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("token=token", "begins with pkcs11:"),
        (f"token=pkcs11:?module-path={SOFTHSM}&pin-source=/nowhere/pin", "read /nowhere/pin"),
        ("token=pkcs11:type=data", "needs a private key"),
        ("token=pkcs11:pin-value=1", "must not contain a PIN"),
        ("token=any,module=/nowhere/module.so", "no PKCS#11 module /nowhere/module.so"),
        (
            f"token=pkcs11:?module-path={SOFTHSM},module={SOFTHSM}",
            "names a module already: leave this out",
        ),
        (f"token=any,module={SOFTHSM},key9A=file", "begins with pkcs11:"),
        (f"token=any,module={SOFTHSM},key9A=pkcs11:token=a", "pkcs11:id=%01"),
        (f"token=any,module={SOFTHSM},key9A=pkcs11:", "pkcs11:id=%01"),
        (f"token=any,module={SOFTHSM},key99=pkcs11:id=%01", "99 is no key of a piv card"),
        ("token=any,pin-file=f", "leave out pin-file or token"),
        ("token=any,card=c", "leave out card or token"),
        ("token=any,slots=17", "none of 1 to 16"),
        ("token=any,slots=0", "none of 1 to 16"),
        ("token=pkcs11:,slots=2", "slots: this goes with token=any"),
        ("card=c,slots=2", "slots: this goes with token"),
        ("keys=f,pin-file=f,module=m", "module: this goes with token"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(state: State, options: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        open_supply(parse_card(f"piv,{options}"), state)
    assert "\n" not in str(refused.value)
