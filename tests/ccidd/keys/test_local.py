# SPDX-License-Identifier: Apache-2.0
import threading

import pytest
import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ccidd.errors import UserError
from ccidd.keys.generated import generate, key_usage, self_signed_certificate
from ccidd.keys.key import InvalidInputError, KeyAlgorithm
from ccidd.keys.local import (
    LocalEcKey,
    LocalEd25519Key,
    LocalRsaKey,
    LocalX25519Key,
    compute,
    local_key,
)
from credentials import credential, private_key


def rsa_key() -> LocalRsaKey:
    key = local_key(private_key(KeyAlgorithm.RSA_2048, 0))
    assert isinstance(key, LocalRsaKey)
    return key


def ec_key(algorithm: KeyAlgorithm) -> LocalEcKey:
    key = local_key(private_key(algorithm, 0))
    assert isinstance(key, LocalEcKey)
    return key


async def test_rsa_is_the_inverse_of_the_public_operation() -> None:
    key = rsa_key()
    assert isinstance(key.public_key, rsa.RSAPublicKey)
    numbers = key.public_key.public_numbers()
    for number in (0, 1, 2, numbers.n - 1, 0xC0FFEE):
        result = await key.decrypt_block(number.to_bytes(256))
        assert pow(int.from_bytes(result), numbers.e, numbers.n) == number


async def test_a_padded_block_becomes_a_signature_that_others_verify() -> None:
    key = rsa_key()
    assert isinstance(key.public_key, rsa.RSAPublicKey)
    info = bytes.fromhex("3031300d060960864801650304020105000420") + bytes(32)
    signature = await key.decrypt_block(b"\0\1".ljust(255 - len(info), b"\xff") + b"\0" + info)
    key.public_key.verify(signature, bytes(32), padding.PKCS1v15(), Prehashed(hashes.SHA256()))


async def test_rsa_refuses_what_it_cannot_take() -> None:
    key = rsa_key()
    assert isinstance(key.public_key, rsa.RSAPublicKey)
    for block in (bytes(255), bytes(257), key.public_key.public_numbers().n.to_bytes(256)):
        with pytest.raises(InvalidInputError):
            await key.decrypt_block(block)


@pytest.mark.parametrize(
    ("algorithm", "hash_algorithm"),
    [(KeyAlgorithm.P_256, hashes.SHA256()), (KeyAlgorithm.P_384, hashes.SHA384())],
)
async def test_ecdsa_signs_hashes_up_to_the_field_s_size(
    algorithm: KeyAlgorithm, hash_algorithm: hashes.HashAlgorithm
) -> None:
    key = ec_key(algorithm)
    assert isinstance(key.public_key, ec.EllipticCurvePublicKey)
    size = hash_algorithm.digest_size
    for digest in (b"\1" * size, b"\2" * 20):
        signature = await key.sign_hash(digest)
        padded = digest.rjust(size, b"\0")
        key.public_key.verify(signature, padded, ec.ECDSA(Prehashed(hash_algorithm)))
    for digest in (b"", bytes(size + 1)):
        with pytest.raises(InvalidInputError):
            await key.sign_hash(digest)


async def test_ecdh_agrees_with_the_other_side() -> None:
    key = ec_key(KeyAlgorithm.P_256)
    assert isinstance(key.public_key, ec.EllipticCurvePublicKey)
    other = ec.generate_private_key(ec.SECP256R1())
    point = other.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert await key.agree(point) == other.exchange(ec.ECDH(), key.public_key)
    compressed = other.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    for broken in (b"", compressed, b"\4" + bytes(64), point + b"\0"):
        with pytest.raises(InvalidInputError):
            await key.agree(broken)


async def test_rsa_1024_is_there_for_old_systems() -> None:
    key = local_key(private_key(KeyAlgorithm.RSA_1024, 0))
    assert isinstance(key, LocalRsaKey)
    assert key.algorithm is KeyAlgorithm.RSA_1024
    assert isinstance(key.public_key, rsa.RSAPublicKey)
    numbers = key.public_key.public_numbers()
    result = await key.decrypt_block(bytes(127) + b"\2")
    assert pow(int.from_bytes(result), numbers.e, numbers.n) == 2


async def test_ed25519_signs_the_message_itself() -> None:
    # RFC 8032, 7.1, test 3.
    seed = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
    key = local_key(ed25519.Ed25519PrivateKey.from_private_bytes(seed))
    assert isinstance(key, LocalEd25519Key)
    assert key.algorithm is KeyAlgorithm.ED25519
    assert await key.sign_message(bytes.fromhex("af82")) == bytes.fromhex(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )


async def test_x25519_agrees_on_a_secret() -> None:
    # RFC 7748, 6.1.
    secret = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    key = local_key(x25519.X25519PrivateKey.from_private_bytes(secret))
    assert isinstance(key, LocalX25519Key)
    assert key.algorithm is KeyAlgorithm.X25519
    public = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert await key.agree(public) == shared
    of_small_order = bytes(32)
    for broken in (b"", public[:-1], public + b"\0", of_small_order):
        with pytest.raises(InvalidInputError):
            await key.agree(broken)


async def test_a_cancelled_caller_does_not_wait_for_the_computation() -> None:
    started, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def operation() -> None:
        started.set()
        may_end.wait(60)
        ended.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(compute, operation)
            await trio.to_thread.run_sync(started.wait, 60)
            nursery.cancel_scope.cancel()
        assert not ended.is_set()
    finally:
        may_end.set()


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
async def test_a_key_of_every_algorithm_is_made_and_wrapped(algorithm: KeyAlgorithm) -> None:
    assert local_key(await generate(algorithm)).algorithm is algorithm


@pytest.mark.parametrize("algorithm", [a for a in KeyAlgorithm if a is not KeyAlgorithm.X25519])
def test_a_certificate_is_signed_with_its_key(algorithm: KeyAlgorithm) -> None:
    certificate = credential(algorithm).certificate
    certificate.verify_directly_issued_by(certificate)


def test_an_x25519_key_signs_no_certificate() -> None:
    certificate = credential(KeyAlgorithm.X25519).certificate
    certificate.verify_directly_issued_by(credential(KeyAlgorithm.P_256).certificate)
    with pytest.raises(UserError, match="cannot sign"):
        self_signed_certificate(
            private_key(KeyAlgorithm.X25519, 0), "name", key_usage(key_agreement=True)
        )


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1536),
        ec.generate_private_key(ec.SECP521R1()),
        ed448.Ed448PrivateKey.generate(),
    ],
)
def test_keys_that_cards_cannot_have_are_refused_by_name(key: object) -> None:
    with pytest.raises(UserError, match="not supported"):
        local_key(key)
