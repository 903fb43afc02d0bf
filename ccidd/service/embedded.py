# SPDX-License-Identifier: Apache-2.0
"""The card that ccidd serves when it is told of none: it makes one, and keeps it."""

from dataclasses import dataclass, field
from typing import Final

from ccidd.card.piv.management_key import ManagementKey
from ccidd.service.cardtypes import DEFAULT_KEYS
from ccidd.service.newcard import Blank, make_card
from ccidd.service.pincodes import random_pin, random_puk
from ccidd.service.state import CardRecord, State

NAME: Final = "default"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is told of a new card once.

    Attributes:
        pin: its PIN.
        puk: its PUK.
        management_key: its administration key, if it has one.
    """

    pin: str = field(repr=False)
    puk: str = field(repr=False)
    management_key: ManagementKey | None = field(default=None, repr=False)


def load_or_make(state: State, name: str = NAME) -> tuple[CardRecord, Secrets | None]:
    """Gives the embedded card, made if there is none yet.

    Args:
        state: where it is kept.
        name: its name.

    Returns:
        The card, and if it is new its PIN and PUK.
    """
    record = state.find_card(name)
    if record is not None:
        return record, None
    secrets = Secrets(random_pin(), random_puk(), ManagementKey.generate())
    blank = Blank(
        name,
        "piv",
        secrets.pin,
        secrets.puk,
        label="ccidd",
        keys=DEFAULT_KEYS,
        management_key=secrets.management_key,
    )
    card, _keys = make_card(state, blank)
    # Another process may have made one at the same time.
    added = state.add_card(card)
    return state.card(name), secrets if added else None
