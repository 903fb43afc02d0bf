# SPDX-License-Identifier: Apache-2.0
"""What is kept of a PIN: a salted, slow hash (scrypt, RFC 7914), with its parameters.

A PIN of six digits is found by trying, however slow the hash; that takes hours rather than a
second. So the hash is encrypted as well, and this is what stands between a thief who has the key
too and the PIN that its holder may use elsewhere.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final

_SALT_SIZE: Final = 16
_HASH_SIZE: Final = 32

# The PHC string format, as password hashing libraries write it.
_FORMAT: Final = re.compile(
    r"\$scrypt\$ln=(?P<ln>\d+),r=(?P<r>\d+),p=(?P<p>\d+)"
    r"\$(?P<salt>[A-Za-z0-9+/]+)\$(?P<hash>[A-Za-z0-9+/]+)"
)


@dataclass(frozen=True, slots=True)
class ScryptCost:
    """What a hash costs; by default a tenth of a second and 32 MiB.

    Attributes:
        log2_n: the logarithm of the cost parameter N.
        r: the block size.
        p: the parallelisation.
    """

    log2_n: int = 15
    r: int = 8
    p: int = 1


def hash_pin(pin: bytes, cost: ScryptCost) -> bytes:
    """Hashes a PIN with a new salt.

    Returns:
        Salt, parameters and hash, as text.
    """
    salt = secrets.token_bytes(_SALT_SIZE)
    digest = _scrypt(pin, salt, cost)
    return (
        f"$scrypt$ln={cost.log2_n},r={cost.r},p={cost.p}${_to_text(salt)}${_to_text(digest)}"
    ).encode()


def is_pin(candidate: bytes, hashed: bytes) -> bool:
    """Tells whether a PIN is the one that was hashed; takes as long if it is not.

    Args:
        candidate: the PIN.
        hashed: what `hash_pin` gave.
    """
    match = _FORMAT.fullmatch(hashed.decode("ascii"))
    assert match is not None
    cost = ScryptCost(int(match["ln"]), int(match["r"]), int(match["p"]))
    digest = _scrypt(candidate, _from_text(match["salt"]), cost)
    return hmac.compare_digest(digest, _from_text(match["hash"]))


def _scrypt(pin: bytes, salt: bytes, cost: ScryptCost) -> bytes:
    n = 1 << cost.log2_n
    # OpenSSL refuses to use more than it is allowed: 128 N r, and something besides.
    memory = 128 * cost.r * (n + cost.p + 2)
    return hashlib.scrypt(pin, salt=salt, n=n, r=cost.r, p=cost.p, maxmem=memory, dklen=_HASH_SIZE)


def _to_text(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _from_text(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))
