# SPDX-License-Identifier: Apache-2.0
"""Signatures of the card's issuer: CMS SignedData with one ECDSA signer.

Source: RFC 5652, section 5 (SignedData) and 11 (attributes); RFC 5754, 3.2 (ECDSA with SHA-2).
DER is BER-TLV with the shortest lengths, so the data objects of cards serve to write it.
"""

import hashlib
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ccid_protocol import tlv
from ccidd.card.piv.records import ContentSigner

# Object identifiers in DER.
_SIGNED_DATA: Final = bytes.fromhex("06092A864886F70D010702")
_CONTENT_TYPE: Final = bytes.fromhex("06092A864886F70D010903")
_MESSAGE_DIGEST: Final = bytes.fromhex("06092A864886F70D010904")
_SHA_256: Final = bytes.fromhex("0609608648016503040201")
_ECDSA_WITH_SHA_256: Final = bytes.fromhex("06082A8648CE3D040302")

PIV_CHUID_SECURITY_OBJECT: Final = bytes.fromhex("06086086480165030601")
"""id-PIV-CHUIDSecurityObject, 2.16.840.1.101.3.6.1 (FIPS 201-3, table B-1)."""

LDS_SECURITY_OBJECT: Final = bytes.fromhex("06052B1B010101")
"""id-icao-ldsSecurityObject, 1.3.27.1.1.1: the number that PIV has for it (SP 800-85B, AS06.04.06),
not the 2.23.136.1.1.1 of today's passports."""

_PIV_SIGNER_DN: Final = bytes.fromhex("06086086480165030605")
"""pivSigner-DN, 2.16.840.1.101.3.6.5 (FIPS 201-3, table B-2)."""

_VERSION_1: Final = bytes.fromhex("020101")
_VERSION_3: Final = bytes.fromhex("020103")

DIGEST_ALGORITHM: Final = tlv.encode(0x30, _SHA_256)
"""AlgorithmIdentifier of SHA-256 (RFC 5754, section 2: without parameters)."""


def digest(content: bytes) -> bytes:
    """The hash of that algorithm."""
    return hashlib.sha256(content).digest()


def detached_signature(signer: ContentSigner, content_type: bytes, content: bytes) -> bytes:
    """Signs a content that stays outside, with the signer's certificate inside.

    Args:
        signer: who signs.
        content_type: its object identifier in DER.
        content: what is signed.
    """
    certificates = tlv.encode(0xA0, signer.certificate.public_bytes(Encoding.DER))
    return _signed_data(signer, content_type, content, tlv.encode(0x30, content_type), certificates)


def enveloping_signature(signer: ContentSigner, content_type: bytes, content: bytes) -> bytes:
    """Signs a content that goes along, without the signer's certificate; see above."""
    encapsulated = tlv.encode(0x30, content_type, tlv.encode(0xA0, tlv.encode(0x04, content)))
    return _signed_data(signer, content_type, content, encapsulated, certificates=b"")


def _signed_data(
    signer: ContentSigner,
    content_type: bytes,
    content: bytes,
    encapsulated: bytes,
    certificates: bytes,
) -> bytes:
    subject = signer.certificate.subject.public_bytes()
    attributes = _set_of(
        _attribute(_CONTENT_TYPE, content_type),
        _attribute(_MESSAGE_DIGEST, tlv.encode(0x04, digest(content))),
        _attribute(_PIV_SIGNER_DN, subject),
    )
    # The same contents always have the same signature, so an object that is read twice does not
    # seem to have been written in between.
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    # RFC 5652, 5.4: signed is the encoding as a SET OF, stored is [0] IMPLICIT.
    signature = signer.key.sign(tlv.encode(0x31, attributes), algorithm)
    signer_info = tlv.encode(
        0x30,
        _VERSION_1,
        tlv.encode(0x30, signer.certificate.issuer.public_bytes(), _serial_number(signer)),
        DIGEST_ALGORITHM,
        tlv.encode(0xA0, attributes),
        tlv.encode(0x30, _ECDSA_WITH_SHA_256),
        tlv.encode(0x04, signature),
    )
    # RFC 5652, 5.1: version 3, for the content is not id-data.
    signed_data = tlv.encode(
        0x30,
        _VERSION_3,
        tlv.encode(0x31, DIGEST_ALGORITHM),
        encapsulated,
        certificates,
        tlv.encode(0x31, signer_info),
    )
    return tlv.encode(0x30, _SIGNED_DATA, tlv.encode(0xA0, signed_data))


def _attribute(attribute_type: bytes, value: bytes) -> bytes:
    return tlv.encode(0x30, attribute_type, tlv.encode(0x31, value))


def _set_of(*values: bytes) -> bytes:
    """X.690, 11.6: in the order of their encodings."""
    return b"".join(sorted(values))


def _serial_number(signer: ContentSigner) -> bytes:
    number = signer.certificate.serial_number
    return tlv.encode(0x02, number.to_bytes(number.bit_length() // 8 + 1))
