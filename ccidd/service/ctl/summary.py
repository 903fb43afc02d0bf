# SPDX-License-Identifier: Apache-2.0
"""Shortens what a control socket returns to what people want to see of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from ccid_protocol.qmp import JSON


def for_people(command: str, value: JSON) -> JSON:
    """Shortens what a command returns; gives it as it is where that is short enough."""
    shorten = _SHORTENED.get(command)
    return value if shorten is None else shorten(value)


def _cards(cards: JSON) -> JSON:
    return [
        {
            "card": card.get("name") or card.get("guid"),
            "type": card.get("type"),
            "reader": card.get("reader"),
            "slot": card.get("slot"),
            "served-by": card.get("served-by"),
            "tries": [f"{pin.get('name')} {pin.get('tries-left')}" for pin in _all(card, "pins")],
            "keys": [
                f"{key.get('reference')} {key.get('algorithm')}" for key in _all(card, "keys")
            ],
        }
        for card in _objects(cards)
    ]


def _requests(requests: JSON) -> JSON:
    shown = ("id", "kind", "reader", "slot", "guest", "card", "timeout")
    return [{name: request.get(name) for name in shown} for request in _objects(requests)]


def _stats(stats: JSON) -> JSON:
    if not isinstance(stats, Mapping):
        return stats
    shown: dict[str, JSON] = {"since": _time(stats.get("since"))}
    for reader in _all(stats, "readers"):
        name = reader.get("reader")
        shown[f"{name}"] = {"connections": reader.get("connections")}
        for slot in _all(reader, "slots"):
            shown[f"{name}, slot {slot.get('slot')}"] = _slot(slot)
    return shown


def _slot(slot: Mapping[str, JSON]) -> JSON:
    times = _mapping(slot, "key-operations")
    keys = {name: _mean(times, name) for name in times}
    return {
        "cards": [f"{slot.get(name)} {name}" for name in ("insertions", "removals", "power-ons")],
        "commands": _counts(slot, "commands"),
        "responses": _counts(slot, "responses"),
        "time of a command": _mean(slot, "command-seconds"),
        **{f"time to {name}": mean for name, mean in keys.items()},
        "failed uses of keys": _counts(slot, "key-failures"),
        "wrong PINs": slot.get("pin-failures"),
        "refused by the guard": _counts(slot, "guard-refusals"),
        "faults": slot.get("faults"),
    }


def _counts(slot: Mapping[str, JSON], name: str) -> JSON:
    """Gives a word or two for each of what was counted by kinds."""
    return [f"{count} {kind}" for kind, count in _mapping(slot, name).items()]


def _mean(times: Mapping[str, JSON], name: str) -> JSON:
    """Gives the mean of a histogram."""
    histogram = _mapping(times, name)
    count, seconds = histogram.get("count"), histogram.get("sum")
    if not isinstance(count, int) or not isinstance(seconds, int | float) or not count:
        return None
    return f"{seconds / count * 1000:.3g} ms on average of {count}"


def _time(seconds: JSON) -> JSON:
    if not isinstance(seconds, int | float):
        return seconds
    return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _mapping(value: Mapping[str, JSON], name: str) -> Mapping[str, JSON]:
    member = value.get(name)
    return member if isinstance(member, Mapping) else {}


def _all(value: Mapping[str, JSON], name: str) -> Iterator[Mapping[str, JSON]]:
    return _objects(value.get(name))


def _objects(value: JSON) -> Iterator[Mapping[str, JSON]]:
    """Gives the objects of a list."""
    if isinstance(value, Sequence):
        yield from (each for each in value if isinstance(each, Mapping))


_SHORTENED: Final[Mapping[str, Callable[[JSON], JSON]]] = {
    "query-cards": _cards,
    "query-requests": _requests,
    "query-stats": _stats,
}
