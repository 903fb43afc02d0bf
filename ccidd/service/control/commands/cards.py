# SPDX-License-Identifier: Apache-2.0
"""Commands about cards, and about what is in the slots."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog

from ccid_protocol.qmp import JSON
from ccidd.errors import UserError
from ccidd.service.cardview import CardView, card_view
from ccidd.service.control.commands.lookup import check_slot, find_reader, read_card_argument
from ccidd.service.control.context import Context
from ccidd.service.control.errors import not_found
from ccidd.service.control.registry import command
from ccidd.service.control.roles import Role
from ccidd.service.options import CardOptions
from ccidd.service.served import ServedReader
from ccidd.service.state import CardRecord

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PinInfo:
    """A PIN of a card.

    Attributes:
        reference: its key reference, in hexadecimal.
        name: what it is.
        tries_left: how many wrong tries it stands.
        max_tries: how many it stands in a row.
    """

    reference: str
    name: str
    tries_left: int
    max_tries: int


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key of a card.

    Attributes:
        reference: its key reference, in hexadecimal.
        algorithm: what it is for.
        subject: whose its certificate is, if it has one.
        issuer: who has issued that.
        not_before: from when on it is valid (ISO 8601).
        not_after: until when.
        fingerprint: its SHA-256, in hexadecimal.
    """

    reference: str
    algorithm: str
    subject: str | None
    issuer: str | None
    not_before: str | None
    not_after: str | None
    fingerprint: str | None


@dataclass(frozen=True, slots=True)
class CardInfo:
    """A card that is remembered here.

    Attributes:
        guid: its GUID.
        name: what it is called; nothing if its keys are not kept here.
        type: the kind of card.
        created: when it was first seen (ISO 8601).
        served_by: the process that serves it, if one does.
        reader: the reader that it is in, if it is in one of this process and is kept here.
        slot: the slot there.
        pins: its PINs.
        keys: its keys, if they are kept here.
    """

    guid: str
    name: str | None
    type: str
    created: str
    served_by: int | None
    reader: str | None
    slot: int | None
    pins: Sequence[PinInfo]
    keys: Sequence[KeyInfo]


@command(Role.OBSERVE)
async def query_cards(context: Context) -> Sequence[CardInfo]:
    """Lists the cards that are remembered in the state directory."""
    state = context.state
    cards = []
    for record in await state.in_thread(state.cards):
        view = await state.in_thread(partial(card_view, state, record))
        cards.append(_info(view, *_place(context.service.readers.values(), record)))
    return cards


def _place(
    readers: Iterable[ServedReader], record: CardRecord
) -> tuple[str, int] | tuple[None, None]:
    """Gives the reader and the slot of a card that is kept here."""
    for reader in readers:
        for index, card in enumerate(reader.cards):
            # It is served by its name or by its GUID.
            name = (None if card is None else card.one("card")) or ""
            if name == record.name or name.lower() == record.guid:
                return reader.name, index
    return None, None


def _info(view: CardView, reader: str | None, slot: int | None) -> CardInfo:
    return CardInfo(
        guid=view["guid"],
        name=view["name"],
        type=view["type"],
        created=view["created"],
        served_by=view["served_by"],
        reader=reader,
        slot=slot,
        pins=[PinInfo(**pin) for pin in view["pins"]],
        keys=[KeyInfo(**key) for key in view["keys"]],
    )


@command(Role.OPERATE)
async def card_insert(
    context: Context, *, card: str | Mapping[str, JSON], reader: str | None = None, slot: int = 0
) -> None:
    """Puts a card into an empty slot; it is described as `--card` or a configuration file does."""
    place = find_reader(context, reader)
    check_slot(place, slot)
    options = read_card_argument(card)
    _check(place, options)
    await place.insert_card(slot, options)


@command(Role.OPERATE)
async def card_remove(context: Context, *, reader: str | None = None, slot: int = 0) -> None:
    """Takes the card out of a slot; what it was at is ended first."""
    place = find_reader(context, reader)
    check_slot(place, slot)
    _card_in(place, slot)
    await place.remove_card(slot)


@command(Role.OPERATE)
async def card_swap(
    context: Context, *, card: str | Mapping[str, JSON], reader: str | None = None, slot: int = 0
) -> None:
    """Puts a card in the place of another, which comes back if the new one cannot be used."""
    place = find_reader(context, reader)
    check_slot(place, slot)
    options = read_card_argument(card)
    _check(place, options)
    old = _card_in(place, slot)
    # What fills several slots is in one piece.
    first = min(index for index, each in enumerate(place.cards) if each is old)
    await place.remove_card(slot)
    try:
        await place.insert_card(slot, options)
    except UserError:
        await _put_back(place, first, old)
        raise


async def _put_back(place: ServedReader, first: int, old: CardOptions) -> None:
    try:
        await place.insert_card(first, old)
    except UserError as error:
        log.warning("card_not_put_back", slot=first, reason=f"{error}")


def _check(place: ServedReader, card: CardOptions) -> None:
    """Holds a card against the reader that it is for.

    Raises:
        UserError: They do not go together.
    """
    if place.configuration is not None:
        replace(place.configuration, cards=(card,)).check()


def _card_in(place: ServedReader, slot: int) -> CardOptions:
    card = place.cards[slot]
    if card is None:
        raise not_found(f"slot {slot} of the reader {place.name} is empty")
    return card


COMMANDS: Final = (
    query_cards,
    card_insert,
    card_remove,
    card_swap,
)
