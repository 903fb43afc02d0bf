# SPDX-License-Identifier: Apache-2.0
"""Names of what an OpenPGP card has.

Source: Functional Specification of the OpenPGP application on ISO Smart Card Operating Systems,
version 3.4, 4.4 (data objects) and chapter 7 (commands).
"""

from typing import Final

from ccid_protocol.apdu import CommandAPDU
from ccidd.card.guard.operations import Judgement

_OBJECTS: Final = {
    0x4F: "application identifier",
    0x5B: "name",
    0x5E: "login data",
    0x5F2D: "language preferences",
    0x5F35: "salutation",
    0x5F50: "URL",
    0x5F52: "historical bytes",
    0x65: "cardholder related data",
    0x6E: "application related data",
    0x73: "discretionary data objects",
    0x7A: "security support template",
    0x7F21: "cardholder certificate",
    0x7F66: "extended length information",
    0x7F74: "general feature management",
    0x93: "signature counter",
    0xC0: "extended capabilities",
    0xC1: "algorithm attributes of the signature key",
    0xC2: "algorithm attributes of the decryption key",
    0xC3: "algorithm attributes of the authentication key",
    0xC4: "PW status bytes",
    0xC5: "fingerprints",
    0xC6: "CA fingerprints",
    0xC7: "fingerprint of the signature key",
    0xC8: "fingerprint of the decryption key",
    0xC9: "fingerprint of the authentication key",
    0xCD: "generation times",
    0xCE: "generation time of the signature key",
    0xCF: "generation time of the decryption key",
    0xD0: "generation time of the authentication key",
    0xD3: "resetting code",
    0xD5: "AES key",
    0xD6: "user interaction flag of the signature key",
    0xD7: "user interaction flag of the decryption key",
    0xD8: "user interaction flag of the authentication key",
    0xDE: "key information",
    0xF9: "KDF",
    0xFA: "algorithm information",
    **{0x0100 + i: f"private use {i}" for i in range(1, 5)},
}

_PASSWORDS: Final = {0x81: "PW1", 0x82: "PW1 for other commands", 0x83: "PW3"}

# A control reference template begins the data that say which key is meant.
_KEYS: Final = {0xB6: "signature key", 0xB8: "decryption key", 0xA4: "authentication key"}


def target(command: CommandAPDU, judgement: Judgement) -> str | None:
    """Says what a command of the application is about; None if nothing is known of it."""
    match command.ins:
        case 0x20 | 0x24 | 0x2C:
            reference = f"{command.p2:02X}"
            name = _PASSWORDS.get(command.p2)
            return f"{reference} ({name})" if name else reference
        case 0xCA | 0xCC | 0xDA:
            tag = command.p1 << 8 | command.p2
            name = _OBJECTS.get(tag)
            number = f"{tag:04X}" if command.p1 else f"{tag:02X}"
            return f"{number} ({name})" if name else number
        case 0x47:
            return _KEYS.get(command.data[0], "?") if command.data else "?"
        case 0x2A | 0x88:
            return f"{judgement.reference} ({judgement.key} key)" if judgement.key else None
    return None
