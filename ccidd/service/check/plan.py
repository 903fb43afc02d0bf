# SPDX-License-Identifier: Apache-2.0
"""Which checks there are for a configuration: a new subject has its line here."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ccidd.card.guard.guest import Guest
from ccidd.reader.pinentry.credential import CredentialPin
from ccidd.service import embedded
from ccidd.service.check.cards import NO_REQUESTS, look_at_card, look_at_embedded_card
from ccidd.service.check.files import (
    look_at_configuration,
    look_at_credentials,
    look_at_new_file,
    look_at_secret,
)
from ccidd.service.check.finding import Finding, error, ok
from ccidd.service.check.qemu import look_at_qemu
from ccidd.service.check.running import Check
from ccidd.service.check.sockets import look_at_front_door, look_at_socket
from ccidd.service.check.state import StatePlace, look_at_state
from ccidd.service.configuration import Configuration, ReaderConfiguration
from ccidd.service.readers import pin_source
from ccidd.service.requests import AgentPins
from ccidd.service.where import COMMAND_LINE, Where, in_file


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be checked.

    Attributes:
        configuration: what is to be served.
        state: where the state is.
        file: the file that it is from, if it is from one.
        qemu: the QEMU that is used, if it is not to be looked for.
        environ: the environment.
    """

    configuration: Configuration
    state: StatePlace
    file: Path | None = None
    qemu: Path | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


def checks_of(subject: Subject) -> Iterator[Check]:
    """Gives the checks, in the order in which their findings are told."""
    if subject.file is not None:
        yield Check(f"{subject.file}", partial(look_at_configuration, subject.file))
    yield Check("state", partial(look_at_state, subject.state))
    if directory := subject.environ.get("CREDENTIALS_DIRECTORY"):
        yield Check("$CREDENTIALS_DIRECTORY", partial(look_at_credentials, Path(directory)))
    where = COMMAND_LINE if subject.file is None else in_file(subject.file)
    for socket in subject.configuration.control:
        if socket.path is not None:
            look = partial(look_at_socket, where, "control", socket.path)
            yield Check(where.of("control"), look)
    if (file := subject.configuration.metrics_file) is not None:
        look = partial(look_at_new_file, where, "metrics-file", file)
        yield Check(where.of("metrics-file"), look)
    readers = subject.configuration.readers
    yield Check("cards", partial(_look_at_repetitions, readers))
    for reader in readers:
        yield from _checks_of_reader(reader, subject.state)
    transports = {reader.transport for reader in readers}
    yield Check("QEMU", partial(look_at_qemu, transports, subject.qemu))


def _look_at_repetitions(readers: Iterable[ReaderConfiguration]) -> Iterator[Finding]:
    """Looks whether a card is to be in two places at once."""
    places = dict[str, Where]()
    for reader in readers:
        named = [(card.one("card"), card.where) for card in reader.cards]
        for name, where in named or [(reader.name or embedded.NAME, reader.where)]:
            if name is not None and name in places:
                yield error(where, f"the card {name} is at {places[name]} already; a card is one")
            elif name is not None:
                places[name] = where


def _checks_of_reader(reader: ReaderConfiguration, state: StatePlace) -> Iterator[Check]:
    where = f"{reader.where}"
    yield Check(where, partial(look_at_front_door, reader))
    if reader.options:
        yield Check(where, partial(_look_at_pin_source, reader))
    for card in reader.cards:
        yield Check(f"{card.where}", partial(look_at_card, card, state))
    if not reader.cards:
        name = reader.name or embedded.NAME
        place = reader.where if where else Where(f"card {name}", None)
        yield Check(f"{place}", partial(look_at_embedded_card, name, place, state))


def _look_at_pin_source(reader: ReaderConfiguration) -> Iterator[Finding]:
    where = reader.where.within("reader")
    agent = AgentPins(NO_REQUESTS, reader.key, Guest())
    source = pin_source(reader.options, agent=agent, where=where)
    if isinstance(source, CredentialPin):
        yield from look_at_secret(where.of("pin-file"), source.path)
    if source is not None:
        yield ok(where, "the source of PINs can be used")
