# SPDX-License-Identifier: Apache-2.0
"""Tokens of PKCS#11 modules: their PINs, and which of their keys are used. They are SoftHSM's."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
import trio

from ccidd.errors import UserError
from ccidd.keys.key import Credential, KeyUnavailableError
from ccidd.keys.pkcs11 import LoginResult, open_token
from ccidd.keys.token import ChangeResult
from credentials import credential
from open_tokens import DIGEST, ONE_KEY, P_256, P_384, be_impatient, ec_key, only, opened, processes
from tokens import PIN, SOFTHSM, SoftHsm, StoredKey, uri

# The PIN.


async def test_nothing_is_done_without_a_login(softhsm: SoftHsm) -> None:
    with opened(softhsm.add("token", ONE_KEY)) as token:
        with pytest.raises(KeyUnavailableError, match="not logged in"):
            await ec_key(token).sign_hash(DIGEST)
        assert await token.login(PIN) is LoginResult.OK
        assert await ec_key(token).sign_hash(DIGEST)
        await token.logout()
        with pytest.raises(KeyUnavailableError, match="not logged in"):
            await ec_key(token).sign_hash(DIGEST)


@pytest.mark.parametrize("pin", [b"654321", b"1", b"", b"1" * 300, b"\xff\x00"])
async def test_a_wrong_pin_is_checked_even_after_the_right_one(
    softhsm: SoftHsm, pin: bytes
) -> None:
    with opened(softhsm.add("token", ONE_KEY)) as token:
        assert await token.login(PIN) is LoginResult.OK
        assert await token.login(pin) in {LoginResult.WRONG, LoginResult.FEW_LEFT}
        with pytest.raises(KeyUnavailableError, match="not logged in"):
            await ec_key(token).sign_hash(DIGEST)
        assert await token.login(PIN) is LoginResult.OK
        assert await ec_key(token).sign_hash(DIGEST)


async def test_a_token_with_a_keypad_is_asked_to_log_in_without_a_pin(
    softhsm: SoftHsm, limit: Callable[[str, str], None]
) -> None:
    name = softhsm.add("token", ONE_KEY)
    limit("KEYPAD", "1")
    with opened(name) as token:
        assert token.has_keypad
        # SoftHSM has none, and calls a C_Login with NULL a bad argument.
        with pytest.raises(KeyUnavailableError, match="CKR_ARGUMENTS_BAD"):
            await token.login(b"654321")


async def test_the_token_s_flags_tell_of_wrong_tries(softhsm: SoftHsm) -> None:
    with opened(softhsm.add("token", ONE_KEY)) as token:
        assert await token.pin_status() is LoginResult.OK
        assert await token.login(b"654321") is LoginResult.FEW_LEFT
        assert await token.pin_status() is LoginResult.FEW_LEFT
        assert await token.login(PIN) is LoginResult.OK
        assert await token.pin_status() is LoginResult.OK


async def test_a_pin_that_was_changed_elsewhere_is_tried_once_and_forgotten(
    softhsm: SoftHsm,
) -> None:
    with opened(softhsm.add("token", ONE_KEY)) as token:
        assert await token.login(PIN) is LoginResult.OK
        softhsm.set_pin("token", PIN, b"222222")
        for process in processes(token):
            os.kill(process, signal.SIGKILL)
        with pytest.raises(KeyUnavailableError, match="another PIN"):
            await ec_key(token).sign_hash(DIGEST)
        with pytest.raises(KeyUnavailableError, match="not logged in"):
            await ec_key(token).sign_hash(DIGEST)
        assert await token.login(b"222222") is LoginResult.OK
        assert await ec_key(token).sign_hash(DIGEST)


@pytest.mark.parametrize("max_sessions", [1, 4])
async def test_the_pin_is_changed_for_all_sessions(softhsm: SoftHsm, max_sessions: int) -> None:
    with opened(softhsm.add("token", ONE_KEY), max_sessions=max_sessions) as token:
        with pytest.raises(KeyUnavailableError, match="not logged in"):
            await token.change_pin(b"222222")
        assert await token.login(PIN) is LoginResult.OK
        for unfit in (b"", b"1", b"222\x00222", b"2" * 300):
            assert await token.change_pin(unfit) is ChangeResult.UNFIT
        assert await token.change_pin(b"222222") is ChangeResult.OK
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ec_key(token).sign_hash, DIGEST)
        softhsm.set_pin("token", b"222222", PIN)  # which fails if it is another


async def test_a_token_that_is_gone_keeps_its_pin(softhsm: SoftHsm) -> None:
    with opened(softhsm.add("token", ONE_KEY)) as token:
        assert await token.login(PIN) is LoginResult.OK
        softhsm.remove()
        with pytest.raises(KeyUnavailableError, match="is not there"):
            await token.change_pin(b"222222")
        softhsm.bring_back()
        assert await token.login(PIN) is LoginResult.OK


async def test_a_login_is_ended_without_waiting_for_a_token_that_hangs(softhsm: SoftHsm) -> None:
    with opened(softhsm.add("token", ONE_KEY)) as token:
        assert await token.login(PIN) is LoginResult.OK
        be_impatient(token)
        (process,) = processes(token)
        os.kill(process, signal.SIGSTOP)
        started = trio.current_time()
        token.end_login()
        assert trio.current_time() - started < 0.5
        assert not token.is_logged_in
        # The next login waits until the process that hangs was killed.
        assert await token.login(PIN) is LoginResult.OK
        assert await ec_key(token).sign_hash(DIGEST)
        assert process not in processes(token)


async def test_a_pin_from_a_file_opens_the_token_at_the_start(
    softhsm: SoftHsm, tmp_path: Path
) -> None:
    softhsm.add("token", ONE_KEY)
    pin_file = tmp_path / "pin"
    pin_file.write_bytes(PIN + b"\n")
    with opened(uri(token="token", pin_file=pin_file)) as token:
        assert await ec_key(token).sign_hash(DIGEST)


def test_a_wrong_pin_from_a_file_is_tried_once_however_often_ccidd_is_started(
    softhsm: SoftHsm, tmp_path: Path
) -> None:
    softhsm.add("token", ONE_KEY)
    pin_file = tmp_path / "pin"
    pin_file.write_bytes(b"654321")
    with pytest.raises(UserError, match="is wrong, and few tries are left"):
        open_token(uri(token="token", pin_file=pin_file))
    for _ in range(2):
        with pytest.raises(UserError, match="is not tried"):
            open_token(uri(token="token", pin_file=pin_file))


def test_a_pin_is_in_no_text(softhsm: SoftHsm) -> None:
    with opened(softhsm.add("token", ONE_KEY)) as token:
        assert token.login_sync(PIN) is LoginResult.OK
        for thing in (token, token._login, token.info, token._pool):
            assert PIN.decode() not in repr(thing)


# Which key.


async def test_attributes_of_the_uri_choose_the_keys(softhsm: SoftHsm) -> None:
    keys = [StoredKey(P_384, b"\2", "second"), StoredKey(P_256, b"\1", "first")]
    name = softhsm.add("token", keys)
    softhsm.add("other token", [StoredKey(P_256, b"\1", "first", 7)])

    def found(attributes: str = "") -> list[Credential]:
        with opened(name.replace("?", attributes + "?")) as token:
            return list(token.credentials())

    assert [c.key.algorithm for c in found()] == [P_256, P_384]
    assert [c.key.algorithm for c in found(";object=second")] == [P_384]
    assert [c.key.algorithm for c in found(";id=%01;type=private")] == [P_256]
    assert [c.key.algorithm for c in found(";id=%01;object=first;type=cert")] == [P_256]
    assert found()[0].certificate == credential(P_256).certificate
    with opened(name.replace("?", f";serial={serial_of(name)};model=SoftHSM%20v2?")) as token:
        assert len(token.credentials()) == 2


def serial_of(name: str) -> str:
    with opened(name) as token:
        return token.info.serial


def test_the_object_may_be_named_as_its_private_key_is(softhsm: SoftHsm) -> None:
    keys = [
        StoredKey(P_256, b"\1", "key label", with_certificate=False),
        StoredKey(P_256, b"\1", "certificate label", with_public_key=False),
    ]
    softhsm.add("token", keys)
    for label in ("key label", "certificate label"):
        with opened(uri(token="token", object=label)) as token:
            assert only(token).algorithm is P_256


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            uri(token="tokn"),
            "the token 'tokn' is not there; tokens that .* has: 'token', 'token 2'",
        ),
        (uri(), "any of 2 tokens"),
        (uri(token="token", object="kee"), "no certificate 'kee' .* there: 'key'"),
        (uri(token="token", id="%02"), "with the ID 02"),
        (uri(token="token", object="data", type="data"), "type=data"),
        (uri("/nowhere/module.so", token="token"), "no PKCS#11 module /nowhere/module.so"),
        (uri("module.so", token="token"), "no absolute path"),
        (uri("/etc/passwd", token="token"), "/etc/passwd: .*"),
        ("pkcs11:token=token", "module-path="),
        ("pkcs11:token=token?module-name=nothing-like-it", "no PKCS#11 module 'nothing-like-it'"),
        (uri(token="token", pin_file=Path("relative")), "pin-source"),
        (uri(token="token", pin_file=Path("/nowhere/pin")), "cannot read /nowhere/pin"),
        (f"{uri(token='token')}&pin-source=|command", "pin-source"),
        (f"{uri(token='token')}&pin-source=credential:pin", "LoadCredential=pin"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(softhsm: SoftHsm, name: str, message: str) -> None:
    softhsm.add("token", ONE_KEY)
    softhsm.add("token 2", [])
    with pytest.raises(UserError, match=message) as refused:
        open_token(name)
    assert "\n" not in str(refused.value)


def test_a_library_that_is_no_module_is_told_so(softhsm: SoftHsm) -> None:
    with pytest.raises(UserError, match="cannot be used"):
        open_token(uri(next(str(p) for p in Path("/usr/lib").rglob("libz.so.1*")), token="token"))


def test_a_certificate_for_another_key_is_refused(softhsm: SoftHsm) -> None:
    keys = [StoredKey(P_256, b"\1", "key", certificate_of=(P_256, 1))]
    softhsm.add("token", keys)
    with pytest.raises(UserError, match="'key' on the token 'token' has no private key there"):
        open_token(uri(token="token", object="key"))


def test_a_token_without_keys_says_why_without_an_event(softhsm: SoftHsm) -> None:
    # Slots that follow tokens look again and again.
    softhsm.add("token", [StoredKey(P_256, b"\1", "key", certificate_of=(P_256, 1))])
    with (
        structlog.testing.capture_logs() as logs,
        pytest.raises(UserError, match=r"there: 'key'.*; the certificate 'key' .* no private key"),
    ):
        open_token(uri(token="token"))
    assert logs == []


def test_of_two_certificates_for_a_key_there_is_one_credential(softhsm: SoftHsm) -> None:
    keys = [*ONE_KEY, StoredKey(P_256, b"\1", "key", with_public_key=False)]
    with opened(softhsm.add("token", keys)) as token:
        assert len(token.credentials()) == 1


def test_softhsm_is_where_it_is_looked_for() -> None:
    assert Path(SOFTHSM).is_file()
