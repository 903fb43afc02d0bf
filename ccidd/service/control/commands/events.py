# SPDX-License-Identifier: Apache-2.0
"""The events that control sockets tell of.

What is declared here is emitted elsewhere, by whoever sees it happen.
"""

from collections.abc import Sequence
from typing import Final

from ccidd.service.control.registry import event
from ccidd.service.control.roles import Role


class ReaderAdded:
    """A reader is there, and guests can connect to it."""

    reader: str


class ReaderRemoved:
    """A reader is there no more."""

    reader: str


class ConnectionOpened:
    """A guest has connected to a reader."""

    reader: str
    guest: str


class ConnectionClosed:
    """The guest has gone."""

    reader: str
    guest: str


class CardInserted:
    """There is a card in a slot."""

    reader: str
    slot: int


class CardRemoved:
    """The card has gone from a slot."""

    reader: str
    slot: int


class Reloaded:
    """The configuration file was read again, and its changes are made."""

    added: Sequence[str]
    removed: Sequence[str]
    changed: Sequence[str]


class Stopping:
    """ccidd ends."""


class EventsLost:
    """This client was so slow that it is not told of the oldest events before this one."""

    count: int


EVENTS: Final = (
    event(ReaderAdded),
    event(ReaderRemoved),
    event(ConnectionOpened),
    event(ConnectionClosed),
    event(CardInserted),
    event(CardRemoved),
    event(Reloaded),
    event(Stopping, Role.OBSERVE | Role.AGENT),
    event(EventsLost, Role.OBSERVE | Role.AGENT),
)
