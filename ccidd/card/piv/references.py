# SPDX-License-Identifier: Apache-2.0
"""Names and numbers of the PIV card application.

Source: NIST SP 800-73-4, part 1, table 4b (key references) and part 1, table 3 (data objects);
NIST SP 800-78-4, table 6-2 (algorithm identifiers), with RSA-3072 from SP 800-78-5 and RSA-4096 as
Yubico and OpenSC number it.
"""

import enum
from typing import Final

from ccidd.keys.key import KeyAlgorithm

RID: Final = bytes.fromhex("A000000308")
"""NIST's registered application provider identifier."""

PIX: Final = bytes.fromhex("000010000100")
"""The application's identifier extension, with version 1.0 in its last two bytes."""

AID: Final = RID + PIX


class PinReference(enum.IntEnum):
    """Key references of VERIFY."""

    GLOBAL_PIN = 0x00
    APPLICATION_PIN = 0x80


class PinPolicy(enum.Enum):
    """When the PIN must have been verified for a key's use."""

    NEVER = "never"
    ONCE = "once"
    ALWAYS = "always"


class KeyReference(enum.IntEnum):
    """The asymmetric keys of a card."""

    AUTHENTICATION = 0x9A
    SIGNATURE = 0x9C
    KEY_MANAGEMENT = 0x9D
    CARD_AUTHENTICATION = 0x9E

    @property
    def pin_policy(self) -> PinPolicy:
        """The key's security condition for use."""
        return _PIN_POLICIES[self]

    @property
    def certificate_tag(self) -> int:
        """The tag of the data object that holds the key's certificate."""
        return _CERTIFICATE_TAGS[self]


MANAGEMENT_KEY: Final = 0x9B
"""The key reference of the PIV card application administration key."""

MANAGEMENT_ALGORITHMS: Final = {0x00: 8, 0x03: 8, 0x08: 16, 0x0A: 16, 0x0C: 16}
"""Block sizes in bytes of the algorithms for that key: 3DES (twice), AES-128, -192 and -256."""


_PIN_POLICIES: Final = {
    KeyReference.AUTHENTICATION: PinPolicy.ONCE,
    KeyReference.SIGNATURE: PinPolicy.ALWAYS,
    KeyReference.KEY_MANAGEMENT: PinPolicy.ONCE,
    KeyReference.CARD_AUTHENTICATION: PinPolicy.NEVER,
}
_CERTIFICATE_TAGS: Final = {
    KeyReference.AUTHENTICATION: 0x5FC105,
    KeyReference.SIGNATURE: 0x5FC10A,
    KeyReference.KEY_MANAGEMENT: 0x5FC10B,
    KeyReference.CARD_AUTHENTICATION: 0x5FC101,
}


class ObjectTag(enum.IntEnum):
    """Data objects other than certificates."""

    DISCOVERY = 0x7E
    CHUID = 0x5FC102
    CARD_CAPABILITY_CONTAINER = 0x5FC107


ALGORITHM_IDENTIFIERS: Final = {
    KeyAlgorithm.RSA_2048: 0x07,
    KeyAlgorithm.RSA_3072: 0x05,
    KeyAlgorithm.RSA_4096: 0x16,
    KeyAlgorithm.P_256: 0x11,
    KeyAlgorithm.P_384: 0x14,
}
