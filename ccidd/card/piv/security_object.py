# SPDX-License-Identifier: Apache-2.0
"""The security object: the hashes of other data objects, signed by the card's issuer.

Source: NIST SP 800-73-4, part 1, 3.1.7 and table 12; ICAO Doc 9303, part 10, 4.6.2 (the LDS
security object).
"""

from collections.abc import Mapping
from typing import Final

from ccid_protocol import tlv
from ccidd.card.piv import cms
from ccidd.card.piv.contents import ERROR_DETECTION_CODE
from ccidd.card.piv.records import ContentSigner

_VERSION_0: Final = bytes.fromhex("020100")


def security_object(signer: ContentSigner, contents: Mapping[int, bytes]) -> bytes:
    """Makes the security object.

    Args:
        signer: the issuer's key and certificate; the certificate is in the CHUID, not here.
        contents: by container identifiers, what is hashed: the contents of the container, as
            they are inside tag 53. At most 16.
    """
    mapping = b""
    hashes = b""
    for number, (container, content) in enumerate(contents.items(), start=1):
        mapping += bytes([number]) + container.to_bytes(2)
        hashes += tlv.encode(
            0x30, tlv.encode(0x02, bytes([number])), tlv.encode(0x04, cms.digest(content))
        )
    lds_security_object = tlv.encode(
        0x30, _VERSION_0, cms.DIGEST_ALGORITHM, tlv.encode(0x30, hashes)
    )
    signature = cms.enveloping_signature(signer, cms.LDS_SECURITY_OBJECT, lds_security_object)
    return tlv.encode(0xBA, mapping) + tlv.encode(0xBB, signature) + ERROR_DETECTION_CODE
