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


class PinFailed:
    """A guest has given a wrong PIN; the tries that a guard keeps from it are not counted."""

    reader: str
    slot: int
    guest: str
    card: str
    pin: str
    tries_left: int | None = None


class PinBlocked:
    """No try of a PIN is left to the guest."""

    reader: str
    slot: int
    guest: str
    card: str
    pin: str


class GuardRefused:
    """A guard has not let a command of the guest's through to the card."""

    reader: str
    slot: int
    guest: str
    instruction: str
    reason: str
    key: str | None = None


class PinRequested:
    """A PIN is to be entered; `answer-request` brings it."""

    id: int
    kind: str
    reader: str
    slot: int
    guest: str
    card: str
    purpose: str
    min_digits: int
    max_digits: int
    text: str
    timeout: float
    asks_current: bool | None = None
    confirms: bool | None = None


class ConsentRequested:
    """A person is to say whether the guest may use a key; `answer-request` brings the answer."""

    id: int
    kind: str
    reader: str
    slot: int
    guest: str
    card: str
    operations: Sequence[str]
    text: str
    timeout: float
    reference: str | None = None
    key: str | None = None


class RequestEnded:
    """A request needs no answer any more."""

    id: int
    reason: str


class TraceStarted:
    """What crosses the front door of a reader is written into a file from now on."""

    reader: str
    file: str


class TraceStopped:
    """It is not any more."""

    reader: str
    file: str


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


_ALL: Final = Role.OBSERVE | Role.AGENT

EVENTS: Final = (
    event(ReaderAdded),
    event(ReaderRemoved),
    event(ConnectionOpened),
    event(ConnectionClosed),
    event(CardInserted),
    event(CardRemoved),
    event(PinFailed),
    event(PinBlocked),
    event(GuardRefused),
    event(PinRequested, _ALL),
    event(ConsentRequested, _ALL),
    event(RequestEnded, _ALL),
    event(TraceStarted),
    event(TraceStopped),
    event(Reloaded),
    event(Stopping, _ALL),
    event(EventsLost, _ALL),
)
