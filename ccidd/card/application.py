# SPDX-License-Identifier: Apache-2.0
"""What an emulated card needs from the applications on it (ISO/IEC 7816-4:2013, 8.2.1)."""

from abc import ABC, abstractmethod

from ccid_protocol.apdu import CommandAPDU, ResponseAPDU


class CardError(Exception):
    """A command is refused.

    Args:
        sw: the status word that says why.
    """

    def __init__(self, sw: int) -> None:
        super().__init__(f"{sw:04X}")
        self.sw = sw


class Application(ABC):
    """One application of a card, found by its application identifier (AID)."""

    @abstractmethod
    def is_selected_by(self, aid: bytes) -> bool:
        """Tells whether SELECT with this identifier, which may be truncated, means it."""

    @abstractmethod
    def select(self) -> bytes:
        """Selects the application, which may be selected already.

        Returns:
            The response data: its application property template or the like.
        """

    @abstractmethod
    def deselect(self) -> None:
        """Ends what ends when another application is selected."""

    def reset(self) -> None:
        """Ends what a PIN has opened: the card was reset, or has no power any more."""
        self.deselect()

    @abstractmethod
    async def process(self, command: CommandAPDU) -> ResponseAPDU:
        """Carries out any command but SELECT by name and GET RESPONSE.

        Args:
            command: the whole command, its chain put together.

        Raises:
            CardError: The command is refused.
        """
