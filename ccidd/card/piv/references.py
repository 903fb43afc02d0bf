# SPDX-License-Identifier: Apache-2.0
"""Names and numbers of the PIV card application.

Source: NIST SP 800-73-4, part 1, tables 3 (data objects), 4a and 4b (key references); NIST
SP 800-78-4, table 6-2 (algorithm identifiers), with RSA-3072 from SP 800-78-5, and RSA-4096,
Ed25519 and X25519 as Yubico and OpenSC number them.
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
    """Key references of PINs, and of the key that unblocks them."""

    GLOBAL_PIN = 0x00
    APPLICATION_PIN = 0x80
    PUK = 0x81


class PinPolicy(enum.IntEnum):
    """When the PIN must have been verified for a key's use, with the numbers of the extensions."""

    NEVER = 1
    ONCE = 2
    ALWAYS = 3


class Origin(enum.IntEnum):
    """Where a key came from, with the numbers of the extensions."""

    GENERATED = 1
    IMPORTED = 2


class KeyReference(enum.IntEnum):
    """The asymmetric keys of a card."""

    AUTHENTICATION = 0x9A
    SIGNATURE = 0x9C
    KEY_MANAGEMENT = 0x9D
    CARD_AUTHENTICATION = 0x9E
    RETIRED_1 = 0x82
    RETIRED_2 = 0x83
    RETIRED_3 = 0x84
    RETIRED_4 = 0x85
    RETIRED_5 = 0x86
    RETIRED_6 = 0x87
    RETIRED_7 = 0x88
    RETIRED_8 = 0x89
    RETIRED_9 = 0x8A
    RETIRED_10 = 0x8B
    RETIRED_11 = 0x8C
    RETIRED_12 = 0x8D
    RETIRED_13 = 0x8E
    RETIRED_14 = 0x8F
    RETIRED_15 = 0x90
    RETIRED_16 = 0x91
    RETIRED_17 = 0x92
    RETIRED_18 = 0x93
    RETIRED_19 = 0x94
    RETIRED_20 = 0x95

    @property
    def pin_policy(self) -> PinPolicy:
        """The key's security condition for use, where the key has none of its own."""
        return default_pin_policy(self)

    @property
    def certificate_tag(self) -> int:
        """The tag of the data object that holds the key's certificate."""
        return certificate_tag(self)


RETIRED_KEYS: Final = tuple(reference for reference in KeyReference if reference <= 0x95)
"""The retired key management keys, in the order of their references."""

MANAGEMENT_KEY: Final = 0x9B
"""The key reference of the PIV card application administration key."""

ATTESTATION_KEY: Final = 0xF9
"""The key reference of the key that signs attestations: one of the extensions."""


_PIN_POLICIES: Final[dict[int, PinPolicy]] = {
    KeyReference.SIGNATURE: PinPolicy.ALWAYS,
    KeyReference.CARD_AUTHENTICATION: PinPolicy.NEVER,
}
_CERTIFICATE_TAGS: Final[dict[int, int]] = {
    KeyReference.AUTHENTICATION: 0x5FC105,
    KeyReference.SIGNATURE: 0x5FC10A,
    KeyReference.KEY_MANAGEMENT: 0x5FC10B,
    KeyReference.CARD_AUTHENTICATION: 0x5FC101,
    **{reference: 0x5FC10D + i for i, reference in enumerate(RETIRED_KEYS)},
    ATTESTATION_KEY: 0x5FFF01,
}


def default_pin_policy(reference: int) -> PinPolicy:
    """Gives the security condition for use of a key (SP 800-73-4, part 1, table 4b)."""
    return _PIN_POLICIES.get(reference, PinPolicy.ONCE)


def certificate_tag(reference: int) -> int:
    """Gives the tag of the data object that holds a key's certificate."""
    return _CERTIFICATE_TAGS[reference]


class ObjectTag(enum.IntEnum):
    """Data objects other than certificates."""

    DISCOVERY = 0x7E
    BIOMETRIC_INFORMATION = 0x7F61
    CHUID = 0x5FC102
    FINGERPRINTS = 0x5FC103
    SECURITY_OBJECT = 0x5FC106
    CARD_CAPABILITY_CONTAINER = 0x5FC107
    FACIAL_IMAGE = 0x5FC108
    PRINTED_INFORMATION = 0x5FC109
    KEY_HISTORY = 0x5FC10C
    IRIS_IMAGES = 0x5FC121
    SECURE_MESSAGING_SIGNER = 0x5FC122
    PAIRING_CODE = 0x5FC123


ALGORITHM_IDENTIFIERS: Final = {
    KeyAlgorithm.RSA_1024: 0x06,
    KeyAlgorithm.RSA_2048: 0x07,
    KeyAlgorithm.RSA_3072: 0x05,
    KeyAlgorithm.RSA_4096: 0x16,
    KeyAlgorithm.P_256: 0x11,
    KeyAlgorithm.P_384: 0x14,
    KeyAlgorithm.ED25519: 0xE0,
    KeyAlgorithm.X25519: 0xE1,
}

ALGORITHMS: Final = {
    identifier: algorithm for algorithm, identifier in ALGORITHM_IDENTIFIERS.items()
}
"""The algorithms by their identifiers."""
