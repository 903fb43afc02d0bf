# SPDX-License-Identifier: Apache-2.0
"""A CAC: a card with the applets of the GSC-IS on it.

Its memory has the PIN, and under the name of an object ("cac/0200", the identifier in hexadecimal)
the data objects in it: SIMPLE-TLV, one after the other. Objects without a name hold nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from ccid_protocol.apdu import StatusWord
from ccid_protocol.atr import ATR, InterfaceBytes
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.application import Application
from ccidd.card.cac import simpletlv
from ccidd.card.cac.aca import AccessControlApplet
from ccidd.card.cac.applet import GscApplication
from ccidd.card.cac.capabilities import CardCapabilityContainer
from ccidd.card.cac.containers import KINDS, GeneralContainer
from ccidd.card.cac.keys import PkiCredentials
from ccidd.card.cac.management import CardManager, PlugAndPlay
from ccidd.card.cac.pki import PkiApplet, is_supported
from ccidd.card.cac.references import MAX_PKI_APPLETS
from ccidd.card.cac.simpletlv import SimpleTlv
from ccidd.card.emulated import Conventions, EmulatedCard
from ccidd.card.memory import CardMemory
from ccidd.card.pin import Pin
from ccidd.errors import UserError
from ccidd.keys.key import Credential

PIN_REFERENCE: Final = 0x00
"""The reference of the PIN."""

# That of a CAC in use, for T=0 alone, by which clients know it: "sfte cd144".
_ATR: Final = ATR(b"sfte cd144", (InterfaceBytes(ta=0x18, tb=0x00, tc=0x00),))

_CONVENTIONS: Final = Conventions(
    nothing_to_give=StatusWord.REFERENCED_DATA_NOT_FOUND,
    select_ignores_p2=True,
    failed_select_deselects=True,
    starts_long_responses=False,
)


def cac_card(credentials: Sequence[Credential], memory: CardMemory) -> EmulatedCard:
    """Makes a CAC.

    Args:
        credentials: its keys and their certificates, 1 to 16. Clients take the first for
            identification, the second for signatures, the third for encryption.
        memory: where its PIN is remembered, and what it holds beside certificates.

    Raises:
        UserError: There are too many keys, or none, or one that such a card cannot have; or an
            object in the memory is broken.
    """
    if not 1 <= len(credentials) <= MAX_PKI_APPLETS:
        raise UserError(f"a CAC has 1 to {MAX_PKI_APPLETS} keys, not {len(credentials)}")
    for credential in credentials:
        if not is_supported(credential.key):
            name = credential.certificate.subject.rfc4514_string()
            raise UserError(
                f"the key of {name!r} is {credential.key.algorithm.value}, but a CAC has keys for"
                " RSA, P-256 and P-384 only"
            )
    pin = Pin(memory.pin(PIN_REFERENCE))
    applets = [*cac_applets(lambda: credentials, memory.contents, pin), PlugAndPlay(pin)]
    return EmulatedCard(_ATR, applets, GscApplication(b"", pin), _CONVENTIONS)


def cac_applets(
    credentials: PkiCredentials, contents: Mapping[str, bytes], pin: Pin
) -> list[Application]:
    """Makes the applets that a card has as a CAC, whatever else it is.

    Args:
        credentials: gives the keys.
        contents: the contents of the card's memory.
        pin: the card's PIN; the applets end what it has opened when the card is reset.

    Raises:
        UserError: An object in the contents is broken.
    """
    objects = {
        object_id: decoded
        for kind in KINDS
        for object_id in kind.object_ids
        if (decoded := _objects(contents, f"cac/{object_id.hex().upper()}")) is not None
    }
    return [
        CardCapabilityContainer(credentials, pin),
        AccessControlApplet(credentials, pin),
        *(PkiApplet(number, credentials, pin) for number in range(MAX_PKI_APPLETS)),
        *(GeneralContainer(kind, objects, pin) for kind in KINDS),
        CardManager(credentials, pin),
    ]


def _objects(contents: Mapping[str, bytes], name: str) -> list[SimpleTlv] | None:
    if name not in contents:
        return None
    try:
        return list(simpletlv.decode(contents[name]))
    except RemoteProtocolError as error:
        raise UserError(f"the card's object {name} is broken: {error}") from error
