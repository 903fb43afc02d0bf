# SPDX-License-Identifier: Apache-2.0
"""Whoever looks on at what a host and the reader say to each other."""

from abc import ABC, abstractmethod

from ccid_protocol.ccid import BadMessage, Command, Notification, Response


class Witness(ABC):
    """Sees each message when it comes or goes. It must neither wait nor fail.

    What it sees holds PINs and keys.
    """

    @abstractmethod
    def command(self, command: Command | BadMessage) -> None:
        """Sees a message of the host."""

    @abstractmethod
    def response(self, response: Response) -> None:
        """Sees an answer of the reader, be it final or a time extension."""

    @abstractmethod
    def notification(self, notification: Notification) -> None:
        """Sees what the host is notified of."""
