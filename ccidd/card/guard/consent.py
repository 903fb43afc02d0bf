# SPDX-License-Identifier: Apache-2.0
"""Asking the person at the host whether a guest may use a key."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from ccidd.card.guard.operations import Operation

CONSENT_TIMEOUT: Final = 30.0
"""Seconds that the person has; no answer is a refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRequest:
    """What the person is asked.

    Attributes:
        guest: the guest's name.
        card: what kind of card it is.
        operations: what is to be done: sign, decrypt, or one of them where that cannot be told.
        reference: the number of the key, if it has one.
        key: the name of the key, if it has one.
        timeout: seconds that the person has.
    """

    guest: str
    card: str
    operations: frozenset[Operation]
    reference: str | None
    key: str | None
    timeout: float = CONSENT_TIMEOUT


class Consent(ABC):
    """Asks the person."""

    @abstractmethod
    async def ask(self, request: ConsentRequest) -> bool:
        """Asks, and waits for the answer.

        Whoever cannot be asked has refused, and the log says why. To end the question, cancel the
        call: when it returns, nothing of the question is left.

        Returns:
            Whether the person has agreed.
        """
