# SPDX-License-Identifier: Apache-2.0
"""Private keys that ccidd holds in its own memory.

Operations run in worker threads, as many at a time as there are processors.
"""

import os
import secrets
from functools import cache, partial
from typing import Final, TypeAlias

import gmpy2
import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from ccidd.keys.key import EcKey, InvalidInputError, RsaKey, algorithm_of

LocalPrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

# ECDSA takes a hash as a number, so any hash can be brought to the size of one of these.
_HASH_OF_FIELD_SIZE: Final[dict[int, hashes.HashAlgorithm]] = {
    32: hashes.SHA256(),
    48: hashes.SHA384(),
}


@cache
def _processors() -> trio.CapacityLimiter:
    return trio.CapacityLimiter(os.cpu_count() or 1)


def local_key(key: object) -> "LocalRsaKey | LocalEcKey":
    """Wraps a private key of `cryptography`.

    Raises:
        UserError: Cards here cannot have a key of that kind.
    """
    match key:
        case rsa.RSAPrivateKey():
            return LocalRsaKey(key)
        case ec.EllipticCurvePrivateKey():
            return LocalEcKey(key)
        case _:
            algorithm_of(key)
            raise AssertionError("algorithm_of refuses what is not matched above")


class LocalRsaKey(RsaKey):
    """An RSA key in memory."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        super().__init__(key.public_key())
        self._key = key
        self._size = key.key_size // 8

    async def decrypt_block(self, block: bytes) -> bytes:
        """See `RsaKey.decrypt_block`."""
        if len(block) != self._size:
            raise InvalidInputError(f"a block of {len(block)} bytes for a key of {self._size}")
        number = int.from_bytes(block)
        if number >= self._key.public_key().public_numbers().n:
            raise InvalidInputError("a block that is not below the modulus")
        operation = partial(_private_operation, self._key.private_numbers(), number)
        result = await trio.to_thread.run_sync(operation, limiter=_processors())
        return result.to_bytes(self._size)


def _private_operation(key: rsa.RSAPrivateNumbers, number: int) -> int:
    """RSADP with the Chinese remainder theorem (RFC 8017, 5.1.2).

    The guest chooses `number` and sees how long the answer takes, so the base is blinded and the
    powers are computed in constant time. The result is checked: a faulty one would give away the
    factors.
    """
    n, e = key.public_numbers.n, key.public_numbers.e
    with gmpy2.context(allow_release_gil=True):
        blind = 1 + secrets.randbelow(n - 1)
        blinded = number * gmpy2.powmod(blind, e, n) % n
        m1 = gmpy2.powmod_sec(blinded % key.p, key.dmp1, key.p)
        m2 = gmpy2.powmod_sec(blinded % key.q, key.dmq1, key.q)
        m = m2 + key.q * ((m1 - m2) * key.iqmp % key.p)
        result = m * gmpy2.invert(blind, n) % n
        if gmpy2.powmod(result, e, n) != number:
            raise ArithmeticError("an RSA operation went wrong")
        return int(result)


class LocalEcKey(EcKey):
    """A key on an elliptic curve in memory."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        super().__init__(key.public_key())
        self._key = key
        self._size = key.key_size // 8

    async def sign_hash(self, digest: bytes) -> bytes:
        """See `EcKey.sign_hash`."""
        if not 1 <= len(digest) <= self._size:
            raise InvalidInputError(f"a hash of {len(digest)} bytes for a key of {self._size}")
        algorithm = ec.ECDSA(Prehashed(_HASH_OF_FIELD_SIZE[self._size]))
        operation = partial(self._key.sign, digest.rjust(self._size, b"\0"), algorithm)
        return await trio.to_thread.run_sync(operation, limiter=_processors())

    async def agree(self, point: bytes) -> bytes:
        """See `EcKey.agree`."""
        if len(point) != 1 + 2 * self._size:
            raise InvalidInputError(f"a point of {len(point)} bytes")
        try:
            peer = ec.EllipticCurvePublicKey.from_encoded_point(self._key.curve, point)
        except ValueError as error:
            raise InvalidInputError("bytes that are no point of the curve") from error
        operation = partial(self._key.exchange, ec.ECDH(), peer)
        return await trio.to_thread.run_sync(operation, limiter=_processors())
