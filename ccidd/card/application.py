# SPDX-License-Identifier: Apache-2.0
"""What an emulated card needs from the applications on it (ISO/IEC 7816-4:2013, 8.2.1)."""

from abc import ABC, abstractmethod
from typing import Final

from ccid_protocol.apdu import CommandAPDU, ResponseAPDU, StatusWord

_SECURE_MESSAGING: Final = 0x0C
_LOGICAL_CHANNEL: Final = 0x03
_NOT_INTERINDUSTRY: Final = 0xE0


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

    def check_class(self, cla: int) -> None:
        """Refuses classes of commands that the application does not have (5.4.1).

        Unless it says otherwise that is all but interindustry commands, on the basic channel and
        without secure messaging.

        Raises:
            CardError: The class is not supported.
        """
        if cla & _NOT_INTERINDUSTRY:
            raise CardError(StatusWord.CLASS_NOT_SUPPORTED)
        if cla & _SECURE_MESSAGING:
            raise CardError(StatusWord.SECURE_MESSAGING_NOT_SUPPORTED)
        if cla & _LOGICAL_CHANNEL:
            raise CardError(StatusWord.LOGICAL_CHANNEL_NOT_SUPPORTED)

    async def select_within(self, command: CommandAPDU) -> ResponseAPDU:  # noqa: ARG002 (others use it)
        """Carries out a SELECT other than by name, while the application is selected.

        Raises:
            CardError: The command is refused.
        """
        # There are no files, so hosts that look for some are told what they understand best.
        raise CardError(StatusWord.NOT_FOUND)

    @abstractmethod
    async def process(self, command: CommandAPDU) -> ResponseAPDU:
        """Carries out any command but SELECT and GET RESPONSE.

        Args:
            command: the whole command, its chain put together.

        Raises:
            CardError: The command is refused.
        """
