# SPDX-License-Identifier: Apache-2.0
"""The contents of the PIV data objects that follow from what else is on the card.

Source: NIST SP 800-73-4, part 1, section 3 and appendix A.
"""

import gzip
import hashlib
import uuid
import zlib
from collections.abc import Callable, Collection
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ccid_protocol import tlv
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.piv.references import AID, ObjectTag
from ccidd.keys.key import Credential

# The FASC-N of an organisation outside the US government (SP 800-73-4, part 1, 3.1.2): agency,
# system and credential all nines, credential series 0, issue 1, person 0, category 3. Its start
# tells clients to take the GUID for the card's serial number.
_FASC_N: Final = bytes.fromhex("D4E739DA739CED39CE739D836858210842108421C84210C3EB")

# RFC 4122, 4.3: GUIDs made here from the names of keys.
_GUID_NAMESPACE: Final = uuid.UUID("b0ed6cf9-0a1c-4a3c-9d3b-9f6f8f0c7a51")

# GSC-IS 2.1, 6.3.1: GSC-RID, manufacturer FF, card type 02 (Java card).
_CARD_IDENTIFIER_START: Final = bytes.fromhex("A000000116FF02")

_MAX_CERTIFICATE_SIZE: Final = 1856
"""Bytes that a certificate container holds (part 1, table 10); a larger one is compressed."""

_MAX_DECOMPRESSED_SIZE: Final = 1 << 16
_GZIP: Final = zlib.MAX_WBITS | 16

ERROR_DETECTION_CODE: Final = tlv.encode(0xFE)


def guid_of(credentials: Collection[Credential]) -> uuid.UUID:
    """Gives a card's GUID: the same for the same keys, another for any other."""
    digest = hashlib.sha256()
    for credential in credentials:
        digest.update(credential.key.subject_public_key_info())
    return uuid.uuid5(_GUID_NAMESPACE, digest.hexdigest())


def discovery_object() -> bytes:
    """The discovery object: AID, and a PIN usage policy of the application PIN alone (3.3.2)."""
    return tlv.encode(
        ObjectTag.DISCOVERY, tlv.encode(0x4F, AID), tlv.encode(0x5F2F, bytes.fromhex("4000"))
    )


def chuid(guid: uuid.UUID, expires: str, sign: Callable[[bytes], bytes] | None) -> bytes:
    """The card holder unique identifier (table 9).

    Args:
        guid: the card's GUID.
        expires: its last day, YYYYMMDD.
        sign: gives the issuer's signature of the contents that are not the signature
            (FIPS 201-3, table B-1); None leaves it empty.
    """
    fields = b"".join(
        (
            tlv.encode(0x30, _FASC_N),
            tlv.encode(0x34, guid.bytes),
            tlv.encode(0x35, expires.encode()),
        )
    )
    signature = sign(fields + ERROR_DETECTION_CODE) if sign else b""
    return fields + tlv.encode(0x3E, signature) + ERROR_DETECTION_CODE


def card_capability_container(guid: uuid.UUID) -> bytes:
    """The card capability container (table 8), which says: read the data objects of PIV."""
    return b"".join(
        (
            tlv.encode(0xF0, _CARD_IDENTIFIER_START, guid.bytes[:14]),
            tlv.encode(0xF1, b"\x21"),
            tlv.encode(0xF2, b"\x21"),
            tlv.encode(0xF3),
            tlv.encode(0xF4, b"\x00"),
            tlv.encode(0xF5, b"\x10"),
            *(tlv.encode(tag) for tag in (0xF6, 0xF7, 0xFA, 0xFB, 0xFC, 0xFD)),
            ERROR_DETECTION_CODE,
        )
    )


def certificate_container(certificate: x509.Certificate) -> bytes:
    """A certificate (table 10); CertInfo 01 says that it is gzipped."""
    der = certificate.public_bytes(Encoding.DER)
    compressed = len(der) > _MAX_CERTIFICATE_SIZE
    if compressed:
        der = gzip.compress(der, mtime=0)
    return b"".join(
        (tlv.encode(0x70, der), tlv.encode(0x71, bytes([compressed])), ERROR_DETECTION_CODE)
    )


def certificate_in(container: bytes) -> x509.Certificate:
    """Reads what `certificate_container` gives.

    Raises:
        ValueError: There is no certificate in it.
    """
    try:
        fields = tlv.decode_to_dict(container)
        der = fields.get(0x70, b"")
        if fields.get(0x71) == b"\x01":
            # What the host has put may be small and tell much.
            der = zlib.decompressobj(_GZIP).decompress(der, _MAX_DECOMPRESSED_SIZE)
    except (RemoteProtocolError, zlib.error) as error:
        raise ValueError("no certificate container") from error
    return x509.load_der_x509_certificate(der)


def key_history(keys_with_certificates: int) -> bytes:
    """The key history object (table 19), for a card whose certificates are all on it.

    A retired key without a certificate on the card is not counted among those with off-card
    certificates: that number asks for a URL, and nobody has given one.
    """
    return b"".join(
        (
            tlv.encode(0xC1, bytes([keys_with_certificates])),
            tlv.encode(0xC2, b"\x00"),
            ERROR_DETECTION_CODE,
        )
    )
