# SPDX-License-Identifier: Apache-2.0
"""Cards that ccidd keeps, which are made at once, and readers for them."""

from pathlib import Path

from ccidd.card.piv.management_key import ManagementKey
from ccidd.keys.key import KeyAlgorithm
from ccidd.service.configuration import ReaderConfiguration
from ccidd.service.events import Events
from ccidd.service.newcard import Blank, make_card
from ccidd.service.opening import ReaderOpener
from ccidd.service.options import parse_card
from ccidd.service.requests import Requests
from ccidd.service.service import LoadConfiguration, Service
from ccidd.service.state import State

PIN, PUK = "314159", "27182818"


def keep_card(state: State, name: str, kind: str = "piv") -> str:
    """Makes a card with one key; gives its GUID."""
    management_key = None if kind == "cac" else ManagementKey.generate()
    keys = {0x9A: KeyAlgorithm.P_256}
    blank = Blank(name, kind, PIN, PUK, name, keys, management_key=management_key)
    card, _keys = make_card(state, blank)
    assert state.add_card(card)
    return card.guid


def reader(
    directory: Path, name: str, *cards: str, slots: int | None = None
) -> ReaderConfiguration:
    """Describes a reader at NAME.sock, over usbredir if the number of its slots is given."""
    return ReaderConfiguration(
        name=name,
        transport="vscard" if slots is None else "usbredir",
        socket_path=directory / f"{name}.sock",
        options={} if slots is None else {"slots": str(slots)},
        cards=tuple(map(parse_card, cards)),
    )


def service_of(
    state: State, *readers: ReaderConfiguration, load: LoadConfiguration | None = None
) -> Service:
    """Makes a service with some readers, which is yet to run."""
    events = Events()
    requests = Requests(events)
    opener = ReaderOpener(state, requests)
    service = Service(opener.open, load, stays=True, events=events, requests=requests)
    for each in readers:
        service.put(opener.open(each))
    return service
