# SPDX-License-Identifier: Apache-2.0
"""The kinds of cards: what `--card` and `ccidd card create` can make."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from ccidd.card.card import Card
from ccidd.card.memory import CardMemory
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import KeyReference, PinReference
from ccidd.errors import UserError
from ccidd.keys.key import Credential, KeyAlgorithm
from ccidd.service.certificates import Purpose

PUK: Final = 0x81
"""The key reference of the PUK of every kind of card (SP 800-73-4, part 1, table 4)."""


class CardMaker(Protocol):
    """Makes a card."""

    def __call__(
        self, credentials: Mapping[int, Credential], memory: CardMemory, switches: Collection[str]
    ) -> Card:
        """Makes it.

        Args:
            credentials: its keys, by key reference.
            memory: what it remembers.
            switches: the options of its kind that are on.
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
    """

    description: str
    purposes: Mapping[int, Purpose]
    default_keys: Mapping[int, KeyAlgorithm]
    pin: int
    switches: Mapping[str, str]
    make: CardMaker


_AUTHENTICATION: Final = Purpose("PIV authentication", signs=True)
_SIGNATURE: Final = Purpose("digital signature", signs=True, commits=True)
_KEY_MANAGEMENT: Final = Purpose("key management", receives=True)
_CARD_AUTHENTICATION: Final = Purpose("card authentication", signs=True)

_PIV_PURPOSES: Final[Mapping[int, Purpose]] = {
    KeyReference.AUTHENTICATION: _AUTHENTICATION,
    KeyReference.SIGNATURE: _SIGNATURE,
    KeyReference.KEY_MANAGEMENT: _KEY_MANAGEMENT,
    KeyReference.CARD_AUTHENTICATION: _CARD_AUTHENTICATION,
}

DEFAULT_KEYS: Final[Mapping[int, KeyAlgorithm]] = {
    KeyReference.AUTHENTICATION: KeyAlgorithm.P_256,
    KeyReference.SIGNATURE: KeyAlgorithm.RSA_2048,
    KeyReference.KEY_MANAGEMENT: KeyAlgorithm.RSA_2048,
}


def _make_piv_card(
    credentials: Mapping[int, Credential], memory: CardMemory, switches: Collection[str]
) -> Card:
    assert not switches
    by_reference = {KeyReference(reference): each for reference, each in credentials.items()}
    return piv_card(by_reference, memory.pin(PinReference.APPLICATION_PIN))


CARD_TYPES: Final[Mapping[str, CardType]] = {
    "piv": CardType(
        "a PIV card (NIST SP 800-73-4)",
        _PIV_PURPOSES,
        DEFAULT_KEYS,
        PinReference.APPLICATION_PIN,
        {},
        _make_piv_card,
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
