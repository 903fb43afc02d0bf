# SPDX-License-Identifier: Apache-2.0
"""Keys in NSS databases that certutil and pk12util made."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ccidd.errors import UserError
from ccidd.keys.key import EcKey, KeyAlgorithm, KeyUnavailableError, PrivateKey, RsaKey
from ccidd.keys.nss import open_database
from ccidd.keys.pkcs11 import LoginResult, Token
from credentials import credential
from tokens import nss_database

RSA, P_256, P_384 = KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256, KeyAlgorithm.P_384
KEYS = {"my rsa": (RSA, 0), "my p256": (P_256, 0), "my p384": (P_384, 0)}
PASSWORD = b"it's a secret"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nss_database(tmp_path_factory.mktemp("nss") / "a 'b' \\c", KEYS, PASSWORD.decode())


@contextmanager
def opened(name: str, nicknames: Sequence[str] = ()) -> Iterator[Token]:
    token = open_database(name, nicknames)
    try:
        yield token
    finally:
        token.close()


async def check(key: PrivateKey) -> None:
    if isinstance(key, RsaKey):
        assert isinstance(key.public_key, rsa.RSAPublicKey)
        numbers = key.public_key.public_numbers()
        for number in (2, numbers.n - 1):
            result = await key.decrypt_block(number.to_bytes(256))
            assert pow(int.from_bytes(result), numbers.e, numbers.n) == number
    else:
        assert isinstance(key, EcKey)
        assert isinstance(key.public_key, ec.EllipticCurvePublicKey)
        assert await key.sign_hash(b"\1" * 20)
        other = ec.generate_private_key(key.public_key.curve)
        point = other.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        assert await key.agree(point) == other.exchange(ec.ECDH(), key.public_key)


async def test_keys_are_found_by_their_nicknames_in_the_order_asked_for(database: Path) -> None:
    nicknames = ["my p384", "my rsa", "my p256"]
    with opened(f"sql:{database}", nicknames) as token:
        algorithms = [found.key.algorithm for found in token.credentials()]
        assert algorithms == [P_384, RSA, P_256]
        assert token.credentials()[1].certificate == credential(RSA).certificate
        assert await token.login(PASSWORD) is LoginResult.OK
        for found in token.credentials():
            await check(found.key)


async def test_without_nicknames_all_keys_are_taken(database: Path) -> None:
    with opened(str(database)) as token:
        assert {found.key.algorithm for found in token.credentials()} == {RSA, P_256, P_384}


async def test_the_password_is_the_pin(database: Path) -> None:
    with opened(f"sql:{database}", ["my p256"]) as token:
        (found,) = token.credentials()
        assert token.needs_login
        with pytest.raises(KeyUnavailableError, match="not logged in"):
            await check(found.key)
        assert await token.login(PASSWORD) is LoginResult.OK
        await check(found.key)
        for wrong in (b"wrong", b"", PASSWORD + b"\0", PASSWORD + b"x"):
            assert await token.login(wrong) is LoginResult.WRONG
            with pytest.raises(KeyUnavailableError, match="not logged in"):
                await check(found.key)
        assert await token.login(PASSWORD) is LoginResult.OK
        await check(found.key)


async def test_a_database_without_a_password_takes_the_empty_pin_and_no_other(
    tmp_path: Path,
) -> None:
    directory = nss_database(tmp_path / "nss", {"key": (P_256, 0)}, "")
    with opened(f"sql:{directory}", ["key"]) as token:
        assert not token.needs_login
        assert await token.login(b"anything") is LoginResult.WRONG
        assert await token.login(b"") is LoginResult.OK
        await check(token.credentials()[0].key)


async def test_databases_are_open_beside_each_other(database: Path, tmp_path: Path) -> None:
    other = nss_database(tmp_path / "nss", {"my p256": (P_256, 1)}, "other")
    with opened(f"sql:{database}", ["my p256"]) as a, opened(f"sql:{other}", ["my p256"]) as b:
        assert await a.login(b"other") is LoginResult.WRONG
        assert await a.login(PASSWORD) is LoginResult.OK
        assert await b.login(b"other") is LoginResult.OK
        keys = [token.credentials()[0].key for token in (a, b)]
        assert keys[0].public_key != keys[1].public_key
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                for key in keys:
                    nursery.start_soon(check, key)


async def test_operations_at_the_same_time(database: Path) -> None:
    with opened(f"sql:{database}", ["my rsa"]) as token:
        assert await token.login(PASSWORD) is LoginResult.OK
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(check, token.credentials()[0].key)


async def test_the_user_s_p11_kit_configuration_plays_no_part(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = tmp_path / "pkcs11/modules"
    modules.mkdir(parents=True)
    (modules / "broken.module").write_text("module: /nowhere/broken.so\ncritical: yes\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with opened(f"sql:{database}", ["my p256"]) as token:
        assert await token.login(PASSWORD) is LoginResult.OK


def test_the_database_is_not_changed(database: Path) -> None:
    before = {file.name: file.read_bytes() for file in database.iterdir()}
    with opened(f"sql:{database}", ["my p256"]) as token:
        assert token.login_sync(PASSWORD) is LoginResult.OK
    assert {file.name: file.read_bytes() for file in database.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "nicknames", "message"),
    [
        ("sql:{}/nowhere", [], "cannot read the NSS database .*/nowhere/cert9.db: No such file"),
        ("dbm:{}", [], "only sql: databases"),
        ("sql:{}", ["My RSA"], "no certificate 'My RSA' .* there: .*'my rsa'"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(
    database: Path, name: str, nicknames: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        open_database(name.format(database), nicknames)
    assert "\n" not in str(refused.value)


def test_a_damaged_database_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "cert9.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(UserError, match="the NSS database") as refused:
        open_database(f"sql:{tmp_path}", ["key"])
    assert "\n" not in str(refused.value)
