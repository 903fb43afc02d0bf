# SPDX-License-Identifier: Apache-2.0
"""The contents of the PIV data objects that follow from a card's keys and certificates.

Source: NIST SP 800-73-4, part 1, section 3 and appendix A.
"""

import gzip
import hashlib
import uuid
from collections.abc import Collection, Mapping
from typing import Final

from ccid_protocol import tlv
from ccidd.card.piv.references import AID, KeyReference, ObjectTag
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

_ERROR_DETECTION_CODE: Final = tlv.encode(0xFE)


def guid_of(credentials: Collection[Credential]) -> uuid.UUID:
    """Gives the card's GUID: the same for the same keys, another for any other."""
    digest = hashlib.sha256()
    for credential in credentials:
        digest.update(credential.key.subject_public_key_info())
    return uuid.uuid5(_GUID_NAMESPACE, digest.hexdigest())


def discovery_object() -> bytes:
    """The discovery object: AID, and a PIN usage policy of the application PIN alone (3.3.2)."""
    return tlv.encode(
        ObjectTag.DISCOVERY, tlv.encode(0x4F, AID), tlv.encode(0x5F2F, bytes.fromhex("4000"))
    )


def data_objects(credentials: Mapping[KeyReference, Credential]) -> dict[int, bytes]:
    """Gives the data objects by their tags, as GET DATA answers with them."""
    guid = guid_of(credentials.values()).bytes
    expires = max(c.certificate.not_valid_after_utc for c in credentials.values())
    objects = {
        ObjectTag.CHUID: _chuid(guid, expires.strftime("%Y%m%d")),
        ObjectTag.CARD_CAPABILITY_CONTAINER: _card_capability_container(guid),
    }
    contents = {int(tag): tlv.encode(0x53, content) for tag, content in objects.items()}
    for reference, credential in credentials.items():
        certificate = _certificate(credential.certificate_der())
        contents[reference.certificate_tag] = tlv.encode(0x53, certificate)
    contents[ObjectTag.DISCOVERY] = discovery_object()
    return contents


def _chuid(guid: bytes, expires: str) -> bytes:
    """The card holder unique identifier (table 9), with no issuer to sign it."""
    return b"".join(
        (
            tlv.encode(0x30, _FASC_N),
            tlv.encode(0x34, guid),
            tlv.encode(0x35, expires.encode()),
            tlv.encode(0x3E),
            _ERROR_DETECTION_CODE,
        )
    )


def _card_capability_container(guid: bytes) -> bytes:
    """The card capability container (table 8), which says: read the data objects of PIV."""
    return b"".join(
        (
            tlv.encode(0xF0, _CARD_IDENTIFIER_START, guid[:14]),
            tlv.encode(0xF1, b"\x21"),
            tlv.encode(0xF2, b"\x21"),
            tlv.encode(0xF3),
            tlv.encode(0xF4, b"\x00"),
            tlv.encode(0xF5, b"\x10"),
            *(tlv.encode(tag) for tag in (0xF6, 0xF7, 0xFA, 0xFB, 0xFC, 0xFD)),
            _ERROR_DETECTION_CODE,
        )
    )


def _certificate(der: bytes) -> bytes:
    """A certificate container (table 10); CertInfo 01 says that the certificate is gzipped."""
    compressed = len(der) > _MAX_CERTIFICATE_SIZE
    if compressed:
        der = gzip.compress(der, mtime=0)
    return b"".join(
        (
            tlv.encode(0x70, der),
            tlv.encode(0x71, bytes([compressed])),
            _ERROR_DETECTION_CODE,
        )
    )
