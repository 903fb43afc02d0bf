# SPDX-License-Identifier: Apache-2.0
"""PINs, PUKs and administration keys as people write them, and as they are on the wire.

Source: NIST SP 800-73-4, part 2, 2.4.3. CAC has the same.
"""

import re
import secrets
from collections.abc import Mapping
from typing import Final

from ccidd.card.piv.management_key import ManagementAlgorithm, ManagementKey
from ccidd.errors import UserError

_WIRE_SIZE: Final = 8
_PADDING: Final = b"\xff"
_PIN: Final = re.compile(rb"[0-9]{6,8}")
_PUK: Final = re.compile(rb"[\x21-\x7e]{8}")

MANAGEMENT_ALGORITHMS: Final[Mapping[str, ManagementAlgorithm]] = {
    "3DES": ManagementAlgorithm.TDES,
    "AES-128": ManagementAlgorithm.AES_128,
    "AES-192": ManagementAlgorithm.AES_192,
    "AES-256": ManagementAlgorithm.AES_256,
}
"""The algorithms of administration keys, by their names."""


def random_pin() -> str:
    """Makes a PIN of six digits."""
    return _random_digits(6)


def random_puk() -> str:
    """Makes a PUK of eight digits."""
    return _random_digits(8)


def _random_digits(count: int) -> str:
    return f"{secrets.randbelow(10**count):0{count}d}"


def pin_on_wire(pin: bytes, where: object) -> bytes:
    """Gives a PIN as cards are sent it: filled up with FF to eight bytes.

    Args:
        pin: the digits.
        where: what they come from.

    Raises:
        UserError: It is no PIN.
    """
    if not _PIN.fullmatch(pin):
        raise UserError(f"{where}: a PIN has 6 to 8 digits and nothing else")
    return pin.ljust(_WIRE_SIZE, _PADDING)


def puk_on_wire(puk: bytes, where: object) -> bytes:
    """Gives a PUK as cards are sent it.

    Raises:
        UserError: It is no PUK.
    """
    if not _PUK.fullmatch(puk):
        raise UserError(f"{where}: a PUK has 8 letters, digits or signs of ASCII")
    return puk


def parse_management_key(text: bytes, algorithm: ManagementAlgorithm) -> ManagementKey:
    """Reads an administration key, in hexadecimal digits.

    Raises:
        UserError: It is none for the algorithm.
    """
    try:
        return ManagementKey(algorithm, bytes.fromhex(text.decode("ascii")))
    except ValueError as error:
        name = next(name for name, each in MANAGEMENT_ALGORITHMS.items() if each is algorithm)
        raise UserError(
            f"an administration key for {name} has {2 * algorithm.key_size} hexadecimal digits, and"
            " nothing else; --management-key-algorithm chooses another algorithm"
        ) from error
