# SPDX-License-Identifier: Apache-2.0
"""Names and numbers of the CAC applets.

Source: GSC-IS 2.1: 5.3 (commands), 6.3 (card capability container), table 5-6 (algorithms); the
numbers of applets and objects are those of cards in use.
"""

import enum
from typing import Final

from ccidd.keys.key import KeyAlgorithm

GSC_RID: Final = bytes.fromhex("A000000116")
"""The registered application provider identifier of the GSC-IS."""

CAC_RID: Final = bytes.fromhex("A000000079")
"""That of the US Department of Defense."""

ACCESS_CONTROL_APPLET: Final = CAC_RID + bytes.fromhex("0300")
CARD_CAPABILITY_CONTAINER: Final = GSC_RID + bytes.fromhex("DB00")
ACCESS_CONTROL_FILE: Final = GSC_RID + bytes.fromhex("3000")
CARD_MANAGER: Final = bytes.fromhex("A0000000030000")
PLUG_AND_PLAY: Final = bytes.fromhex("A0000003974349445F0100")

MAX_PKI_APPLETS: Final = 16
"""As many as clients look for: OpenSC has labels for 16."""


def pki_applet(number: int) -> bytes:
    """Gives the identifier of a PKI applet, numbered from 0."""
    return CAC_RID + pki_object(number)


def pki_object(number: int) -> bytes:
    """Gives the identifier of the object in a PKI applet."""
    return bytes([0x01, number])


class Instruction(enum.IntEnum):
    """The instruction bytes of the GSC-IS."""

    PRIVATE_SIGN_DECRYPT = 0x42
    GET_ACR = 0x4C
    READ_BUFFER = 0x52
    GET_PROPERTIES = 0x56
    UPDATE_BUFFER = 0x58
    # Of ISO/IEC 7816-4, but only named in access control rules.
    EXTERNAL_AUTHENTICATE = 0x82
    GET_CHALLENGE = 0x84
    READ_BINARY = 0xB0


RSA: Final = 0x06
"""The algorithm identifier of an RSA key, whose size stands beside it."""

ALGORITHM_IDENTIFIERS: Final = {KeyAlgorithm.P_256: 0x11, KeyAlgorithm.P_384: 0x14}
"""Those of elliptic-curve keys.

The GSC-IS has none. SP 800-78 goes on where its table ends, and so do these.
"""


class PropertyTag(enum.IntEnum):
    """Tags of a GET PROPERTIES response (5.3.3.4)."""

    APPLET_INFORMATION = 0x01
    NUMBER_OF_OBJECTS = 0x40
    OBJECT_ID = 0x41
    BUFFER_PROPERTIES = 0x42
    PKI_PROPERTIES = 0x43
    BUFFER_OBJECT = 0x50
    PKI_OBJECT = 0x51
    # These are in no public document; cards in use have them.
    OBJECT_26 = 0x26
    APPLET_39 = 0x39
    ACCESS_CONTROL_APPLET = 0x3A


APPLET_INFORMATION: Final = bytes.fromhex("1002060203")
"""Applet family and version of all applets but the ACA."""

ACA_INFORMATION: Final = bytes.fromhex("1002060202")
