# SPDX-License-Identifier: Apache-2.0
"""How one PIV card differs from others by its configuration."""

import uuid
from dataclasses import dataclass

from ccidd.card.piv.references import ALGORITHM_IDENTIFIERS
from ccidd.keys.key import KeyAlgorithm


@dataclass(frozen=True, slots=True)
class PivOptions:
    """The options of a card.

    Attributes:
        vendor_extensions: whether it has the instructions beyond the standard (`extensions`), and
            with them keys whose PIN rule is chosen when they are made, retired keys that are
            generated, key agreement with any key, and further data objects.
        legacy_rsa: whether it takes RSA keys of 1024 bits.
        guid: its GUID, unless its memory has one; by default it follows from its keys.
    """

    vendor_extensions: bool = False
    legacy_rsa: bool = False
    guid: uuid.UUID | None = None

    def takes(self, algorithm: KeyAlgorithm) -> bool:
        """Tells whether the card can have keys of an algorithm."""
        return self.legacy_rsa or algorithm is not KeyAlgorithm.RSA_1024

    def algorithm_identifiers(self) -> list[int]:
        """Gives the identifiers of the algorithms that the card can have keys of."""
        return [
            number for algorithm, number in ALGORITHM_IDENTIFIERS.items() if self.takes(algorithm)
        ]
