# SPDX-License-Identifier: Apache-2.0
"""Commands about the PINs of cards that are kept here.

What they change is in the database alone, where a card looks each time: so a card that is in a slot
of this process, or is served by another, has its new PIN at once.
"""

import enum
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from ccidd.service.cardpins import chosen_pin, secret_on_wire, try_pin
from ccidd.service.cardtypes import PUK
from ccidd.service.control.commands.lookup import check_slot, find_reader
from ccidd.service.control.context import Context
from ccidd.service.control.errors import CommandError, not_found
from ccidd.service.control.registry import command
from ccidd.service.control.roles import Role
from ccidd.service.control.shapes import Secret
from ccidd.service.state import CardRecord, StoredPin

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Which(enum.StrEnum):
    """Which PIN of a card is meant."""

    PIN = "pin"
    PUK = "puk"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class Tries:
    """How a PIN is.

    Attributes:
        guid: the card's GUID.
        tries_left: how many wrong tries it stands.
        max_tries: how many it stands in a row.
    """

    guid: str
    tries_left: int
    max_tries: int


@command(Role.OPERATE)
async def card_change_pin(  # noqa: PLR0913 (a card can be named in two ways)
    context: Context,
    *,
    pin: Secret,
    new_pin: Secret,
    which: Which = Which.PIN,
    card: str | None = None,
    reader: str | None = None,
    slot: int = 0,
) -> Tries:
    """Changes a PIN of a card, which is named or in a slot; a wrong one costs a try."""
    record = await _find(context, card, reader, slot)
    reference, name = await _choose(context, record, which)
    # Whether the new one can be used is told before a try is spent.
    new = secret_on_wire(new_pin.value.encode(), name)
    stored = StoredPin(context.state, record.guid, reference)
    await try_pin(stored, secret_on_wire(pin.value.encode(), name), name, which)
    await stored.change(new)
    log.info("pin_changed", guid=record.guid, which=which.value)
    return Tries(record.guid, await stored.tries_left(), await stored.max_tries())


@command(Role.OPERATE)
async def card_unblock(  # noqa: PLR0913 (as above)
    context: Context,
    *,
    which: Which = Which.PIN,
    puk: Secret | None = None,
    new_pin: Secret | None = None,
    card: str | None = None,
    reader: str | None = None,
    slot: int = 0,
) -> Tries:
    """Gives a PIN of a card all tries back; or, given the PUK, sets a new one."""
    if (puk is None) is not (new_pin is None):
        raise CommandError("card-unblock takes puk and new-pin together, or neither")
    record = await _find(context, card, reader, slot)
    reference, name = await _choose(context, record, which, changes=puk is not None)
    stored = StoredPin(context.state, record.guid, reference)
    if puk is None or new_pin is None:
        await context.state.in_thread(partial(context.state.restore_tries, record.guid, reference))
    elif which is not Which.PIN:
        raise CommandError(f"the PUK does not unblock the {name}; leave it out")
    else:
        new = secret_on_wire(new_pin.value.encode(), name)
        pin = StoredPin(context.state, record.guid, PUK)
        await try_pin(pin, secret_on_wire(puk.value.encode(), "PUK"), "PUK", Which.PUK)
        await stored.change(new)
    log.info("pin_unblocked", guid=record.guid, which=which.value)
    return Tries(record.guid, await stored.tries_left(), await stored.max_tries())


async def _find(context: Context, card: str | None, reader: str | None, slot: int) -> CardRecord:
    """Finds a card by its name or GUID, or by its place."""
    state = context.state
    if card is None:
        place = find_reader(context, reader)
        check_slot(place, slot)
        options = place.cards[slot]
        if options is None:
            raise not_found(f"slot {slot} of the reader {place.name} is empty")
        card = options.one("card")
        if card is None:
            raise CommandError(
                f"the card in slot {slot} of the reader {place.name} has keys from elsewhere: name"
                " it by its GUID (card=), which query-cards tells"
            )
    record = await state.in_thread(partial(state.find_card, card))
    if record is None:
        raise not_found("there is no card of this name or GUID; query-cards lists them")
    return record


async def _choose(
    context: Context, record: CardRecord, which: Which, *, changes: bool = True
) -> tuple[int, str]:
    """Gives the reference of a PIN that there is, and what to call it."""
    state = context.state
    choose = partial(chosen_pin, state, record, which.value, changes=changes)
    reference, name = await state.in_thread(choose)
    if await state.in_thread(partial(state.pin, record.guid, reference)) is None:
        raise CommandError(
            f"the card has no {name}; `ccidd card reset-pin --which={which.value}` sets one"
        )
    return reference, name


COMMANDS: Final = (card_change_pin, card_unblock)
