# SPDX-License-Identifier: Apache-2.0
"""A card with the PIV card application on it."""

import uuid
from collections.abc import Mapping
from typing import Final

from ccid_protocol.atr import ATR, InterfaceBytes
from ccidd.card.emulated import Conventions, EmulatedCard
from ccidd.card.memory import CardMemory
from ccidd.card.piv.application import PivApplication
from ccidd.card.piv.options import PivOptions
from ccidd.card.piv.references import KeyReference
from ccidd.keys.key import Credential

HISTORICAL_BYTES: Final = bytes.fromhex("80F9A00000030800001000")
"""ISO/IEC 7816-4:2013, 12.1.1: category 80 (compact TLV), and tag F, length 9 with the AID of PIV.

By it OpenSC knows a PIV card without trying.
"""

_ISSUER_DATA: Final = 0x53
"""ISO/IEC 7816-4:2013, 12.1.1: card issuer's data (tag 5), three bytes for which there is room."""

INTERFACE: Final = (
    InterfaceBytes(ta=0x11, protocol=0),
    InterfaceBytes(protocol=1),
    InterfaceBytes(ta=0xFE, tb=0x45),
)
"""T=0 and T=1 at the default speed; T=1 with an IFSC of 254 bytes and BWI 4, CWI 5.

TA1 stands only to keep the ATR from starting 3B 8x 80 01, which marks a contactless card.
"""


def piv_card(
    credentials: Mapping[KeyReference, Credential],
    memory: CardMemory,
    *,
    vendor_extensions: bool = False,
    legacy_rsa: bool = False,
    guid: uuid.UUID | None = None,
) -> EmulatedCard:
    """Makes a PIV card.

    Args:
        credentials: keys from outside, with their certificates.
        memory: what the card remembers: its PINs, and the values that `piv.records` lists. A new
            card's come from `piv.personalisation`.
        vendor_extensions: whether it has the instructions of `piv.extensions`.
        legacy_rsa: whether it takes RSA keys of 1024 bits.
        guid: the GUID of a card that changes places with others; its ATR then has a part of it,
            since hosts keep by the ATR what they have learnt of a card.

    Raises:
        UserError: The card cannot have one of the keys, or has no identity.
    """
    options = PivOptions(vendor_extensions=vendor_extensions, legacy_rsa=legacy_rsa, guid=guid)
    application = PivApplication(credentials, memory, options)
    mark = b"" if guid is None else bytes([_ISSUER_DATA]) + guid.bytes[:3]
    return EmulatedCard(
        ATR(HISTORICAL_BYTES + mark, INTERFACE),
        [application],
        # The tools for the extensions leave Le away: their own cards do not know T=0.
        conventions=Conventions(data_without_le=vendor_extensions),
    )
