# SPDX-License-Identifier: Apache-2.0
"""Opens the cards that the command line asks for."""

from collections.abc import Collection, Iterator, Mapping

import structlog

from ccidd.card.card import Card
from ccidd.card.memory import CardMemory
from ccidd.card.piv.contents import guid_of
from ccidd.errors import UserError
from ccidd.service.cardkeys import keys_in
from ccidd.service.cardtypes import CARD_TYPES, PUK, CardType
from ccidd.service.keysources import Keys, KeySources, pins_from_files
from ccidd.service.options import PCSC, CardOptions
from ccidd.service.pincodes import pin_on_wire, puk_on_wire
from ccidd.service.state import CardRecord, State, StoredMemory
from ccidd.service.state.memory import apply_pin_file
from ccidd.service.supply import UNPROTECTED, CardSupply, FixedCard, Protection
from ccidd.service.tokenchoice import TokenChoice
from ccidd.service.tokenpin import TokenPin
from ccidd.service.tokens import TokenSupply

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def open_supply(
    options: CardOptions, state: State, protection: Protection = UNPROTECTED
) -> CardSupply:
    """Opens what fills the slots that a `--card` describes.

    Args:
        options: the parsed `--card`.
        state: what the cards remember.
        protection: what stands between the guest and each card.

    Raises:
        UserError: As `open_card`, or what reads this host's readers is not installed.
    """
    with options.where.naming():
        if options.type == PCSC:
            return open_pcsc(options, protection)
        if options.one("token") is not None:
            choice = TokenChoice.of(options)
            choice.check_modules()
            return TokenSupply(choice, state, protection)
        card = open_card(options, state, keep=protection.retry_floor)
        return FixedCard(protection.protect(card))


def open_pcsc(options: CardOptions, protection: Protection = UNPROTECTED) -> CardSupply:
    """Opens what fills the slot of a `--card=pcsc`.

    Raises:
        UserError: What reads this host's readers is not installed.
    """
    try:
        # pyscard is an optional dependency.
        from ccidd.service.pcsc import pcsc_supply  # noqa: PLC0415
    except ImportError as error:
        raise UserError("this needs pyscard: pip install ccidd[pcsc]") from error
    return pcsc_supply(options, protection)


def find_stored_card(name: str, options: CardOptions, state: State) -> CardRecord:
    """Finds the card that `card=` names.

    Raises:
        UserError: There is none, or it is of another kind.
    """
    with options.where.naming("card"):
        record = state.card(name)
    if record.type != options.type:
        raise options.where.error(f"the card {name} is {record.type}, not {options.type}", "card")
    return record


def open_card(options: CardOptions, state: State, *, keep: int = 0) -> Card:
    """Opens the card that a `--card` describes.

    Args:
        options: the parsed `--card`.
        state: what the card remembers.
        keep: how many tries of a token's PIN guests leave.

    Raises:
        UserError: There is no such card, another process serves it, or a file cannot be used.
    """
    name = options.one("card")
    if name is None:
        return _open_configured_card(options, state, keep)
    record = find_stored_card(name, options, state)
    return open_stored_card(record, state, options.switches)


def open_stored_card(
    record: CardRecord, state: State, switches: Collection[str] = frozenset()
) -> Card:
    """Opens a card that is kept in the state directory.

    Raises:
        UserError: Another process serves it, or what is stored is damaged.
    """
    memory = StoredMemory(state, record)
    log.info("card_opened", guid=record.guid, name=record.name)
    return make_stored_card(record, memory, switches)


def make_stored_card(
    record: CardRecord, memory: CardMemory, switches: Collection[str] = frozenset()
) -> Card:
    """Makes a card of what it remembers.

    Raises:
        UserError: There is too little for such a card.
    """
    kind = CARD_TYPES[record.type]
    credentials = {
        key.reference: key.credential
        for key in keys_in(memory.contents)
        if kind.is_given_keys and key.credential is not None
    }
    return kind.make(credentials, memory, switches)


def read_sources(
    options: CardOptions, kind: CardType, sources: KeySources
) -> tuple[Keys, Mapping[int, bytes]]:
    """Reads keys and PINs of a card whose keys are kept elsewhere.

    Returns:
        The keys, and the PIN and the PUK as they are on the wire, by their key references.

    Raises:
        UserError: A file, a database or a token cannot be used.
    """
    keys = sources.keys()
    wire_pins = dict(_on_wire(options, kind))
    if kind.pin in wire_pins:
        sources.log_in()
    elif not all(token.needs_login for token in keys.tokens):
        name = next(token.name for token in keys.tokens if not token.needs_login)
        raise options.where.error(
            f"{name} has no PIN; give it one (a database: certutil -W), or the card (pin-file=)"
        )
    return keys, wire_pins


def _open_configured_card(options: CardOptions, state: State, keep: int) -> Card:
    """Opens a card whose keys are kept elsewhere; what it remembers is found by its GUID."""
    kind = CARD_TYPES[options.type]
    # Before anything is remembered of the card: is all the rest in order?
    keys, wire_pins = read_sources(options, kind, KeySources(options, kind, state.resources))
    guid = str(guid_of(keys.placed.values()))
    state.note_card(guid, options.type)
    pins = {}
    if kind.pin not in wire_pins:
        pins[kind.pin] = TokenPin(state, guid, kind.pin, keys.tokens, keep=keep)
    # Only with the extensions a guest could write on such a card: it has no administration key.
    shared = keys.are_on_tokens and "vendor-extensions" not in options.switches
    memory = StoredMemory(state, state.card(guid), pins, shared=shared)
    for reference, pin in wire_pins.items():
        apply_pin_file(state, guid, reference, pin)
    log.info("card_opened", guid=guid)
    return kind.make(keys.placed, memory, options.switches)


def _on_wire(options: CardOptions, kind: CardType) -> Iterator[tuple[int, bytes]]:
    files = pins_from_files(options)
    if "pin-file" in files:
        with options.where.naming("pin-file"):
            pin = pin_on_wire(*files["pin-file"])
        yield kind.pin, pin
    if "puk-file" in files:
        with options.where.naming("puk-file"):
            puk = puk_on_wire(*files["puk-file"])
        yield PUK, puk
