# SPDX-License-Identifier: Apache-2.0
"""Private keys that never leave their PKCS#11 token.

What a token computes is checked with the public key of the certificate, where that can be done: it
may have another key of the same name, or be broken, and a faulty RSA result gives a key away.

Source: PKCS #11 Cryptographic Token Interface Current Mechanisms Specification Version 2.40, 2.1
(RSA) and 2.3 (elliptic curves); Version 3.0, 2.3.14 (CKM_EDDSA).
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ccidd.keys.cryptoki import CryptokiError, Mechanism, Operation, TokenObject
from ccidd.keys.key import (
    EcKey,
    Ed25519Key,
    InvalidInputError,
    KeyAlgorithm,
    KeyUnavailableError,
    LoginNeededError,
    PrivateKey,
    PublicKey,
    RsaKey,
    X25519Key,
)
from ccidd.keys.sessions import Session
from ccidd.keys.token import KeyNotFoundError, Token

_CKK_RSA: Final = 0x00000000

# A token does not do it so, but perhaps in another manner.
_NOT_SO: Final = frozenset(
    {
        "CKR_FUNCTION_NOT_SUPPORTED",
        "CKR_KEY_FUNCTION_NOT_PERMITTED",
        "CKR_KEY_TYPE_INCONSISTENT",
        "CKR_MECHANISM_INVALID",
        "CKR_MECHANISM_PARAM_INVALID",
    }
)
_BAD_CIPHERTEXT: Final = frozenset(
    {"CKR_ENCRYPTED_DATA_INVALID", "CKR_ENCRYPTED_DATA_LEN_RANGE", "CKR_DATA_INVALID"}
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class KeyName:
    """What finds a private key on its token: as its certificate does, by CKA_ID (or the label)."""

    id: bytes
    label: str
    public_key: PublicKey

    def is_name_of(self, key: TokenObject) -> bool:
        """Tells whether a private (or public) key is the one, as far as the token shows it."""
        named = key.id == self.id if self.id or key.id else key.label == self.label
        if isinstance(self.public_key, rsa.RSAPublicKey):
            modulus = self.public_key.public_numbers().n
            return named and key.type == _CKK_RSA and key.modulus in {0, modulus}
        if isinstance(self.public_key, ec.EllipticCurvePublicKey):
            encoding, form = Encoding.X962, PublicFormat.UncompressedPoint
        else:
            encoding, form = Encoding.Raw, PublicFormat.Raw
        # 2.40, 2.3.3: a DER OCTET STRING, but some tokens leave the DER out.
        is_same = key.ec_point.endswith(self.public_key.public_bytes(encoding, form))
        return named and key.type != _CKK_RSA and (is_same or not key.ec_point)


class _KeyOnToken:
    """What the keys of all kinds do with their token."""

    def __init__(self, token: Token, name: KeyName) -> None:
        self.token: Final = token
        self._name = name

    async def perform(self, operation: Callable[[Session, TokenObject], _T]) -> _T:
        """Does an operation with the key; see `Token.perform`."""

        def find_and_do(session: Session) -> _T:
            return operation(session, self._find(session))

        return await self.token.perform(find_and_do)

    def _find(self, session: Session) -> TokenObject:
        for key in session.private_keys():
            if self._name.is_name_of(key):
                return key
        if self.token.needs_login and not self.token.is_logged_in:
            raise LoginNeededError(f"{self.token.name} is not logged in")
        raise KeyNotFoundError(
            f"{self.token.name} has no private key for its certificate {self._name.label!r}"
        )

    def operation(
        self, key: TokenObject, mechanism: Mechanism, data: bytes, size: int
    ) -> Operation:
        """Describes an operation, with the PIN if the key wants it each time."""
        return Operation(key.handle, mechanism, data, size, self.token.pin_for(key))

    async def sign(self, mechanism: Mechanism, data: bytes, size: int) -> bytes:
        """Signs, with a result of at most that size."""

        def sign(session: Session, key: TokenObject) -> bytes:
            return session.cryptoki.sign(self.operation(key, mechanism, data, size))

        return await self.perform(sign)

    async def derive(self, public: bytes, size: int) -> bytes:
        """Agrees on a secret of that size."""
        return await self.perform(partial(self._derive, public, size))

    def _derive(self, public: bytes, size: int, session: Session, key: TokenObject) -> bytes:
        try:
            secret = session.cryptoki.derive(key.handle, public, size)
        except CryptokiError as error:
            if error.reason not in _NOT_SO:
                raise
            # 2.40, 2.3.8: some tokens take the point as a DER OCTET STRING only.
            wrapped = b"\4" + bytes([len(public)]) + public
            secret = session.cryptoki.derive(key.handle, wrapped, size)
        if len(secret) != size:
            raise self.wrong_result()
        return secret

    def wrong_result(self) -> KeyUnavailableError:
        """What is raised when the token computes what its key cannot have given."""
        return KeyUnavailableError(
            f"{self.token.name} gave a result that is not of the key of its certificate"
            f" {self._name.label!r}"
        )


def token_key(token: Token, name: KeyName) -> PrivateKey:
    """Gives a token's private key as cards use it."""
    key = _KeyOnToken(token, name)
    match name.public_key:
        case rsa.RSAPublicKey():
            return TokenRsaKey(key, name.public_key)
        case ec.EllipticCurvePublicKey():
            return TokenEcKey(key, name.public_key)
        case ed25519.Ed25519PublicKey():
            return TokenEd25519Key(key, name.public_key)
        case x25519.X25519PublicKey():
            return TokenX25519Key(key, name.public_key)


def lacking_mechanism(algorithm: KeyAlgorithm, mechanisms: frozenset[str]) -> str:
    """Tells what a token would need for keys of an algorithm, and does not have; empty if none."""
    match algorithm:
        case KeyAlgorithm.P_256 | KeyAlgorithm.P_384:
            needed = {"CKM_ECDSA", "CKM_ECDH1_DERIVE"}
        case KeyAlgorithm.ED25519:
            needed = {"CKM_EDDSA"}
        case KeyAlgorithm.X25519:
            needed = {"CKM_ECDH1_DERIVE"}
        case _:
            needed = {"CKM_RSA_X_509", "CKM_RSA_PKCS"}
    return "" if needed & mechanisms else " or ".join(sorted(needed))


class TokenRsaKey(RsaKey):
    """An RSA key on a token.

    On a token without raw RSA (CKM_RSA_X_509) it can do what has PKCS#1 v1.5 padding: a block with
    that of a signature is signed without it, and any other is taken for a ciphertext. The host gets
    back what the token decrypted, padded anew.
    """

    def __init__(self, key: _KeyOnToken, public_key: rsa.RSAPublicKey) -> None:
        super().__init__(public_key)
        self._numbers = public_key.public_numbers()
        self._key = key

    async def decrypt_block(self, block: bytes) -> bytes:
        """See `RsaKey.decrypt_block`."""
        number = self.check_block(block)
        result = await self._key.perform(partial(self._decrypt_block, block))
        power = pow(int.from_bytes(result.block), self._numbers.e, self._numbers.n)
        if result.is_exact and power != number:
            raise self._key.wrong_result()
        return result.block

    def _decrypt_block(self, block: bytes, session: Session, key: TokenObject) -> "_RsaResult":
        if "CKM_RSA_X_509" in session.mechanisms:
            try:
                return _RsaResult(self._raw(block, session, key), is_exact=True)
            except CryptokiError as error:
                if error.reason not in _NOT_SO or "CKM_RSA_PKCS" not in session.mechanisms:
                    raise
        message = unpad_signature(block)
        if message is not None:
            operation = self._key.operation(key, "CKM_RSA_PKCS", message, len(block))
            return _RsaResult(session.cryptoki.sign(operation), is_exact=True)
        operation = self._key.operation(key, "CKM_RSA_PKCS", block, len(block))
        try:
            decrypted = session.cryptoki.decrypt(operation)
        except CryptokiError as error:
            # SoftHSM tells of no reason.
            unclear = error.reason in {"CKR_GENERAL_ERROR", "CKR_FUNCTION_FAILED"}
            if error.reason in _BAD_CIPHERTEXT or (unclear and session.is_alive()):
                raise InvalidInputError("a block without PKCS#1 v1.5 padding") from error
            raise
        return _RsaResult(pad_message(decrypted, len(block)), is_exact=False)

    def _raw(self, block: bytes, session: Session, key: TokenObject) -> bytes:
        """Uses the one of two ways to the same result that the key permits."""
        operation = self._key.operation(key, "CKM_RSA_X_509", block, len(block))
        if key.may_sign:
            return session.cryptoki.sign(operation).rjust(len(block), b"\0")
        return session.cryptoki.decrypt(operation).rjust(len(block), b"\0")


@dataclass(frozen=True, slots=True)
class _RsaResult:
    block: bytes
    is_exact: bool
    """Whether it is the power of the block, and not one with other padding."""


def unpad_signature(block: bytes) -> bytes | None:
    """Takes the padding of an RSA signature away (RFC 8017, 9.2, step 5), if it is there."""
    filler, zero, message = block[2:].partition(b"\0")
    if block[:2] != b"\0\1" or len(filler) < 8 or filler.strip(b"\xff") or not zero:
        return None
    return message


def pad_message(message: bytes, size: int) -> bytes:
    """Pads a message as it was before its encryption (RFC 8017, 7.2.1, step 2b)."""
    filler = bytes(1 + secrets.randbelow(255) for _ in range(size - 3 - len(message)))
    return b"\0\2" + filler + b"\0" + message


class TokenEcKey(EcKey):
    """A key on an elliptic curve, on a token."""

    def __init__(self, key: _KeyOnToken, public_key: ec.EllipticCurvePublicKey) -> None:
        super().__init__(public_key)
        self._public_key = public_key
        self._key = key

    async def sign_hash(self, digest: bytes) -> bytes:
        """See `EcKey.sign_hash`."""
        digest = self.padded_hash(digest)
        raw = await self._key.sign("CKM_ECDSA", digest, 2 * self.field_size)
        # 2.40, 2.3.1: r and s, each as long as the other.
        half = len(raw) // 2
        signature = encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))
        try:
            self._public_key.verify(signature, digest, self.signature_algorithm())
        except InvalidSignature as error:
            raise self._key.wrong_result() from error
        return signature

    async def agree(self, point: bytes) -> bytes:
        """See `EcKey.agree`."""
        self.peer(point)
        return await self._key.derive(point, self.field_size)


class TokenEd25519Key(Ed25519Key):
    """An Ed25519 key on a token."""

    def __init__(self, key: _KeyOnToken, public_key: ed25519.Ed25519PublicKey) -> None:
        super().__init__(public_key)
        self._public_key = public_key
        self._key = key

    async def sign_message(self, message: bytes) -> bytes:
        """See `Ed25519Key.sign_message`."""
        signature = await self._key.sign("CKM_EDDSA", message, 64)
        try:
            self._public_key.verify(signature, message)
        except InvalidSignature as error:
            raise self._key.wrong_result() from error
        return signature


class TokenX25519Key(X25519Key):
    """An X25519 key on a token."""

    def __init__(self, key: _KeyOnToken, public_key: x25519.X25519PublicKey) -> None:
        super().__init__(public_key)
        self._key = key

    async def agree(self, public: bytes) -> bytes:
        """See `X25519Key.agree`."""
        self.peer(public)
        return await self._key.derive(public, 32)
