# SPDX-License-Identifier: Apache-2.0
"""Keys on a token that counts tries and locks its PIN: ccidd's own PIV card, through OpenSC.

SoftHSM and NSS do neither. The card is served by the very process that uses it as a token: in
between are a serial line, pcscd, and OpenSC's PKCS#11 module.
"""

import ctypes.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from ccidd.card.card import Card
from ccidd.card.memory import CardMemory
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import KeyReference, PinReference
from ccidd.errors import UserError
from ccidd.keys.key import EcKey, KeyAlgorithm, KeyUnavailableError, RsaKey
from ccidd.keys.pkcs11 import LoginResult, Token, open_token
from ccidd.reader.slot import Slot
from credentials import credential
from pcscd import pcscd, serving
from piv import new_memory
from tokens import uri

OPENSC = ctypes.util.find_library("opensc-pkcs11") or "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"
PIN = b"123456"
DIGEST = bytes(range(32))


def card(memory: CardMemory | None = None) -> Card:
    keys = {
        KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256),
        KeyReference.SIGNATURE: credential(KeyAlgorithm.RSA_2048),
    }
    return piv_card(keys, memory or new_memory())


@asynccontextmanager
async def served(
    directory: Path, monkeypatch: pytest.MonkeyPatch, slot: Slot
) -> AsyncIterator[None]:
    """Serves a slot, for OpenSC in processes that are started meanwhile."""
    # Its cache of PINs would answer in the token's place.
    (directory / "opensc.conf").write_text(
        "app default { framework pkcs15 { use_file_caching = no; use_pin_caching = false; } }\n"
    )
    monkeypatch.setenv("OPENSC_CONF", str(directory / "opensc.conf"))
    link = directory / "line"
    async with serving(link, [slot]), pcscd(link, "GemPCTwin") as host:
        # pcscd may be there before it knows of the card.
        seen = "until opensc-tool --list-readers | grep --quiet Yes; do sleep 0.02; done"
        await host.run("sh", "-c", seen)
        # Its socket is in a mount namespace of its own.
        process = host._enter[1].removeprefix("--target=")
        monkeypatch.setenv("PCSCLITE_CSOCK_NAME", f"/proc/{process}/root/run/pcscd/pcscd.comm")
        yield


@asynccontextmanager
async def opened() -> AsyncIterator[Token]:
    # In threads, as this one serves the card.
    token = await trio.to_thread.run_sync(partial(open_token, uri(OPENSC), timeout=30))
    try:
        yield token
    finally:
        await trio.to_thread.run_sync(token.close)


async def check(token: Token) -> None:
    signing, always = (found.key for found in token.credentials())
    assert isinstance(signing, EcKey)
    assert await signing.sign_hash(DIGEST)
    # The card wants its PIN for each signature with this one: OpenSC's CKA_ALWAYS_AUTHENTICATE.
    assert isinstance(always, RsaKey)
    for number in (2, 3):
        assert await always.decrypt_block(number.to_bytes(256))


async def test_tries_are_counted_and_the_pin_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, monkeypatch, Slot(card())), opened() as token:
        assert await token.pin_status() is LoginResult.OK
        assert await token.login(b"654321") is LoginResult.WRONG
        assert await token.login(b"654321") is LoginResult.LAST_TRY
        assert await token.pin_status() is LoginResult.LAST_TRY
        assert await token.login(PIN) is LoginResult.OK
        await check(token)
        assert await token.login(b"654321") is LoginResult.WRONG
        with pytest.raises(KeyUnavailableError, match="not logged in"):
            await check(token)
        assert await token.login(b"654321") is LoginResult.LAST_TRY
        assert await token.login(b"654321") is LoginResult.LOCKED
        assert await token.pin_status() is LoginResult.LOCKED
        assert await token.login(PIN) is LoginResult.LOCKED


async def test_a_key_that_wants_its_pin_each_time_costs_one_try_when_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = new_memory()
    pin = memory.pin(PinReference.APPLICATION_PIN)
    async with served(tmp_path, monkeypatch, Slot(card(memory))), opened() as token:
        assert await token.login(PIN) is LoginResult.OK
        await check(token)
        await pin.change(b"222222\xff\xff")
        with pytest.raises(KeyUnavailableError, match="another PIN"):
            await check(token)
        with pytest.raises(KeyUnavailableError, match="not logged in"):
            await check(token)
        assert await pin.tries_left() == 2


async def test_a_locked_token_is_not_tried_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin_file = tmp_path / "pin"
    pin_file.write_bytes(b"654321")
    name = uri(OPENSC, pin_file=pin_file)
    memory = new_memory()
    pin = memory.pin(PinReference.APPLICATION_PIN)
    async with served(tmp_path, monkeypatch, Slot(card(memory))):
        for message in ("is wrong", "one try is left", "is not tried", "is not tried"):
            with pytest.raises(UserError, match=message):
                await trio.to_thread.run_sync(partial(open_token, name, timeout=30))
    assert await pin.tries_left() == 1


async def test_a_card_that_was_taken_out_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = new_memory()
    slot, same_card = Slot(card(memory)), card(memory)
    async with served(tmp_path, monkeypatch, slot), opened() as token:
        assert await token.login(PIN) is LoginResult.OK
        await check(token)
        # OpenSC 0.23 waits for ever in C_Sign when the card has just gone.
        for session in token._pool._sessions:
            session.cryptoki._timeout = 2
        slot.remove()
        with pytest.raises(KeyUnavailableError):
            await check(token)
        slot.insert(same_card)
        with trio.fail_after(60):
            while True:
                try:
                    await check(token)
                except KeyUnavailableError:
                    await trio.sleep(0.1)
                else:
                    break


async def test_a_token_that_waits_for_ccidd_itself_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, monkeypatch, Slot(card())):
        # In the thread that would have to serve the card meanwhile.
        with pytest.raises(UserError, match=r"no answer to .* within 1 s"):
            open_token(uri(OPENSC), timeout=1)
