# SPDX-License-Identifier: Apache-2.0
"""PKCS#11 tokens that are open, and what their keys are held to."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ccidd.keys.key import (
    EcKey,
    Ed25519Key,
    InvalidInputError,
    KeyAlgorithm,
    PrivateKey,
    RsaKey,
    X25519Key,
)
from ccidd.keys.pkcs11 import Token, open_token
from tokens import StoredKey

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
