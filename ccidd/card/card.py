# SPDX-License-Identifier: Apache-2.0
"""What a reader's slot needs from a card."""

from abc import ABC, abstractmethod

from ccid_protocol.atr import ATR


class Card(ABC):
    """A card, with contacts that a reader can power and talk through.

    A reader makes one call at a time. Each may be cancelled; the card then is as if the host had
    lost the answer.
    """

    @abstractmethod
    async def power_on(self) -> ATR:
        """Activates or resets the card, which ends all that a PIN had opened.

        Returns:
            The answer to reset.
        """

    @abstractmethod
    async def power_off(self) -> None:
        """Deactivates the card, which ends all that a PIN had opened."""

    @abstractmethod
    async def transmit(self, command: bytes) -> bytes:
        """Has the card carry out a command.

        Args:
            command: a command APDU, short or extended, as the host sent it and so perhaps broken.

        Returns:
            The response APDU: data and status word.
        """
