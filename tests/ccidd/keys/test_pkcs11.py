# SPDX-License-Identifier: Apache-2.0
"""Keys on PKCS#11 tokens: SoftHSM's."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from ccidd.errors import UserError
from ccidd.keys.key import (
    Credential,
    EcKey,
    Ed25519Key,
    InvalidInputError,
    KeyAlgorithm,
    KeyUnavailableError,
    PrivateKey,
    RsaKey,
    X25519Key,
)
from ccidd.keys.pkcs11 import LoginResult, Token, open_token
from ccidd.keys.token import ChangeResult
from ccidd.keys.tokenkeys import pad_message, unpad_signature
from credentials import credential
from tokens import PIN, SOFTHSM, SoftHsm, StoredKey, uri

RSA, P_256, P_384 = KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256, KeyAlgorithm.P_384
ED25519 = KeyAlgorithm.ED25519
DIGEST = bytes(range(32))

ONE_KEY = [StoredKey(P_256, b"\1", "key")]


@contextmanager
def opened(name: str, *, max_sessions: int = 4) -> Iterator[Token]:
    token = open_token(name, max_sessions=max_sessions)
    try:
        yield token
    finally:
        token.close()


def only(token: Token) -> PrivateKey:
    (found,) = token.credentials()
    return found.key


def ec_key(token: Token) -> EcKey:
    key = only(token)
    assert isinstance(key, EcKey)
    return key


def rsa_key(token: Token) -> RsaKey:
    key = only(token)
    assert isinstance(key, RsaKey)
    return key


def processes(token: Token) -> list[int]:
    return [session.cryptoki._process.pid for session in token._pool._sessions]


def be_impatient(token: Token) -> None:
    """Gives the processes that there are a second for each call."""
    for session in token._pool._sessions:
        session.cryptoki._timeout = 1


async def check(key: PrivateKey) -> None:
    """Has a key do all it can, and holds the results against its public key."""
    if isinstance(key, RsaKey):
        assert isinstance(key.public_key, rsa.RSAPublicKey)
        numbers = key.public_key.public_numbers()
        size = key.public_key.key_size // 8
        for number in (0, 1, 2, numbers.n - 1):
            result = await key.decrypt_block(number.to_bytes(size))
            assert len(result) == size
            assert pow(int.from_bytes(result), numbers.e, numbers.n) == number
    elif isinstance(key, EcKey):
        assert isinstance(key.public_key, ec.EllipticCurvePublicKey)
        for digest in (b"\1" * key.field_size, b"\2" * 20):
            signature = await key.sign_hash(digest)
            padded = digest.rjust(key.field_size, b"\0")
            key.public_key.verify(signature, padded, key.signature_algorithm())
        other = ec.generate_private_key(key.public_key.curve)
        point = other.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        assert await key.agree(point) == other.exchange(ec.ECDH(), key.public_key)
    elif isinstance(key, X25519Key):
        assert isinstance(key.public_key, x25519.X25519PublicKey)
        partner = x25519.X25519PrivateKey.generate()
        public = partner.public_key().public_bytes_raw()
        assert await key.agree(public) == partner.exchange(key.public_key)
        with pytest.raises(InvalidInputError):
            await key.agree(bytes(32))
    else:
        assert isinstance(key, Ed25519Key)
        for message in (b"a message", bytes(5000)):
            assert len(await key.sign_message(message)) == 64


# What keys do.


async def test_keys_of_all_kinds_do_their_work_on_the_token(softhsm: SoftHsm) -> None:
    algorithms = [RSA, KeyAlgorithm.RSA_1024, P_256, P_384, ED25519, KeyAlgorithm.X25519]
    keys = [StoredKey(a, bytes([i + 1]), a.value) for i, a in enumerate(algorithms)]
    with opened(softhsm.add("token", keys)) as token:
        assert [c.key.algorithm for c in token.credentials()] == algorithms
        assert await token.login(PIN) is LoginResult.OK
        for found in token.credentials():
            await check(found.key)


async def test_what_a_key_cannot_take_does_not_reach_the_token(softhsm: SoftHsm) -> None:
    keys = [StoredKey(RSA, b"\1", "a"), StoredKey(P_256, b"\2", "b")]
    with opened(softhsm.add("token", keys)) as token:
        first, second = (found.key for found in token.credentials())
        assert isinstance(first, RsaKey)
        assert isinstance(second, EcKey)
        for block in (b"", bytes(255), b"\xff" * 256):
            with pytest.raises(InvalidInputError):
                await first.decrypt_block(block)
        for digest in (b"", bytes(33)):
            with pytest.raises(InvalidInputError):
                await second.sign_hash(digest)
        with pytest.raises(InvalidInputError):
            await second.agree(b"\4" + bytes(64))


async def test_shared_secrets_that_begin_with_zeros_keep_their_length(softhsm: SoftHsm) -> None:
    with opened(softhsm.add("token", ONE_KEY)) as token:
        assert await token.login(PIN) is LoginResult.OK
        key = ec_key(token)
        assert isinstance(key.public_key, ec.EllipticCurvePublicKey)
        while True:
            other = ec.generate_private_key(ec.SECP256R1())
            expected = other.exchange(ec.ECDH(), key.public_key)
            if expected[0] == 0:
                break
        point = other.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        assert await key.agree(point) == expected


@pytest.mark.parametrize("verb", ["sign", "decrypt"])
async def test_raw_rsa_uses_what_the_key_may_do(softhsm: SoftHsm, verb: str) -> None:
    may_sign, may_decrypt = verb == "sign", verb == "decrypt"
    keys = [StoredKey(RSA, b"\1", "key", may_sign=may_sign, may_decrypt=may_decrypt)]
    with opened(softhsm.add("token", keys)) as token:
        assert await token.login(PIN) is LoginResult.OK
        await check(only(token))


async def test_a_token_without_raw_rsa_does_what_is_padded(softhsm: SoftHsm) -> None:
    softhsm.configure("slots.mechanisms = CKM_RSA_PKCS,CKM_SHA256")
    with opened(softhsm.add("token", [StoredKey(RSA, b"\1", "key")])) as token:
        assert await token.login(PIN) is LoginResult.OK
        key = rsa_key(token)
        assert isinstance(key.public_key, rsa.RSAPublicKey)
        info = bytes.fromhex("3031300d060960864801650304020105000420") + hashes_of(b"data")
        block = b"\0\1".ljust(255 - len(info), b"\xff") + b"\0" + info
        signature = await key.decrypt_block(block)
        key.public_key.verify(signature, b"data", padding.PKCS1v15(), hashes.SHA256())

        ciphertext = key.public_key.encrypt(b"a secret", padding.PKCS1v15())
        decrypted = await key.decrypt_block(ciphertext)
        assert len(decrypted) == 256
        assert decrypted[:2] == b"\0\2"
        assert decrypted[2:].partition(b"\0")[2] == b"a secret"

        # Where OpenSSL has its "implicit rejection", what was padded otherwise becomes some random
        # message, and no error, here and in SoftHSM.
        with contextlib.suppress(InvalidInputError):
            assert (await key.decrypt_block(bytes(255) + b"\2"))[:2] == b"\0\2"
        assert await key.decrypt_block(ciphertext)


def hashes_of(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


@given(st.binary(max_size=245))
def test_padding_is_taken_away_as_it_was_put_on(message: bytes) -> None:
    assert unpad_signature(b"\0\1" + b"\xff" * (253 - len(message)) + b"\0" + message) == message
    padded = pad_message(message, 256)
    assert len(padded) == 256
    assert padded[:2] == b"\0\2"
    assert padded[2:].partition(b"\0")[2] == message
    assert len(padded[2:].partition(b"\0")[0]) >= 8
    assert unpad_signature(padded) is None


@pytest.mark.parametrize(
    "block",
    [
        b"\0\1" + b"\xff" * 7 + b"\0message",
        b"\0\1" + b"\xff" * 8,
        b"\0\1" + b"\xff" * 8 + b"\xfe\0message",
        b"\1\1" + b"\xff" * 8 + b"\0message",
        b"",
    ],
)
def test_other_padding_is_none_of_a_signature(block: bytes) -> None:
    assert unpad_signature(block) is None


async def test_a_key_that_wants_its_pin_each_time_gets_it(softhsm: SoftHsm) -> None:
    keys = [
        StoredKey(P_256, b"\1", "a", always_authenticate=True),
        StoredKey(RSA, b"\2", "b", always_authenticate=True),
    ]
    with opened(softhsm.add("token", keys)) as token:
        assert await token.login(PIN) is LoginResult.OK
        for found in token.credentials():
            if isinstance(found.key, EcKey):
                assert await found.key.sign_hash(DIGEST)
                assert await found.key.sign_hash(DIGEST)
            else:
                await check(found.key)


async def test_a_key_that_is_not_that_of_its_certificate_gives_no_result(softhsm: SoftHsm) -> None:
    keys = [
        StoredKey(P_256, b"\1", "key", with_public_key=False, certificate_of=(P_256, 1)),
    ]
    with opened(softhsm.add("token", keys)) as token:
        assert await token.login(PIN) is LoginResult.OK
        with pytest.raises(KeyUnavailableError, match="not of the key"):
            await ec_key(token).sign_hash(DIGEST)


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


# Sessions.


async def test_operations_at_the_same_time_have_sessions_of_their_own(softhsm: SoftHsm) -> None:
    with opened(softhsm.add("token", [StoredKey(RSA, b"\1", "key")]), max_sessions=3) as token:
        assert await token.login(PIN) is LoginResult.OK
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(check, only(token))
        assert len(processes(token)) == 3


SHIM = """
import fcntl, os, PyKCS11

if "ONE_SESSION" in os.environ:
    plain = PyKCS11.PyKCS11Lib.openSession

    def open_session(self, slot, flags=0):
        self.lock = open(os.environ["ONE_SESSION"], "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PyKCS11.PyKCS11Error(PyKCS11.CKR_SESSION_COUNT)
        return plain(self, slot, flags)

    PyKCS11.PyKCS11Lib.openSession = open_session

if "MAX_SESSIONS" in os.environ:
    get_info = PyKCS11.PyKCS11Lib.getTokenInfo

    def get_token_info(self, slot):
        info = get_info(self, slot)
        info.ulMaxSessionCount = int(os.environ["MAX_SESSIONS"])
        return info

    PyKCS11.PyKCS11Lib.getTokenInfo = get_token_info

if "KEYPAD" in os.environ:
    get_plain_info = PyKCS11.PyKCS11Lib.getTokenInfo

    def get_token_info_with_keypad(self, slot):
        info = get_plain_info(self, slot)
        info.flags |= PyKCS11.CKF_PROTECTED_AUTHENTICATION_PATH
        return info

    PyKCS11.PyKCS11Lib.getTokenInfo = get_token_info_with_keypad
"""


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts limits before SoftHSM, which has none, in the processes that use it."""
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim/sitecustomize.py").write_text(SHIM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shim"), prepend=os.pathsep)
    return monkeypatch.setenv


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


def test_pykcs11_is_loaded_by_the_tokens_processes_only() -> None:
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    code = (
        "import sys, ccidd.keys.pkcs11, ccidd.keys.nss\n"
        "assert not any('pykcs11' in name.lower() for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_softhsm_is_where_it_is_looked_for() -> None:
    assert Path(SOFTHSM).is_file()
