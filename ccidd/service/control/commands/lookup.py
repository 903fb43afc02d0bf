# SPDX-License-Identifier: Apache-2.0
"""Finds what the arguments of commands name: readers, slots and cards."""

from collections.abc import Mapping

from ccid_protocol.qmp import JSON
from ccidd.service.configfile import read_card
from ccidd.service.configtable import Table, suggestion
from ccidd.service.control.context import Context
from ccidd.service.control.errors import CommandError, not_found
from ccidd.service.options import CardOptions, parse_card
from ccidd.service.served import ServedReader
from ccidd.service.where import COMMAND_LINE


def find_reader(context: Context, name: str | None) -> ServedReader:
    """Finds a reader.

    Args:
        context: the service.
        name: its name; None for the only one.

    Raises:
        CommandError: There is none, or there are several and none is named.
    """
    readers = context.service.readers
    if name is not None:
        if name not in readers:
            what = suggestion(name, readers) or "; query-readers lists them"
            raise not_found(f"there is no reader of this name{what}")
        return readers[name]
    if len(readers) != 1:
        raise CommandError(f"say which reader: {', '.join(readers) or 'there is none'}")
    (reader,) = readers.values()
    return reader


def check_slot(reader: ServedReader, slot: int) -> None:
    """Sees to it that there is a slot.

    Raises:
        CommandError: There is none.
    """
    if not 0 <= slot < len(reader.slots):
        raise not_found(
            f"the reader {reader.name} has no slot {slot}; it has {len(reader.slots)}, from 0"
        )


def read_card_argument(card: str | Mapping[str, JSON]) -> CardOptions:
    """Reads the description of a card, a text as `--card` has it or a table of a file.

    Raises:
        UserError: It is wrong.
    """
    return (
        parse_card(card)
        if isinstance(card, str)
        else read_card(Table(COMMAND_LINE.within("card"), card))
    )


def card_text(card: CardOptions) -> str:
    """Describes a card as `--card` has it. There is no secret in that, but names of files."""
    assignments = [f"{name}={value}" for name, values in card.values.items() for value in values]
    return ",".join(part.replace(",", ",,") for part in (card.type, *assignments))
