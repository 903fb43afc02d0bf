# SPDX-License-Identifier: Apache-2.0
"""What a card remembers while it has no power.

A card knows no database: it is given a memory, and whoever gives it sees to where that is kept, and
that it is encrypted there. What a name means, and how its value is encoded, is the matter of the
card application.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from ccidd.card.pin import PinMemory


class CardMemory(ABC):
    """The memory of one card: values by their names, and its PINs."""

    @property
    @abstractmethod
    def contents(self) -> Mapping[str, bytes]:
        """All that is stored, by name; a change appears here when `store` returns.

        Values may be private keys: they are never logged, nor part of an exception's text.
        """

    @abstractmethod
    async def store(self, changes: Mapping[str, bytes | None]) -> None:
        """Changes values, all of them or none, durable before this returns.

        A call that is cancelled has changed all or nothing.

        Args:
            changes: the new values by name; None forgets the name.

        Raises:
            OSError: They cannot be stored, and nothing has changed.
        """

    @abstractmethod
    def pin(self, reference: int) -> PinMemory:
        """Gives the memory of one of the card's PINs (or of its PUK).

        Args:
            reference: the key reference of the PIN.
        """
