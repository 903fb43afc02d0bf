# SPDX-License-Identifier: Apache-2.0
"""What a card can do with a private key, wherever the key lives.

The operations are those of a smart card's chip: RSA on a whole block (the host pads), ECDSA on a
hash, Ed25519 on a message, and elliptic-curve Diffie-Hellman. They take long, so they are
asynchronous: a store runs them where they hold up nobody else. Each may be cancelled, and the
caller then does not wait for what is still being computed.
"""

import enum
from abc import ABC, abstractmethod
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ccidd.errors import UserError

PublicKey: TypeAlias = (
    rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | x25519.X25519PublicKey
)


class KeyAlgorithm(enum.Enum):
    """The kinds of keys that cards here can have.

    RSA-1024 is for old systems; whether a card takes it is the card's matter.
    """

    RSA_1024 = "RSA-1024"
    RSA_2048 = "RSA-2048"
    RSA_3072 = "RSA-3072"
    RSA_4096 = "RSA-4096"
    P_256 = "P-256"
    P_384 = "P-384"
    ED25519 = "Ed25519"
    X25519 = "X25519"


_RSA_SIZES: Final = {
    1024: KeyAlgorithm.RSA_1024,
    2048: KeyAlgorithm.RSA_2048,
    3072: KeyAlgorithm.RSA_3072,
    4096: KeyAlgorithm.RSA_4096,
}
_HASH_OF_FIELD_SIZE: Final[dict[int, hashes.HashAlgorithm]] = {
    32: hashes.SHA256(),
    48: hashes.SHA384(),
}
_CURVES: Final = {"secp256r1": KeyAlgorithm.P_256, "secp384r1": KeyAlgorithm.P_384}


def algorithm_of(key: object) -> KeyAlgorithm:
    """Tells the algorithm of a public key, of any kind that `cryptography` knows.

    Raises:
        UserError: Cards here cannot have such a key.
    """
    supported = ", ".join(algorithm.value for algorithm in KeyAlgorithm)
    match key:
        case rsa.RSAPublicKey(key_size=size) if size in _RSA_SIZES:
            return _RSA_SIZES[size]
        case rsa.RSAPublicKey(key_size=size):
            raise UserError(f"an RSA key of {size} bits is not supported; use one of {supported}")
        case ec.EllipticCurvePublicKey(curve=curve) if curve.name in _CURVES:
            return _CURVES[curve.name]
        case ec.EllipticCurvePublicKey(curve=curve):
            raise UserError(f"the curve {curve.name} is not supported; use one of {supported}")
        case ed25519.Ed25519PublicKey():
            return KeyAlgorithm.ED25519
        case x25519.X25519PublicKey():
            return KeyAlgorithm.X25519
        case _:
            raise UserError(f"a {type(key).__name__} is not supported; use one of {supported}")


class InvalidInputError(Exception):
    """A key operation was given a block, hash or point that it cannot be done with."""


class KeyUnavailableError(Exception):
    """A key cannot be used now: its token is gone, not logged in, or failing.

    The text names no secret and is meant for the log.
    """


class LoginNeededError(KeyUnavailableError):
    """A key cannot be used before its token is logged in."""


class PrivateKey(ABC):  # noqa: B024 (its kinds have nothing else in common)
    """A private key, and its public half."""

    def __init__(self, public_key: PublicKey) -> None:
        self.public_key: Final = public_key
        self.algorithm: Final = algorithm_of(public_key)

    def subject_public_key_info(self) -> bytes:
        """The public key in DER (RFC 5280, 4.1.2.7): what tells one key from another."""
        return self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class RsaKey(PrivateKey):
    """An RSA private key."""

    @abstractmethod
    async def decrypt_block(self, block: bytes) -> bytes:
        """Raises a block to the private exponent (RFC 8017, 5.1.2 and 5.2.1), with no padding.

        Args:
            block: as many bytes as the modulus has, big-endian, and below the modulus.

        Returns:
            As many bytes, big-endian.

        Raises:
            InvalidInputError: The block has another length, or is not below the modulus.
            KeyUnavailableError: The token that has the key does not do it.
        """

    def check_block(self, block: bytes) -> int:
        """Gives a block as the number that it is.

        Raises:
            InvalidInputError: The block has another length, or is not below the modulus.
        """
        assert isinstance(self.public_key, rsa.RSAPublicKey)
        size = self.public_key.key_size // 8
        if len(block) != size:
            raise InvalidInputError(f"a block of {len(block)} bytes for a key of {size}")
        number = int.from_bytes(block)
        if number >= self.public_key.public_numbers().n:
            raise InvalidInputError("a block that is not below the modulus")
        return number


class EcKey(PrivateKey):
    """A private key on an elliptic curve."""

    def __init__(self, public_key: ec.EllipticCurvePublicKey) -> None:
        super().__init__(public_key)
        self._curve: Final = public_key.curve
        self.field_size: Final = public_key.key_size // 8
        """Bytes of a coordinate, and of the longest hash."""

    @abstractmethod
    async def sign_hash(self, digest: bytes) -> bytes:
        """Signs a hash with ECDSA.

        Args:
            digest: the hash, at most as long as the curve's field (32 bytes for P-256, 48 for
                P-384); a shorter one counts as the number that it is.

        Returns:
            ECDSA-Sig-Value in DER (RFC 3279, 2.2.3).

        Raises:
            InvalidInputError: The hash is empty or too long.
            KeyUnavailableError: The token that has the key does not do it.
        """

    @abstractmethod
    async def agree(self, point: bytes) -> bytes:
        """Agrees on a secret with ECDH (NIST SP 800-56A, 5.7.1.2).

        Args:
            point: the other party's public key, uncompressed (04, X, Y; SEC 1, 2.3.3).

        Returns:
            The X coordinate of the shared point, as long as the field.

        Raises:
            InvalidInputError: This is no point of the curve.
            KeyUnavailableError: The token that has the key does not do it.
        """

    def padded_hash(self, digest: bytes) -> bytes:
        """Gives a hash as long as the field.

        Raises:
            InvalidInputError: The hash is empty or too long.
        """
        if not 1 <= len(digest) <= self.field_size:
            raise InvalidInputError(f"a hash of {len(digest)} bytes for a key of {self.field_size}")
        return digest.rjust(self.field_size, b"\0")

    def signature_algorithm(self) -> ec.ECDSA:
        """ECDSA for a `padded_hash`: whatever it was made with, to sign it is a number."""
        return ec.ECDSA(Prehashed(_HASH_OF_FIELD_SIZE[self.field_size]))

    def peer(self, point: bytes) -> ec.EllipticCurvePublicKey:
        """Gives the other party's public key, given as for `agree`.

        Raises:
            InvalidInputError: This is no point of the curve.
        """
        if len(point) != 1 + 2 * self.field_size:
            raise InvalidInputError(f"a point of {len(point)} bytes")
        try:
            return ec.EllipticCurvePublicKey.from_encoded_point(self._curve, point)
        except ValueError as error:
            raise InvalidInputError("bytes that are no point of the curve") from error


class Ed25519Key(PrivateKey):
    """A private key for Ed25519 signatures (RFC 8032)."""

    @abstractmethod
    async def sign_message(self, message: bytes) -> bytes:
        """Signs a whole message with PureEdDSA (RFC 8032, 5.1.6): it is not hashed before.

        Returns:
            64 bytes.

        Raises:
            InvalidInputError: The message is more than the key's store takes.
            KeyUnavailableError: The token that has the key does not do it.
        """


class X25519Key(PrivateKey):
    """A private key for key agreement with X25519 (RFC 7748)."""

    @abstractmethod
    async def agree(self, public: bytes) -> bytes:
        """Agrees on a secret (RFC 7748, 6.1).

        Args:
            public: the other party's public key, 32 bytes, little-endian.

        Returns:
            The shared secret, 32 bytes, little-endian.

        Raises:
            InvalidInputError: The public key has another length, or gives the secret 0.
            KeyUnavailableError: The token that has the key does not do it.
        """

    @staticmethod
    def peer(public: bytes) -> x25519.X25519PublicKey:
        """Gives the other party's public key, given as for `agree`.

        Raises:
            InvalidInputError: It has another length, or gives the secret 0.
        """
        if len(public) != 32:
            raise InvalidInputError(f"an X25519 public key of {len(public)} bytes")
        peer = x25519.X25519PublicKey.from_public_bytes(public)
        try:
            # RFC 7748, 6.1: a point of small order gives 0 with every private key.
            x25519.X25519PrivateKey.generate().exchange(peer)
        except ValueError as error:
            raise InvalidInputError("a public key that gives the secret 0") from error
        return peer


class Credential:
    """A private key and the certificate for it.

    Args:
        key: the private key.
        certificate: an X.509 certificate for the key's public half.

    Raises:
        UserError: The two do not belong together.
    """

    def __init__(self, key: PrivateKey, certificate: x509.Certificate) -> None:
        if key.public_key != certificate.public_key():
            subject = certificate.subject.rfc4514_string()
            raise UserError(f"the certificate of {subject!r} is not for this private key")
        self.key: Final = key
        self.certificate: Final = certificate

    def certificate_der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(Encoding.DER)
