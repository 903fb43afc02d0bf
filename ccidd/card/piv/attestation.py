# SPDX-License-Identifier: Apache-2.0
"""Attestation: a certificate in which the card says that it has made a key itself.

Its form is Yubico's ("PIV attestation"): signed with the key F9, and with extensions that tell the
card's version and serial number and the key's PIN and touch policy.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.x509.oid import NameOID

from ccid_protocol import tlv
from ccidd.card.piv.slots import Slot
from ccidd.keys.generated import certificate_builder, signature_hash
from ccidd.keys.local import LocalPrivateKey

_EXTENSIONS: Final = "1.3.6.1.4.1.41482.3"
_FIRMWARE_VERSION: Final = x509.ObjectIdentifier(f"{_EXTENSIONS}.3")
_SERIAL_NUMBER: Final = x509.ObjectIdentifier(f"{_EXTENSIONS}.7")
_POLICY: Final = x509.ObjectIdentifier(f"{_EXTENSIONS}.8")

TOUCH_NEVER: Final = 1
"""The touch policy of every key."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs attestations: the key F9, and its certificate."""

    key: LocalPrivateKey
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class Statement:
    """What is attested.

    Attributes:
        reference: the key's reference.
        slot: the key.
        version: the card's version, 3 bytes.
        serial_number: the card's serial number.
    """

    reference: int
    slot: Slot
    version: bytes
    serial_number: int


def attestation(issuer: Issuer, statement: Statement) -> x509.Certificate:
    """Makes the attestation of a key; blocks for as long as a signature takes.

    Raises:
        ValueError: The issuer's key is one that cannot sign.
    """
    if isinstance(issuer.key, x25519.X25519PrivateKey):
        raise ValueError("X25519 keys cannot sign")  # noqa: TRY004 (its type is right)
    number = statement.serial_number
    extensions = {
        _FIRMWARE_VERSION: statement.version,
        _SERIAL_NUMBER: tlv.encode(0x02, number.to_bytes(number.bit_length() // 8 + 1)),
        _POLICY: bytes([statement.slot.pin_policy, TOUCH_NEVER]),
    }
    common_name = f"ccidd PIV attestation {statement.reference:02x}"
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer.certificate.subject)
        .public_key(statement.slot.key.public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(issuer.certificate.not_valid_before_utc)
        .not_valid_after(issuer.certificate.not_valid_after_utc)
    )
    for oid, value in extensions.items():
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return builder.sign(issuer.key, signature_hash(issuer.key))


def issuer_certificate(key: LocalPrivateKey, name: str, days: int = 3650) -> x509.Certificate:
    """Makes the self-signed certificate of a key that signs attestations."""
    assert not isinstance(key, x25519.X25519PrivateKey)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        certificate_builder(key.public_key(), subject, subject, dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, signature_hash(key))
    )
