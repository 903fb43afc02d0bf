# SPDX-License-Identifier: Apache-2.0
"""Private keys that ccidd holds in its own memory.

Operations run in worker threads, as many at a time as there are processors. They are pure
computation with nothing to clean up, so a cancelled caller leaves its thread to itself
(`abandon_on_cancel`); the thread keeps its place in the limiter until it ends.
"""

import os
from collections.abc import Callable
from functools import cache, partial
from typing import TypeAlias, TypeVar

import trio
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from ccidd.keys.key import EcKey, Ed25519Key, PrivateKey, RsaKey, X25519Key, algorithm_of
from ccidd.keys.rawrsa import RawRsaKey

LocalPrivateKey: TypeAlias = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | x25519.X25519PrivateKey
)

_T = TypeVar("_T")


@cache
def _processors() -> trio.CapacityLimiter:
    return trio.CapacityLimiter(os.cpu_count() or 1)


async def compute(operation: Callable[[], _T]) -> _T:
    """Does a pure computation in a worker thread, which a cancelled caller does not wait for."""
    return await trio.to_thread.run_sync(operation, abandon_on_cancel=True, limiter=_processors())


def local_key(key: object) -> "LocalRsaKey | LocalEcKey | LocalEd25519Key | LocalX25519Key":
    """Wraps a private key of `cryptography`.

    Raises:
        UserError: Cards here cannot have a key of that kind.
    """
    match key:
        case rsa.RSAPrivateKey():
            return LocalRsaKey(key)
        case ec.EllipticCurvePrivateKey():
            return LocalEcKey(key)
        case ed25519.Ed25519PrivateKey():
            return LocalEd25519Key(key)
        case x25519.X25519PrivateKey():
            return LocalX25519Key(key)
        case _:
            algorithm_of(key)
            raise AssertionError("algorithm_of refuses what is not matched above")


def private_key_of(key: PrivateKey) -> LocalPrivateKey:
    """Gives what `local_key` has wrapped, for it to be stored."""
    assert isinstance(key, LocalRsaKey | LocalEcKey | LocalEd25519Key | LocalX25519Key)
    return key._key  # noqa: SLF001 (a key leaves its wrapper only here)


class LocalRsaKey(RsaKey):
    """An RSA key in memory."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        super().__init__(key.public_key())
        self._key = key
        self._raw = RawRsaKey(key)

    async def decrypt_block(self, block: bytes) -> bytes:
        """See `RsaKey.decrypt_block`."""
        self.check_block(block)
        return await compute(partial(self._raw.transform, block))


class LocalEcKey(EcKey):
    """A key on an elliptic curve in memory."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        super().__init__(key.public_key())
        self._key = key

    async def sign_hash(self, digest: bytes) -> bytes:
        """See `EcKey.sign_hash`."""
        operation = partial(self._key.sign, self.padded_hash(digest), self.signature_algorithm())
        return await compute(operation)

    async def agree(self, point: bytes) -> bytes:
        """See `EcKey.agree`."""
        return await compute(partial(self._key.exchange, ec.ECDH(), self.peer(point)))


class LocalEd25519Key(Ed25519Key):
    """An Ed25519 key in memory."""

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        super().__init__(key.public_key())
        self._key = key

    async def sign_message(self, message: bytes) -> bytes:
        """See `Ed25519Key.sign_message`; messages of any length are taken."""
        return await compute(partial(self._key.sign, message))


class LocalX25519Key(X25519Key):
    """An X25519 key in memory."""

    def __init__(self, key: x25519.X25519PrivateKey) -> None:
        super().__init__(key.public_key())
        self._key = key

    async def agree(self, public: bytes) -> bytes:
        """See `X25519Key.agree`."""
        return await compute(partial(self._key.exchange, self.peer(public)))
