# SPDX-License-Identifier: Apache-2.0
"""Sessions with PKCS#11 tokens, and the processes that hold them. The tokens are SoftHSM's."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ccidd.errors import UserError
from ccidd.keys.key import Ed25519Key, KeyUnavailableError
from ccidd.keys.pkcs11 import LoginResult, open_token
from open_tokens import (
    DIGEST,
    ED25519,
    ONE_KEY,
    RSA,
    be_impatient,
    check,
    ec_key,
    only,
    opened,
    processes,
)
from tokens import PIN, SoftHsm, StoredKey, uri

# Sessions.


async def test_operations_at_the_same_time_have_sessions_of_their_own(softhsm: SoftHsm) -> None:
    with opened(softhsm.add("token", [StoredKey(RSA, b"\1", "key")]), max_sessions=3) as token:
        assert await token.login(PIN) is LoginResult.OK
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(check, only(token))
        assert len(processes(token)) == 3


async def test_a_token_that_refuses_a_second_session_is_used_with_one(
    softhsm: SoftHsm, tmp_path: Path, limit: Callable[[str, str], None]
) -> None:
    name = softhsm.add("token", ONE_KEY)
    limit("ONE_SESSION", str(tmp_path / "lock"))
    with opened(name) as token:
        assert await token.login(PIN) is LoginResult.OK
        with pytest.raises(UserError, match="no session left"):
            open_token(name)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(check, only(token))
        assert len(processes(token)) == 1
        os.kill(processes(token)[0], signal.SIGKILL)
        await check(only(token))


async def test_a_token_that_says_how_many_sessions_it_has_is_not_asked_for_more(
    softhsm: SoftHsm, limit: Callable[[str, str], None]
) -> None:
    name = softhsm.add("token", ONE_KEY)
    limit("MAX_SESSIONS", "2")
    with opened(name) as token:
        assert await token.login(PIN) is LoginResult.OK
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(check, only(token))
        assert len(processes(token)) <= 2


# Tokens that go, and processes that fail.


async def test_a_token_that_was_away_is_used_again_with_the_same_login(softhsm: SoftHsm) -> None:
    with opened(softhsm.add("token", ONE_KEY)) as token:
        assert await token.login(PIN) is LoginResult.OK
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(check, only(token))
        softhsm.remove()
        for _ in range(2):
            with pytest.raises(KeyUnavailableError, match="is not there"):
                await ec_key(token).sign_hash(DIGEST)
        with pytest.raises(KeyUnavailableError):
            await token.login(PIN)
        softhsm.bring_back()
        with pytest.raises(KeyUnavailableError, match="not logged in"):
            await ec_key(token).sign_hash(DIGEST)
        assert await token.login(PIN) is LoginResult.OK
        await check(only(token))
        softhsm.remove()
        with pytest.raises(KeyUnavailableError, match="is not there"):
            await ec_key(token).sign_hash(DIGEST)
        softhsm.bring_back()
        await check(only(token))


async def test_another_token_of_the_same_name_does_not_get_the_pin(softhsm: SoftHsm) -> None:
    name = softhsm.add("token", ONE_KEY)
    with opened(name) as token:
        assert await token.login(PIN) is LoginResult.OK
        softhsm.remove()
        softhsm.add("token", ONE_KEY)
        with pytest.raises(KeyUnavailableError, match="is not there"):
            await ec_key(token).sign_hash(DIGEST)


async def test_a_module_that_crashed_is_started_again(softhsm: SoftHsm) -> None:
    with opened(softhsm.add("token", ONE_KEY)) as token:
        assert await token.login(PIN) is LoginResult.OK
        for process in processes(token):
            os.kill(process, signal.SIGSEGV)
        await check(only(token))
        for process in processes(token):
            os.kill(process, signal.SIGSEGV)
        assert await token.login(PIN) is LoginResult.OK


async def test_a_module_that_hangs_is_given_up_and_holds_nobody_else_up(softhsm: SoftHsm) -> None:
    name = softhsm.add("token", ONE_KEY)
    softhsm.add("other", ONE_KEY)
    with opened(name) as token, opened(uri(token="other")) as other:
        assert await token.login(PIN) is LoginResult.OK
        be_impatient(token)
        assert await other.login(PIN) is LoginResult.OK
        for process in processes(token):
            os.kill(process, signal.SIGSTOP)
        failed = trio.Event()

        async def fail() -> None:
            with pytest.raises(KeyUnavailableError, match=r"no answer to .* within 1 s"):
                await ec_key(token).sign_hash(DIGEST)
            failed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await check(only(other))
            assert not failed.is_set()
        await check(only(token))


async def test_a_long_message_for_a_module_that_hangs_is_given_up_too(softhsm: SoftHsm) -> None:
    keys = [StoredKey(ED25519, b"\1", "key")]
    with opened(softhsm.add("token", keys)) as token:
        assert await token.login(PIN) is LoginResult.OK
        be_impatient(token)
        for process in processes(token):
            os.kill(process, signal.SIGSTOP)
        key = only(token)
        assert isinstance(key, Ed25519Key)
        with pytest.raises(KeyUnavailableError, match="within 1 s"):
            await key.sign_message(bytes(1 << 20))
        assert await key.sign_message(bytes(1 << 20))


async def test_a_cancelled_caller_does_not_wait_for_the_token(softhsm: SoftHsm) -> None:
    with opened(softhsm.add("token", ONE_KEY), max_sessions=1) as token:
        assert await token.login(PIN) is LoginResult.OK
        (process,) = processes(token)
        os.kill(process, signal.SIGSTOP)
        with trio.move_on_after(0.1) as cancelled:
            await ec_key(token).sign_hash(DIGEST)
        assert cancelled.cancelled_caught
        os.kill(process, signal.SIGCONT)
        await check(only(token))
        assert processes(token) == [process]


async def test_a_closed_token_fails_those_who_use_it(softhsm: SoftHsm) -> None:
    with opened(softhsm.add("token", ONE_KEY)) as token:
        assert await token.login(PIN) is LoginResult.OK
        for process in processes(token):
            os.kill(process, signal.SIGSTOP)
        failed = False
        async with trio.open_nursery() as nursery:

            async def use() -> None:
                nonlocal failed
                with pytest.raises(KeyUnavailableError):
                    await ec_key(token).sign_hash(DIGEST)
                failed = True

            nursery.start_soon(use)
            await trio.testing.wait_all_tasks_blocked()
            token.close()
        assert failed
        with pytest.raises(KeyUnavailableError, match="closed"):
            await ec_key(token).sign_hash(DIGEST)


def test_a_process_that_pins_pass_through_dumps_no_core(softhsm: SoftHsm) -> None:
    with opened(softhsm.add("token", ONE_KEY)) as token:
        (process,) = processes(token)
        limits = Path(f"/proc/{process}/limits").read_text().splitlines()
    (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
    assert core[-3:] == ["0", "0", "bytes"]


def test_pykcs11_is_loaded_by_the_tokens_processes_only() -> None:
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    code = (
        "import sys, ccidd.keys.pkcs11, ccidd.keys.nss\n"
        "assert not any('pykcs11' in name.lower() for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
