# SPDX-License-Identifier: Apache-2.0
"""The keys of a CAC, and what tells its chip from others."""

import gzip
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from ccidd.keys.key import Credential, PrivateKey

_MAX_PLAIN_SIZE: Final = 1856
"""Bytes of a certificate that is stored as it is (SP 800-73-4, part 1, table 10)."""

MAX_CERTIFICATE_SIZE: Final = 0xFFFF - 1
"""Bytes of a certificate, as it is stored, that a V-buffer holds beside CertInfo."""


@dataclass(frozen=True, slots=True)
class PkiCredential:
    """What a PKI applet has.

    Attributes:
        key: the private key.
        certificate: its certificate in DER, perhaps compressed.
        compressed: whether it is, by gzip.
    """

    key: PrivateKey
    certificate: bytes
    compressed: bool = False

    @classmethod
    def of(cls, credential: Credential) -> Self:
        """Gives a key with its certificate, which is compressed if it is large."""
        der = credential.certificate_der()
        if len(der) <= _MAX_PLAIN_SIZE:
            return cls(credential.key, der)
        return cls(credential.key, gzip.compress(der, mtime=0), compressed=True)


PkiCredentials: TypeAlias = Callable[[], Sequence[PkiCredential]]
"""Gives what the PKI applets have, by their numbers.

It is asked again for each command, as the keys of a card may change; `MAX_PKI_APPLETS` at most.
"""

_IC_FABRICATOR: Final = bytes.fromhex("0005")
_IC_TYPE: Final = bytes.fromhex("0045")
_PERSONALISATION_EQUIPMENT: Final = bytes.fromhex("000929BB")

_SERIAL_NUMBER_SIZE: Final = 4
_BATCH_SIZE: Final = 2


@dataclass(frozen=True, slots=True)
class ChipIdentity:
    """What tells one card from another: clients cache by it.

    Attributes:
        serial_number: the serial number of the chip, 4 bytes.
        batch: the batch that the chip is from, 2 bytes.
    """

    serial_number: bytes
    batch: bytes

    @classmethod
    def of(cls, name: bytes) -> "ChipIdentity":
        """Gives the identity that follows from any bytes which no other card has."""
        digest = hashlib.sha256(name).digest()
        end = _SERIAL_NUMBER_SIZE + _BATCH_SIZE
        return cls(digest[:_SERIAL_NUMBER_SIZE], digest[_SERIAL_NUMBER_SIZE:end])

    def card_identifier(self) -> bytes:
        """Gives the card's part of the identifier in the CCC, 14 bytes."""
        return b"".join(
            (
                _IC_FABRICATOR,
                _IC_TYPE,
                self.batch,
                self.serial_number,
                _PERSONALISATION_EQUIPMENT,
            )
        )

    def production_life_cycle(self) -> bytes:
        """Gives the card production life cycle data, 42 bytes, as cards in use have it."""
        return b"".join(
            (
                _IC_FABRICATOR,
                _IC_TYPE,
                bytes.fromhex("D001 4021 0101"),  # operating system: identifier, date, level
                bytes.fromhex("074F"),  # date of the chip's fabrication
                self.serial_number,
                self.batch,
                bytes.fromhex("4792 7205"),  # module fabricator, date of packaging
                bytes.fromhex("1673 7205"),  # card manufacturer, date of embedding
                bytes.fromhex("1674 7205"),  # pre-personaliser, date
                bytes.fromhex("00000A40"),  # pre-personalisation equipment
                bytes.fromhex("0000 0000"),  # personaliser, date
                _PERSONALISATION_EQUIPMENT,
            )
        )
