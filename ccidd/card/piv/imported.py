# SPDX-License-Identifier: Apache-2.0
"""Private keys as the import command brings them.

Source: Yubico's PIV extensions, "import asymmetric key". The numbers are big-endian, but for the
keys of RFC 8032 and RFC 7748, which are strings of bytes.
"""

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from ccidd.keys.key import KeyAlgorithm
from ccidd.keys.local import LocalPrivateKey

_PRIME_P: Final = 0x01
_PRIME_Q: Final = 0x02
_EXPONENT_P: Final = 0x03
_EXPONENT_Q: Final = 0x04
_COEFFICIENT: Final = 0x05
_SCALAR: Final = 0x06
_ED25519_SEED: Final = 0x07
_X25519_KEY: Final = 0x08

_PUBLIC_EXPONENT: Final = 65537
"""The command has no field for it, and this is what tools hold the key against."""

_RSA_SIZES: Final = {
    KeyAlgorithm.RSA_1024: 1024,
    KeyAlgorithm.RSA_2048: 2048,
    KeyAlgorithm.RSA_3072: 3072,
    KeyAlgorithm.RSA_4096: 4096,
}
_RSA_FIELDS: Final = frozenset({_PRIME_P, _PRIME_Q, _EXPONENT_P, _EXPONENT_Q, _COEFFICIENT})
_CURVES: Final = {KeyAlgorithm.P_256: ec.SECP256R1(), KeyAlgorithm.P_384: ec.SECP384R1()}


def private_key(algorithm: KeyAlgorithm, fields: dict[int, bytes]) -> LocalPrivateKey:
    """Makes a key of its numbers and checks that it is one; blocks for that long.

    Args:
        algorithm: the key's algorithm.
        fields: the data objects of the command, without the policies.

    Raises:
        ValueError: They are no key of that algorithm. The text tells nothing of the key.
    """
    if algorithm in _RSA_SIZES:
        return _rsa_key(_RSA_SIZES[algorithm], fields)
    if algorithm in _CURVES:
        scalar = _only(fields, _SCALAR)
        curve = _CURVES[algorithm]
        if len(scalar) > (curve.key_size + 7) // 8:
            raise ValueError("a scalar longer than the field")
        return ec.derive_private_key(int.from_bytes(scalar), curve)
    if algorithm is KeyAlgorithm.ED25519:
        return ed25519.Ed25519PrivateKey.from_private_bytes(_only(fields, _ED25519_SEED))
    return x25519.X25519PrivateKey.from_private_bytes(_only(fields, _X25519_KEY))


def _only(fields: dict[int, bytes], tag: int) -> bytes:
    if set(fields) != {tag}:
        raise ValueError("data objects of another algorithm")
    return fields[tag]


def _rsa_key(size: int, fields: dict[int, bytes]) -> rsa.RSAPrivateKey:
    if set(fields) != _RSA_FIELDS:
        raise ValueError("data objects of another algorithm")
    numbers = {tag: int.from_bytes(value) for tag, value in fields.items()}
    p, q = numbers[_PRIME_P], numbers[_PRIME_Q]
    if p < 2 or q < 2 or (p * q).bit_length() != size:
        raise ValueError("primes of another size")
    key = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=rsa.rsa_recover_private_exponent(_PUBLIC_EXPONENT, p, q),
        dmp1=numbers[_EXPONENT_P],
        dmq1=numbers[_EXPONENT_Q],
        iqmp=numbers[_COEFFICIENT],
        public_numbers=rsa.RSAPublicNumbers(_PUBLIC_EXPONENT, p * q),
    )
    return key.private_key()
