# SPDX-License-Identifier: Apache-2.0
"""What keys on PKCS#11 tokens do. The tokens are SoftHSM's."""

import contextlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from ccidd.keys.key import EcKey, InvalidInputError, KeyAlgorithm, KeyUnavailableError, RsaKey
from ccidd.keys.pkcs11 import LoginResult, Token
from ccidd.keys.tokenkeys import pad_message, unpad_signature
from open_tokens import DIGEST, ED25519, ONE_KEY, P_256, P_384, RSA, check, ec_key, only, opened
from tokens import PIN, SoftHsm, StoredKey


def rsa_key(token: Token) -> RsaKey:
    key = only(token)
    assert isinstance(key, RsaKey)
    return key


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
