# SPDX-License-Identifier: Apache-2.0
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ccidd.errors import UserError
from ccidd.keys.key import InvalidInputError, KeyAlgorithm
from ccidd.keys.local import LocalEcKey, LocalRsaKey, local_key
from credentials import private_key


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


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
)
def test_keys_that_cards_cannot_have_are_refused_by_name(key: object) -> None:
    with pytest.raises(UserError, match="not supported"):
        local_key(key)
