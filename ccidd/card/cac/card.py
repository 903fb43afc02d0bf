# SPDX-License-Identifier: Apache-2.0
"""A CAC: a card with the applets of the GSC-IS on it.

Its memory has the PIN, and under the name of an object ("cac/0200", the identifier in hexadecimal)
the data objects in it: SIMPLE-TLV, one after the other. Objects without a name hold nothing.
"""

import uuid
from collections.abc import Sequence
from typing import Final

from ccid_protocol.apdu import StatusWord
from ccid_protocol.atr import ATR, InterfaceBytes
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.application import Application
from ccidd.card.cac import simpletlv
from ccidd.card.cac.aca import AccessControlApplet
from ccidd.card.cac.applet import GscApplication
from ccidd.card.cac.capabilities import CardCapabilityContainer
from ccidd.card.cac.containers import KINDS, Contents, GeneralContainer
from ccidd.card.cac.keys import MAX_CERTIFICATE_SIZE, ChipIdentity, PkiCredential, PkiCredentials
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
_HISTORICAL_BYTES: Final = b"sfte cd144"
_INTERFACE: Final = (InterfaceBytes(ta=0x18, tb=0x00, tc=0x00),)

_MARK_SIZE: Final = 5
"""Bytes that the historical bytes have room for yet."""

_CONVENTIONS: Final = Conventions(
    nothing_to_give=StatusWord.REFERENCED_DATA_NOT_FOUND,
    select_ignores_p2=True,
    failed_select_deselects=True,
    starts_long_responses=False,
)


def cac_card(
    credentials: Sequence[Credential], memory: CardMemory, guid: uuid.UUID | None = None
) -> EmulatedCard:
    """Makes a CAC.

    Args:
        credentials: its keys and their certificates, 1 to 16. Clients take the first for
            identification, the second for signatures, the third for encryption.
        memory: where its PIN is remembered, and what it holds beside certificates.
        guid: the identity of a card that changes places with others; its ATR then has a part of it,
            since hosts keep by the ATR what they have learnt of a card. By default its identity
            follows from its first certificate.

    Raises:
        UserError: There are too many keys, or none, or one that such a card cannot have; or an
            object in the memory is broken.
    """
    if not 1 <= len(credentials) <= MAX_PKI_APPLETS:
        raise UserError(f"a CAC has 1 to {MAX_PKI_APPLETS} keys, not {len(credentials)}")
    stored = [_stored(credential) for credential in credentials]
    pin = Pin(memory.pin(PIN_REFERENCE))
    mark = b"" if guid is None else guid.bytes[:_MARK_SIZE]
    identity = ChipIdentity.of(credentials[0].certificate_der() if guid is None else guid.bytes)
    applets = cac_applets(lambda: stored, identity, stored_contents(memory), pin)
    nothing = GscApplication(b"", pin)
    atr = ATR(_HISTORICAL_BYTES + mark, _INTERFACE)
    return EmulatedCard(atr, [*applets, PlugAndPlay(pin)], nothing, _CONVENTIONS)


def _stored(credential: Credential) -> PkiCredential:
    name = credential.certificate.subject.rfc4514_string()
    if not is_supported(credential.key):
        raise UserError(
            f"the key of {name!r} is {credential.key.algorithm.value}, but a CAC has keys for RSA,"
            " P-256 and P-384 only"
        )
    stored = PkiCredential.of(credential)
    if len(stored.certificate) > MAX_CERTIFICATE_SIZE:
        raise UserError(
            f"the certificate of {name!r} has {len(stored.certificate)} bytes when compressed, but"
            f" a CAC has room for {MAX_CERTIFICATE_SIZE}"
        )
    return stored


def cac_applets(
    credentials: PkiCredentials, identity: ChipIdentity, contents: Contents, pin: Pin
) -> list[Application]:
    """Makes the applets that a card has as a CAC, whatever else it is.

    Args:
        credentials: gives the keys.
        identity: which card it is.
        contents: gives what is in the general containers.
        pin: the card's PIN; the applets end what it has opened when the card is reset.
    """
    return [
        CardCapabilityContainer(credentials, identity, pin),
        AccessControlApplet(credentials, pin),
        *(PkiApplet(number, credentials, pin) for number in range(MAX_PKI_APPLETS)),
        *(GeneralContainer(kind, contents, pin) for kind in KINDS),
        CardManager(identity, pin),
    ]


def stored_contents(memory: CardMemory) -> Contents:
    """Gives what a card's memory holds for its general containers.

    Raises:
        UserError: One of the objects there is broken.
    """
    names = {
        object_id: f"cac/{object_id.hex().upper()}"
        for kind in KINDS
        for object_id in kind.object_ids
    }
    stored = memory.contents
    objects = {o: _decode(name, stored[name]) for o, name in names.items() if name in stored}
    return objects.get


def _decode(name: str, value: bytes) -> list[SimpleTlv]:
    if len(value) > simpletlv.MAX_SIZE:
        raise UserError(f"the card's object {name} has {len(value)} bytes, which is too many")
    try:
        return list(simpletlv.decode(value))
    except RemoteProtocolError as error:
        raise UserError(f"the card's object {name} is broken: {error}") from error
