# SPDX-License-Identifier: Apache-2.0
"""The cards: what each is made of is opened as it is to be served, but to be looked at alone."""

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NoReturn

from cryptography import x509

from ccidd.card.guard.guest import Guest
from ccidd.card.memory import CardMemory
from ccidd.card.pin import PinMemory
from ccidd.card.piv.contents import guid_of
from ccidd.errors import UserError
from ccidd.keys.inventory import KeyNotShownError
from ccidd.service.cardkeys import keys_in
from ccidd.service.cards import find_stored_card, make_stored_card, read_sources
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.check.certificates import look_at_certificate
from ccidd.service.check.files import look_at_secrets
from ccidd.service.check.finding import Finding, Severity, ok, refusal, warning
from ccidd.service.check.pcsc import look_at_reader
from ccidd.service.check.state import StatePlace
from ccidd.service.check.tokens import TOKEN_TIMEOUT, look_at_pin, look_at_tokens
from ccidd.service.events import Events
from ccidd.service.guards import protector
from ccidd.service.keysources import KeySources
from ccidd.service.options import PCSC, CardOptions
from ccidd.service.readers import Pinentries
from ccidd.service.requests import AgentConsent, Requests
from ccidd.service.state import CardRecord, State
from ccidd.service.where import Where

NO_REQUESTS: Final = Requests(Events())
"""In the place of those that agents would answer."""

_NOT_LOGGED_IN: Final = "a check does not log in, so this may be because of that"


class _Memory(CardMemory):
    """What a card remembers, to make one of it that is not used."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self._contents = contents

    @property
    def contents(self) -> Mapping[str, bytes]:
        return self._contents

    async def store(self, changes: Mapping[str, bytes | None]) -> NoReturn:  # noqa: ARG002
        raise _not_used()

    def pin(self, reference: int) -> PinMemory:  # noqa: ARG002 (they are all the same)
        return _Pin()


class _Pin(PinMemory):
    """A PIN that nobody asks for."""

    async def tries_left(self) -> NoReturn:
        raise _not_used()

    async def max_tries(self) -> NoReturn:
        raise _not_used()

    async def compare(self, candidate: bytes) -> NoReturn:  # noqa: ARG002
        raise _not_used()

    async def change(self, new: bytes) -> NoReturn:  # noqa: ARG002
        raise _not_used()

    async def set_max_tries(self, count: int) -> NoReturn:  # noqa: ARG002
        raise _not_used()


def _not_used() -> OSError:
    return OSError(errno.EROFS, "this card is only looked at")


def look_at_card(options: CardOptions, place: StatePlace) -> Iterator[Finding]:
    """Looks at what a `--card` describes.

    Raises:
        UserError: It cannot be used.
    """
    yield from look_at_secrets(options)
    try:
        protector(options, Guest(), Pinentries(), AgentConsent(NO_REQUESTS, ""))
    except UserError as error:
        yield refusal(error)
    with options.where.naming():
        if options.type == PCSC:
            yield from look_at_reader(options)
        elif options.one("token") is not None:
            yield from look_at_tokens(options)
        elif (name := options.one("card")) is not None:
            yield from _look_at_stored(name, options, place)
        else:
            yield from _look_at_sources(options, place)


def look_at_embedded_card(name: str, where: Where, place: StatePlace) -> Iterator[Finding]:
    """Looks at the card of a reader that is told of none.

    Raises:
        UserError: It cannot be used.
    """
    if place.exists:
        with place.open() as state:
            record = state.find_card(name)
            if record is not None:
                yield from _look_at_record(where, record, state)
                return
    yield ok(where, f"the card {name} will be made, and its PIN shown once")


def _look_at_stored(name: str, options: CardOptions, place: StatePlace) -> Iterator[Finding]:
    if not place.exists:
        raise options.where.error(
            f"there is no card {name}: there is no state in {place.directory}; make one with"
            f" `ccidd card create {name}`",
            "card",
        )
    with place.open() as state:
        record = find_stored_card(name, options, state)
        yield from _look_at_record(options.where, record, state, options)


def _look_at_record(
    where: Where, record: CardRecord, state: State, options: CardOptions | None = None
) -> Iterator[Finding]:
    kind = CARD_TYPES[record.type]
    contents = state.contents(record.guid)
    make_stored_card(record, _Memory(contents), options.switches if options else frozenset())
    keys = [(key.reference, key.certificate) for key in keys_in(contents)]
    yield from _look_at_keys(where, record.type, keys)
    pin = state.pin(record.guid, kind.pin)
    if pin is not None and not pin.tries_left:
        yield warning(where, f"the PIN is blocked; run: ccidd card unblock {record.name}")
    yield from _look_at_use(where, record.guid, f"the card {record.name}", state)


def _look_at_sources(options: CardOptions, place: StatePlace) -> Iterator[Finding]:
    kind = CARD_TYPES[options.type]
    with contextlib.ExitStack() as resources:
        sources = KeySources(options, kind, resources, log_in=False, timeout=TOKEN_TIMEOUT)
        try:
            keys, _pins = read_sources(options, kind, sources)
        except UserError as error:
            if not (_has_pin_source(options) and isinstance(error.__cause__, KeyNotShownError)):
                raise
            yield refusal(error, Severity.WARNING, options.where)
            yield warning(options.where, _NOT_LOGGED_IN)
            return
        kind.make(keys.placed, _Memory({}), options.switches)
        placed = [(reference, each.certificate) for reference, each in keys.placed.items()]
        yield from _look_at_keys(options.where, options.type, placed)
        for token in keys.tokens:
            yield from look_at_pin(options.where, token)
        # What is on tokens alone, several may serve.
        if place.exists and not keys.are_on_tokens:
            guid = str(guid_of(keys.placed.values()))
            with place.open() as state:
                yield from _look_at_use(options.where, guid, "a card with these keys", state)


def _look_at_keys(
    where: Where, kind: str, keys: Sequence[tuple[int, x509.Certificate | None]]
) -> Iterator[Finding]:
    for reference, certificate in keys:
        if certificate is None:
            yield warning(where, f"the key {reference:02X} has no certificate yet")
        else:
            yield from look_at_certificate(f"{where}", CARD_TYPES[kind], reference, certificate)
    names = ", ".join(f"{reference:02X}" for reference, _certificate in keys)
    yield ok(
        where, f"a {kind} card with the keys {names}" if names else f"a {kind} card with no keys"
    )


def _look_at_use(where: Where, guid: str, card: str, state: State) -> Iterator[Finding]:
    process = state.served_by(guid)
    if process is not None:
        by = f"process {process}" if process else "another process"
        yield warning(where, f"{card} is being served by {by}: it cannot be served once more")


def _has_pin_source(options: CardOptions) -> bool:
    return any("pin-source=" in value for values in options.values.values() for value in values)
