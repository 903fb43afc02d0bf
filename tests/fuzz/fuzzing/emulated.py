# SPDX-License-Identifier: Apache-2.0
"""The cards of ccidd, on which PINs are watched from outside."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final, TypeVar
from unittest.mock import patch

import trio

from cac import KEYS
from cac import PIN as CAC_PIN
from ccidd.card.cac.card import PIN_REFERENCE, cac_card
from ccidd.card.dual import dual_card
from ccidd.card.emulated import EmulatedCard
from ccidd.card.piv import slots
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.personalisation import factory_contents
from ccidd.card.piv.references import KeyReference
from ccidd.keys import local
from ccidd.keys.generated import generate_key
from ccidd.keys.key import KeyAlgorithm
from ccidd.keys.local import LocalPrivateKey
from credentials import credential
from memory import VolatileMemory, VolatilePin
from piv import GLOBAL_PIN, MANAGEMENT_KEY, PIN, PUK

KINDS: Final = ("piv", "piv with extensions", "cac", "piv+cac")

_KEYS: Final = {
    KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256),
    KeyReference.SIGNATURE: credential(KeyAlgorithm.RSA_2048),
    KeyReference.KEY_MANAGEMENT: credential(KeyAlgorithm.X25519),
    KeyReference.CARD_AUTHENTICATION: credential(KeyAlgorithm.ED25519),
}
_T = TypeVar("_T")


def make(kind: str) -> tuple[EmulatedCard, VolatileMemory]:
    """Makes a card with keys, and the memory in which its PINs and contents are."""
    if kind == "cac":
        memory = VolatileMemory({PIN_REFERENCE: VolatilePin(CAC_PIN)})
        return cac_card(KEYS, memory), memory
    has_extensions = kind == KINDS[1]
    memory = VolatileMemory(
        {0x00: VolatilePin(GLOBAL_PIN), 0x80: VolatilePin(PIN), 0x81: VolatilePin(PUK)}
    )
    memory._contents.update(factory_contents(MANAGEMENT_KEY, attestation=has_extensions))
    if kind == "piv+cac":
        return dual_card(_KEYS, memory), memory
    return piv_card(_KEYS, memory, vendor_extensions=has_extensions), memory


def pins_of(memory: VolatileMemory) -> dict[int, VolatilePin]:
    """Gives the PINs by their references."""
    return {r: pin for r, pin in memory._pins.items() if isinstance(pin, VolatilePin)}


@contextmanager
def quick_keys() -> Iterator[None]:
    """Has no worker threads for keys, and generates each kind of key but once."""
    with patch.object(local, "compute", _compute), patch.object(slots, "generate", _generate):
        yield


async def _compute(operation: Callable[[], _T]) -> _T:
    await trio.lowlevel.checkpoint()
    return operation()


async def _generate(algorithm: KeyAlgorithm) -> LocalPrivateKey:
    await trio.lowlevel.checkpoint()
    return _generated(algorithm)


@cache
def _generated(algorithm: KeyAlgorithm) -> LocalPrivateKey:
    return generate_key(algorithm)
