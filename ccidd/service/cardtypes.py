# SPDX-License-Identifier: Apache-2.0
"""The kinds of cards: what `--card` and `ccidd card create` can make.

What makes a kind is imported when one is made: it is part of the time until ccidd is ready.
"""

import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from ccidd.card.card import Card
from ccidd.card.memory import CardMemory
from ccidd.card.piv.management_key import ManagementKey
from ccidd.card.piv.options import PivOptions
from ccidd.card.piv.personalisation import factory_contents
from ccidd.card.piv.references import RETIRED_KEYS, KeyReference, PinReference
from ccidd.errors import UserError
from ccidd.keys.key import Credential, KeyAlgorithm, PrivateKey
from ccidd.service.certificates import Purpose

PUK: Final[int] = PinReference.PUK
"""The key reference of the PUK of every kind of card; guests can use it on those with PIV alone."""

_CAC_PIN: Final = 0x00
"""P2 of a CAC's VERIFY."""

_CAC_KEYS: Final = 16


class CardMaker(Protocol):
    """Makes a card."""

    def __call__(
        self,
        credentials: Mapping[int, Credential],
        memory: CardMemory,
        switches: Collection[str],
        guid: uuid.UUID | None = None,
    ) -> Card:
        """Makes it.

        Args:
            credentials: its keys, by key reference.
            memory: what it remembers.
            switches: the options of its kind that are on.
            guid: the GUID of one that changes places with others, and so shows it in its ATR.
        """


@dataclass(frozen=True, slots=True)
class CardType:
    """A kind of card.

    Attributes:
        description: what it is, for people.
        purposes: what each of its keys is for, by key reference, in the order in which keys without
            one are placed.
        default_keys: the keys that a new one is given, if nobody says which.
        pin: the key reference of its PIN.
        switches: options that are on or off, and what they are for.
        make: makes one.
        takes: tells whether one can have a key, with the options that are on.
        has_piv: whether the PIV card application is on it, which keeps keys in the memory.
        is_given_keys: whether it is to be given the keys in its memory when it is made.
    """

    description: str
    purposes: Mapping[int, Purpose]
    default_keys: Mapping[int, KeyAlgorithm]
    pin: int
    switches: Mapping[str, str]
    make: CardMaker
    takes: Callable[[PrivateKey, Collection[str]], bool]
    has_piv: bool = True
    is_given_keys: bool = True

    def factory_contents(
        self, guid: uuid.UUID, management_key: ManagementKey | None
    ) -> dict[str, bytes]:
        """Gives what a new card has in its memory before it has keys."""
        if not self.has_piv:
            return {}
        return factory_contents(management_key, guid=guid, attestation=True)


_AUTHENTICATION: Final = Purpose("PIV authentication", signs=True)
_SIGNATURE: Final = Purpose("digital signature", signs=True, commits=True)
_KEY_MANAGEMENT: Final = Purpose("key management", receives=True)
_CARD_AUTHENTICATION: Final = Purpose("card authentication", signs=True)

_PIV_PURPOSES: Final[Mapping[int, Purpose]] = {
    KeyReference.AUTHENTICATION: _AUTHENTICATION,
    KeyReference.SIGNATURE: _SIGNATURE,
    KeyReference.KEY_MANAGEMENT: _KEY_MANAGEMENT,
    KeyReference.CARD_AUTHENTICATION: _CARD_AUTHENTICATION,
    **dict.fromkeys(RETIRED_KEYS, _KEY_MANAGEMENT),
}

# The keys of a CAC have the names of those that the dual cards have in their place.
_CAC_REFERENCES: Final = [
    KeyReference.AUTHENTICATION,
    KeyReference.SIGNATURE,
    KeyReference.KEY_MANAGEMENT,
    *RETIRED_KEYS,
][:_CAC_KEYS]

_CAC_PURPOSES: Final[Mapping[int, Purpose]] = {
    **dict.fromkeys(_CAC_REFERENCES, _KEY_MANAGEMENT),
    KeyReference.AUTHENTICATION: Purpose("identity", signs=True),
    KeyReference.SIGNATURE: Purpose("email signature", signs=True, commits=True),
    KeyReference.KEY_MANAGEMENT: Purpose("email encryption", receives=True),
}

DEFAULT_KEYS: Final[Mapping[int, KeyAlgorithm]] = {
    KeyReference.AUTHENTICATION: KeyAlgorithm.P_256,
    KeyReference.SIGNATURE: KeyAlgorithm.RSA_2048,
    KeyReference.KEY_MANAGEMENT: KeyAlgorithm.RSA_2048,
}

_CAC_DEFAULT_KEYS: Final[Mapping[int, KeyAlgorithm]] = dict.fromkeys(
    DEFAULT_KEYS, KeyAlgorithm.RSA_2048
)

_PIV_SWITCHES: Final[Mapping[str, str]] = {
    "vendor-extensions": "the instructions with which provisioning tools make and import keys",
    "legacy-rsa": "RSA keys of 1024 bits",
}


def _make_piv_card(
    credentials: Mapping[int, Credential],
    memory: CardMemory,
    switches: Collection[str],
    guid: uuid.UUID | None = None,
) -> Card:
    from ccidd.card.piv.card import piv_card  # noqa: PLC0415 (see above)

    return piv_card(
        _by_reference(credentials),
        memory,
        vendor_extensions="vendor-extensions" in switches,
        legacy_rsa="legacy-rsa" in switches,
        guid=guid,
    )


def _make_cac_card(
    credentials: Mapping[int, Credential],
    memory: CardMemory,
    switches: Collection[str],
    guid: uuid.UUID | None = None,
) -> Card:
    from ccidd.card.cac.card import cac_card  # noqa: PLC0415 (see above)

    assert not switches
    return cac_card(list(credentials.values()), memory, guid)


def _make_dual_card(
    credentials: Mapping[int, Credential],
    memory: CardMemory,
    switches: Collection[str],
    guid: uuid.UUID | None = None,
) -> Card:
    from ccidd.card.dual import dual_card  # noqa: PLC0415 (see above)

    return dual_card(
        _by_reference(credentials),
        memory,
        vendor_extensions="vendor-extensions" in switches,
        legacy_rsa="legacy-rsa" in switches,
        guid=guid,
    )


def _piv_takes(key: PrivateKey, switches: Collection[str]) -> bool:
    return PivOptions(legacy_rsa="legacy-rsa" in switches).takes(key.algorithm)


def _cac_takes(key: PrivateKey, _switches: Collection[str]) -> bool:
    from ccidd.card.cac.pki import is_supported  # noqa: PLC0415 (see above)

    return is_supported(key)


def _by_reference(credentials: Mapping[int, Credential]) -> dict[KeyReference, Credential]:
    return {KeyReference(reference): each for reference, each in credentials.items()}


CARD_TYPES: Final[Mapping[str, CardType]] = {
    "piv": CardType(
        "a PIV card (NIST SP 800-73-4)",
        _PIV_PURPOSES,
        DEFAULT_KEYS,
        PinReference.APPLICATION_PIN,
        _PIV_SWITCHES,
        _make_piv_card,
        _piv_takes,
        is_given_keys=False,
    ),
    "cac": CardType(
        "a CAC (GSC-IS 2.1)",
        _CAC_PURPOSES,
        _CAC_DEFAULT_KEYS,
        _CAC_PIN,
        {},
        _make_cac_card,
        _cac_takes,
        has_piv=False,
    ),
    "piv+cac": CardType(
        "both on one card, with one PIN and one set of keys",
        _PIV_PURPOSES,
        DEFAULT_KEYS,
        PinReference.APPLICATION_PIN,
        _PIV_SWITCHES,
        _make_dual_card,
        _piv_takes,
    ),
}


def key_reference(text: str, kind: str) -> int:
    """Reads a key reference, two hexadecimal digits.

    Raises:
        UserError: It is none that such a card has.
    """
    known = {f"{reference:02X}": reference for reference in CARD_TYPES[kind].purposes}
    if text.upper() not in known:
        raise UserError(f"{text} is no key of a {kind} card; it has {', '.join(known)}")
    return known[text.upper()]
