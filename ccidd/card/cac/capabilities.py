# SPDX-License-Identifier: Apache-2.0
"""The card capability container (CCC), by which clients know a CAC and find its applets.

Source: GSC-IS 2.1, chapter 6 (its data objects) and 7.3 (CardURLs).
"""

from collections.abc import Sequence
from typing import Final

from ccidd.card.cac import simpletlv
from ccidd.card.cac.containers import INFORMATION, Container, buffer_properties
from ccidd.card.cac.keys import ChipIdentity, PkiCredentials
from ccidd.card.cac.references import (
    ACCESS_CONTROL_APPLET,
    ACCESS_CONTROL_FILE,
    CAC_RID,
    CARD_CAPABILITY_CONTAINER,
    GSC_RID,
    PropertyTag,
    pki_object,
)
from ccidd.card.cac.simpletlv import Buffers, SimpleTlv
from ccidd.card.pin import Pin

_OBJECT_ID: Final = CARD_CAPABILITY_CONTAINER[-2:]

# RID, manufacturer, and card type 02 (Java card).
_CARD_IDENTIFIER_START: Final = CAC_RID + bytes.fromhex("0302")

_VERSION: Final = b"\x21"

# Card application types.
_GENERAL: Final = 0x01
_PKI: Final = 0x04

_CARD_URL_SIZE: Final = 16
_ACCESS_CONTROL_RULE_TABLE_SIZE: Final = 17

_GENERAL_OBJECTS: Final = ("02FB", "02FE", "02FD", "0200", "0201")
_ACCESS_CONTROL_OBJECTS: Final = ("3000", "6010", "6030", "9000")
_MORE_GENERAL_OBJECTS: Final = ("1201", "1202")


def _card_url(rid: bytes, kind: int, object_id: bytes, applet: bytes) -> bytes:
    """Gives a CardURL; what it says of access and keys is empty on virtual machine cards."""
    return (rid + bytes([kind]) + object_id + applet).ljust(_CARD_URL_SIZE, b"\0")


def _card_urls(pki_applets: int) -> list[bytes]:
    def general(numbers: Sequence[str]) -> list[bytes]:
        objects = map(bytes.fromhex, numbers)
        return [_card_url(CAC_RID, _GENERAL, object_id, object_id) for object_id in objects]

    applet = ACCESS_CONTROL_FILE[-2:]
    return [
        *general(_GENERAL_OBJECTS),
        *(
            _card_url(GSC_RID, _GENERAL, bytes.fromhex(number), applet)
            for number in _ACCESS_CONTROL_OBJECTS
        ),
        *general(_MORE_GENERAL_OBJECTS),
        *(
            _card_url(CAC_RID, _PKI, object_id, object_id)
            for object_id in map(pki_object, range(pki_applets))
        ),
    ]


class CardCapabilityContainer(Container):
    """The CCC.

    Args:
        credentials: the card's keys.
        identity: which card it is.
        pin: the card's PIN.
    """

    def __init__(self, credentials: PkiCredentials, identity: ChipIdentity, pin: Pin) -> None:
        super().__init__(CARD_CAPABILITY_CONTAINER, pin)
        self._credentials = credentials
        self._identity = identity

    @property
    def object_ids(self) -> Sequence[bytes]:
        """See `Applet.object_ids`."""
        return (_OBJECT_ID,)

    def properties(self) -> Sequence[SimpleTlv]:
        """See `Applet.properties`."""
        about = simpletlv.encode(*buffer_properties(_OBJECT_ID, self.buffers()))
        return (
            INFORMATION,
            SimpleTlv(PropertyTag.NUMBER_OF_OBJECTS, b"\x01"),
            SimpleTlv(PropertyTag.BUFFER_OBJECT, about),
        )

    def buffers(self) -> Buffers:
        """See `Container.buffers`."""
        urls = _card_urls(len(self._credentials()))
        rule_table = bytes([len(ACCESS_CONTROL_APPLET)]) + ACCESS_CONTROL_APPLET
        return Buffers.holding(
            [
                SimpleTlv(0xF0, _CARD_IDENTIFIER_START + self._identity.card_identifier()),
                SimpleTlv(0xF1, _VERSION),  # capability container
                SimpleTlv(0xF2, _VERSION),  # capability grammar
                *(SimpleTlv(0xF3, url) for url in urls),
                SimpleTlv(0xF4, b"\x00"),  # not of PKCS #15
                SimpleTlv(0xF5, b"\x10"),  # registered data model
                SimpleTlv(0xF6, rule_table.ljust(_ACCESS_CONTROL_RULE_TABLE_SIZE, b"\0")),
                # Commands, redirection, capability and status tuples, next CCC: none. An error
                # detection code ends it.
                *(SimpleTlv(tag) for tag in (0xF7, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE)),
            ]
        )
