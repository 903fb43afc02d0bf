# SPDX-License-Identifier: Apache-2.0
"""Feeds a connection the same bytes in different pieces."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

from hypothesis import strategies as st

from ccid_protocol.events import NeedData

Event_co = TypeVar("Event_co", covariant=True)


class Receiver(Protocol[Event_co]):
    """The receiving half of a connection."""

    def receive_data(self, data: bytes) -> None: ...

    def next_event(self) -> Event_co | NeedData: ...


def events_of(receiver: Receiver[Event_co], pieces: Iterable[bytes]) -> list[Event_co]:
    """Gives all events that come of the pieces, asking after each of them."""
    events = []
    for piece in pieces:
        if not piece:
            continue
        receiver.receive_data(piece)
        while not isinstance(event := receiver.next_event(), NeedData):
            events.append(event)
    return events


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@st.composite
def random_pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
