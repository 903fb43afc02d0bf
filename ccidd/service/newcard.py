# SPDX-License-Identifier: Apache-2.0
"""Makes the cards that ccidd keeps itself, and keys for them."""

import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509

from ccidd.card.piv.management_key import ManagementKey
from ccidd.card.piv.references import Origin
from ccidd.keys.generated import generate_key
from ccidd.keys.key import KeyAlgorithm
from ccidd.service.cardkeys import StoredKey, key_contents
from ccidd.service.cardtypes import CARD_TYPES, PUK
from ccidd.service.certificates import Issuer, authority, common_name, issue, signing_key
from ccidd.service.pincodes import pin_on_wire, puk_on_wire
from ccidd.service.state import NewCard, State


class IssuedBy(enum.Enum):
    """Who signs the certificates of new keys."""

    SELF = "self"
    AUTHORITY = "ca"


@dataclass(frozen=True, slots=True)
class Blank:
    """A card to be made.

    Attributes:
        name: what it is stored under.
        type: the kind of card, as in `--card`.
        pin: its PIN.
        puk: its PUK.
        label: what the names of its certificates begin with.
        subject: the name in all of its certificates instead, if one was chosen.
        keys: its keys, by key reference.
        management_key: its administration key, if it has one.
        issued_by: who signs their certificates.
    """

    name: str
    type: str
    pin: str = field(repr=False)
    puk: str = field(repr=False)
    label: str
    keys: Mapping[int, KeyAlgorithm]
    subject: x509.Name | None = None
    issued_by: IssuedBy = IssuedBy.SELF
    management_key: ManagementKey | None = None


def make_card(state: State, blank: Blank) -> tuple[NewCard, Sequence[StoredKey]]:
    """Makes a card with new keys; the caller stores it.

    Raises:
        UserError: PIN or PUK cannot be used, or a key cannot sign its own certificate.
    """
    kind = CARD_TYPES[blank.type]
    pins = {
        kind.pin: pin_on_wire(blank.pin.encode(), "the PIN"),
        PUK: puk_on_wire(blank.puk.encode(), "the PUK"),
    }
    keys = [_make_key(state, blank, *each) for each in blank.keys.items()]
    guid = uuid.uuid4()
    contents = kind.factory_contents(guid, blank.management_key)
    for key in keys:
        contents |= key_contents(key, Origin.GENERATED, piv=kind.has_piv)
    return NewCard(str(guid), blank.name, blank.type, pins, contents), keys


def subject_of(blank_type: str, reference: int, label: str) -> x509.Name:
    """Gives the name in the certificate of a key if nobody chose one."""
    return common_name(f"{label} {CARD_TYPES[blank_type].purposes[reference].name}")


def _make_key(state: State, blank: Blank, reference: int, algorithm: KeyAlgorithm) -> StoredKey:
    key = generate_key(algorithm)
    subject = blank.subject or subject_of(blank.type, reference, blank.label)
    usage = CARD_TYPES[blank.type].purposes[reference].key_usage(key.public_key())
    if blank.issued_by is IssuedBy.AUTHORITY:
        _certificate, issuer = authority(state)
    else:
        issuer = Issuer(subject, signing_key(key))
    return StoredKey(reference, key, issue(key.public_key(), subject, usage, issuer))
