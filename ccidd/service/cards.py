# SPDX-License-Identifier: Apache-2.0
"""Opens the cards that the command line asks for."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import structlog

from ccidd.card.card import Card
from ccidd.card.piv.objects import guid_of
from ccidd.errors import UserError
from ccidd.keys.files import load_credentials, read_secret
from ccidd.keys.key import Credential
from ccidd.service.cardkeys import keys_in
from ccidd.service.cardtypes import CARD_TYPES, PUK, CardType
from ccidd.service.options import CardOptions
from ccidd.service.pincodes import pin_on_wire, puk_on_wire
from ccidd.service.state import CardRecord, State, StoredMemory
from ccidd.service.state.memory import apply_pin_file

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def open_card(options: CardOptions, state: State) -> Card:
    """Opens the card that a `--card` describes.

    Raises:
        UserError: There is no such card, another process serves it, or a file cannot be used.
    """
    name = options.one("card")
    if name is None:
        return _open_configured_card(options, state)
    record = state.card(name)
    if record.type != options.type:
        raise UserError(
            f"--card={options.type}: the card {name} is {record.type}; use --card={record.type},…"
        )
    return open_stored_card(record, state, options.switches)


def open_stored_card(
    record: CardRecord, state: State, switches: Collection[str] = frozenset()
) -> Card:
    """Opens a card that is kept in the state directory.

    Raises:
        UserError: Another process serves it, or what is stored is damaged.
    """
    memory = StoredMemory(state, record)
    credentials = {
        key.reference: key.credential
        for key in keys_in(memory.contents)
        if key.credential is not None
    }
    log.info("card_opened", guid=record.guid, name=record.name)
    return CARD_TYPES[record.type].make(credentials, memory, switches)


def _open_configured_card(options: CardOptions, state: State) -> Card:
    """Opens a card whose keys are kept elsewhere; what it remembers is found by its GUID."""
    kind = CARD_TYPES[options.type]
    credentials = _credentials(options, kind)
    # Before anything is remembered of the card: is all the rest in order?
    pins = dict(_pins_from_files(options, kind))
    guid = str(guid_of(credentials.values()))
    state.note_card(guid, options.type)
    memory = StoredMemory(state, state.card(guid))
    for reference, pin in pins.items():
        apply_pin_file(state, guid, reference, pin)
    log.info("card_opened", guid=guid)
    return kind.make(credentials, memory, options.switches)


def _credentials(options: CardOptions, kind: CardType) -> Mapping[int, Credential]:
    """Gives the keys by their references, in the order of the references.

    Raises:
        UserError: A file cannot be used, or there is no room for a key.
    """
    where = f"--card={options.type}"
    password_file = options.one("password-file")
    password = read_secret(Path(password_file)) if password_file else None
    placed: dict[int, Credential] = {}
    for name in options.values:
        reference = _reference_in(name)
        if reference is None:
            continue
        if reference not in kind.purposes:
            raise UserError(f"{where}: there is no key {name.removeprefix('key')} on such a card")
        if reference in placed:
            raise UserError(f"{where}: the option {name} is given twice")
        placed[reference] = _only(options.one(name) or "", password)
    others = [
        credential
        for file in options.values.get("keys", ())
        for credential in load_credentials(Path(file), password)
    ]
    free = [reference for reference in kind.purposes if reference not in placed]
    if len(others) > len(free):
        total = len(others) + len(placed)
        raise UserError(f"{where}: {total} keys, but a card has {len(kind.purposes)}")
    placed.update(zip(free, others, strict=False))
    if len({each.key.subject_public_key_info() for each in placed.values()}) < len(placed):
        raise UserError(f"{where}: the same key is there twice")
    return {reference: placed[reference] for reference in kind.purposes if reference in placed}


def _reference_in(option: str) -> int | None:
    """Gives the key reference in the name of an option such as `key9A`."""
    if option == "keys" or not option.startswith("key"):
        return None
    return int(option.removeprefix("key"), 16)


def _only(file: str, password: bytes | None) -> Credential:
    credentials: Sequence[Credential] = load_credentials(Path(file), password)
    if len(credentials) != 1:
        raise UserError(f"{file} holds {len(credentials)} private keys; use keys= for it")
    return credentials[0]


def _pins_from_files(options: CardOptions, kind: CardType) -> Iterator[tuple[int, bytes]]:
    pin_file, puk_file = options.one("pin-file"), options.one("puk-file")
    if pin_file is not None:
        yield kind.pin, pin_on_wire(read_secret(Path(pin_file)), pin_file)
    if puk_file is not None:
        yield PUK, puk_on_wire(read_secret(Path(puk_file)), puk_file)
