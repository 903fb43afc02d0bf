# SPDX-License-Identifier: Apache-2.0
"""Shortens what a control socket returns to what a line of a table has room for."""

from collections.abc import Mapping, Sequence

from ccid_protocol.qmp import JSON


def for_people(value: JSON) -> JSON:
    """Shortens a list of cards; gives anything else as it is."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return value
    return [_card(row) if isinstance(row, Mapping) and "pins" in row else row for row in value]


def _card(card: Mapping[str, JSON]) -> JSON:
    return {
        "card": card.get("name") or card.get("guid"),
        "type": card.get("type"),
        "reader": card.get("reader"),
        "slot": card.get("slot"),
        "served-by": card.get("served-by"),
        "tries": _each(card.get("pins"), "name", "tries-left"),
        "keys": _each(card.get("keys"), "reference", "algorithm"),
    }


def _each(objects: JSON, *names: str) -> JSON:
    """Gives some members of each object, in a word or two."""
    if not isinstance(objects, Sequence):
        return None
    return [
        " ".join(f"{each.get(name)}" for name in names)
        for each in objects
        if isinstance(each, Mapping)
    ]
