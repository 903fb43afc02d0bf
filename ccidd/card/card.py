# SPDX-License-Identifier: Apache-2.0
"""What a reader's slot needs from a card."""

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager, nullcontext

from ccid_protocol.atr import ATR


class CardGoneError(Exception):
    """A card is there no more, or has lost its state: it was taken out, or somebody else reset it.

    Whoever follows the hardware takes the card out of its slot; until then it is mute.
    """


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

        Raises:
            CardGoneError: The card is there no more.
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

        Raises:
            CardGoneError: The card is there no more, or is not what the host left it as.
        """

    def held(self) -> AbstractAsyncContextManager[None]:
        """Keeps what the host has set up while it waits for something else than the card.

        A card that is shared would else pass to others when nothing is sent for a while. Nothing is
        sent within the context.
        """
        return nullcontext()
