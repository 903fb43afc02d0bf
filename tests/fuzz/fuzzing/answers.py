# SPDX-License-Identifier: Apache-2.0
"""Each message of a host to a CCID reader gets exactly one final answer, of its kind."""

from collections import Counter
from typing import TypeAlias

from ccid_protocol import ccid
from ccid_protocol.ccid import BadMessage, Command, CommandStatus, Notification, Response
from ccidd.reader.witness import Witness

_Key: TypeAlias = tuple[int, int, type[Response]]


class Answers(Witness):
    """Keeps account of what is yet to be answered.

    Args:
        max_message: dwMaxCCIDMessageLength.
    """

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self.due: Counter[_Key] = Counter()

    def command(self, command: Command | BadMessage) -> None:
        """Adds what is to be answered."""
        self.due[command.slot, command.seq, ccid.response_type(command.message_type)] += 1

    def response(self, response: Response) -> None:
        """Takes an answer, which must be one that can be sent."""
        raw = ccid.encode(response)
        assert len(raw) <= self._max_message
        assert ccid.decode_response(raw) == response
        key = response.slot, response.seq, type(response)
        assert self.due[key] > 0, f"nothing asked for {response}"
        if response.command_status is not CommandStatus.TIME_EXTENSION:
            self.due[key] -= 1

    def notification(self, notification: Notification) -> None:
        """Looks whether it can be sent."""
        ccid.encode_notification(notification)

    def forget(self) -> None:
        """Takes a reset of the bus: nothing is left to answer."""
        self.due.clear()

    @property
    def count(self) -> int:
        """How many answers are due."""
        return self.due.total()
