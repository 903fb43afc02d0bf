# SPDX-License-Identifier: Apache-2.0
"""A card with the PIV card application on it."""

from collections.abc import Mapping
from typing import Final

from ccid_protocol.atr import ATR, InterfaceBytes
from ccidd.card.emulated import EmulatedCard
from ccidd.card.pin import Pin, PinMemory
from ccidd.card.piv.application import PivApplication
from ccidd.card.piv.references import KeyReference
from ccidd.keys.key import Credential

# ISO/IEC 7816-4:2013, 12.1.1: category 80 (compact TLV), and tag F, length 9 with the AID of PIV,
# by which OpenSC knows a PIV card without trying.
_HISTORICAL_BYTES: Final = bytes.fromhex("80F9A00000030800001000")

# T=0 and T=1 at the default speed; T=1 with an IFSC of 254 bytes and BWI 4, CWI 5. TA1 stands only
# to keep the ATR from starting 3B 8x 80 01, which marks a contactless card.
_INTERFACE: Final = (
    InterfaceBytes(ta=0x11, protocol=0),
    InterfaceBytes(protocol=1),
    InterfaceBytes(ta=0xFE, tb=0x45),
)


def piv_card(credentials: Mapping[KeyReference, Credential], memory: PinMemory) -> EmulatedCard:
    """Makes a PIV card.

    Args:
        credentials: the keys on it and their certificates; at least one.
        memory: where its PIN is remembered.
    """
    application = PivApplication(credentials, Pin(memory))
    return EmulatedCard(ATR(_HISTORICAL_BYTES, _INTERFACE), [application])
