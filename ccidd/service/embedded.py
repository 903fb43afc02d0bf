# SPDX-License-Identifier: Apache-2.0
"""The card that ccidd serves when it is told of none: it makes one, and keeps it."""

import secrets
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from ccidd.card.piv.references import KeyReference
from ccidd.keys.generated import generate_key, key_usage, private_key_pem, self_signed_certificate
from ccidd.keys.key import KeyAlgorithm
from ccidd.service.state import State, StoredCard, StoredKey

NAME: Final = "default"

_PIN_DIGITS: Final = 6
_PUK_DIGITS: Final = 8

_KEYS: Final = {
    KeyReference.AUTHENTICATION: (
        KeyAlgorithm.P_256,
        "ccidd PIV authentication",
        key_usage(digital_signature=True),
    ),
    KeyReference.SIGNATURE: (
        KeyAlgorithm.RSA_2048,
        "ccidd digital signature",
        key_usage(digital_signature=True, content_commitment=True),
    ),
    KeyReference.KEY_MANAGEMENT: (
        KeyAlgorithm.RSA_2048,
        "ccidd key management",
        key_usage(key_encipherment=True),
    ),
}


def load_or_make(state: State) -> tuple[StoredCard, bool]:
    """Gives the embedded card, made if there is none yet.

    Returns:
        The card, and whether it is new.
    """
    card = state.load_card(NAME)
    if card is not None:
        return card, False
    new = StoredCard(
        NAME,
        pin=_random_digits(_PIN_DIGITS),
        puk=_random_digits(_PUK_DIGITS),
        keys=tuple(_make_key(reference) for reference in _KEYS),
    )
    if state.add_card(new):
        return new, True
    # Another process made one at the same time.
    card = state.load_card(NAME)
    assert card is not None
    return card, False


def _make_key(reference: KeyReference) -> StoredKey:
    algorithm, common_name, usage = _KEYS[reference]
    key = generate_key(algorithm)
    certificate = self_signed_certificate(key, common_name, usage)
    return StoredKey(reference, private_key_pem(key), certificate.public_bytes(Encoding.PEM))


def _random_digits(count: int) -> str:
    return f"{secrets.randbelow(10**count):0{count}d}"
