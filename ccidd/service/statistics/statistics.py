# SPDX-License-Identifier: Apache-2.0
"""What is counted, of each reader and of each of its slots.

Commands are counted by what their instruction is for, whatever application is selected; responses
by SW1 (ISO/IEC 7816-4:2013, tables 5 and 6). What a key is used for is told by the guard's means.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isinf
from typing import Final

from ccidd.card.guard.operations import CONFIRMABLE, Operation
from ccidd.card.naming import Exchange
from ccidd.reader.slot import Slot
from ccidd.service.events import JSON
from ccidd.service.exchanges import ExchangeObserver, PinOutcome, pin_try, refusal_of
from ccidd.service.statistics.histogram import Histogram

_OTHER: Final = "other"

_CLASSES: Final[Mapping[str, Iterable[int]]] = {
    "select": (0x70, 0xA4, 0xA5),
    "read": (
        *(0x36, 0x4C, 0x52, 0x56, 0x84, 0xA0, 0xA1, 0xA2, 0xB0, 0xB1, 0xB2, 0xB3, 0xC0),
        *(0xCA, 0xCB, 0xCC, 0xCD, 0xF7, 0xF8, 0xF9, 0xFD),
    ),
    "verify": (0x20, 0x21),
    "change-pin": (0x24, 0x25, 0x26, 0x28, 0x2C, 0x2D, 0xFA),
    "use-key": (0x22, 0x2A, 0x42, 0x82, 0x86, 0x87, 0x88),
    "write": (0x0E, 0x0F, 0x58, 0xD0, 0xD1, 0xD2, 0xD6, 0xD7, 0xDA, 0xDB, 0xDC, 0xDD, 0xE2, 0xFF),
    "manage": (0x04, 0x44, 0x46, 0x47, 0xE0, 0xE4, 0xE6, 0xE8, 0xF6, 0xFB, 0xFE),
}
_CLASS_OF: Final[dict[int | None, str]] = {
    ins: name for name, group in _CLASSES.items() for ins in group
}

_KEY_INSTRUCTIONS: Final = frozenset({0x2A, 0x42, 0x46, 0x47, 0x86, 0x87, 0x88, 0xDB, 0xFE})
"""Those that may use, make or import a key."""

_SUCCESSES: Final = frozenset({0x90, 0x61})

Counts = defaultdict[str, int]


def _counts() -> Counts:
    return defaultdict(int)


@dataclass(slots=True)
class SlotStatistics:
    """What happened in a slot.

    Attributes:
        insertions: cards that came.
        removals: cards that went.
        power_ons: answers to reset.
        faults: commands and power-ons that the card did not answer.
        commands: command APDUs, by what their instruction is for.
        responses: response APDUs, by SW1 in hexadecimal.
        seconds: how long commands took, with what they waited for.
        key_operations: how long keys were used, by what for; only where it was done.
        key_failures: how often it was not done.
        pin_failures: PINs that were wrong.
        guard_refusals: commands that the guard has not let through, by its reasons.
    """

    insertions: int = 0
    removals: int = 0
    power_ons: int = 0
    faults: int = 0
    commands: Counts = field(default_factory=_counts)
    responses: Counts = field(default_factory=_counts)
    seconds: Histogram = field(default_factory=Histogram)
    key_operations: dict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    key_failures: Counts = field(default_factory=_counts)
    pin_failures: int = 0
    guard_refusals: Counts = field(default_factory=_counts)


class ReaderStatistics(ExchangeObserver):
    """What happened to a reader.

    Args:
        slot_count: how many slots it has.

    Attributes:
        slots: what happened in each of them.
        connections: how many connections there were.
    """

    def __init__(self, slot_count: int) -> None:
        self.slots: Final[Sequence[SlotStatistics]] = [SlotStatistics() for _ in range(slot_count)]
        self.connections = 0

    def inserted(self, slot: Slot) -> None:
        """See `SlotObserver.inserted`."""
        self.slots[slot.index].insertions += 1

    def removed(self, slot: Slot) -> None:
        """See `SlotObserver.removed`."""
        self.slots[slot.index].removals += 1

    def powered_on(self, slot: Slot, atr: bytes) -> None:  # noqa: ARG002 (it is counted)
        """See `SlotObserver.powered_on`."""
        self.slots[slot.index].power_ons += 1

    def failed(self, slot: Slot, error: Exception) -> None:  # noqa: ARG002 (it is counted)
        """See `SlotObserver.failed`."""
        self.slots[slot.index].faults += 1

    def exchanged(self, slot: Slot, exchange: Exchange, seconds: float) -> None:
        """See `ExchangeObserver.exchanged`."""
        counts = self.slots[slot.index]
        counts.commands[_CLASS_OF.get(exchange.ins, _OTHER)] += 1
        counts.responses[_OTHER if exchange.sw is None else f"{exchange.sw >> 8:02X}"] += 1
        counts.seconds.add(seconds)
        refusal = refusal_of(slot)
        if refusal is not None:
            counts.guard_refusals[refusal.reason] += 1
            return
        if exchange.ins in _KEY_INSTRUCTIONS:
            _count_key_operation(counts, exchange, seconds)
        tried = pin_try(exchange)
        if tried is not None and tried.outcome is PinOutcome.WRONG:
            counts.pin_failures += 1


def _count_key_operation(counts: SlotStatistics, exchange: Exchange, seconds: float) -> None:
    judgement = exchange.judgement
    kinds = judgement.operations & (CONFIRMABLE | {Operation.GENERATE})
    if not kinds or exchange.more_follows or not judgement.asks:
        return
    kind = next(iter(kinds)).value if len(kinds) == 1 else "sign-or-decrypt"
    if exchange.sw is not None and exchange.sw >> 8 in _SUCCESSES:
        counts.key_operations[kind].add(seconds)
    else:
        counts.key_failures[kind] += 1


class Statistics:
    """What happened to all readers in service.

    Attributes:
        readers: what happened to each, by their names.
        since: when counting began, in seconds since 1970.
    """

    def __init__(self) -> None:
        self.readers: Final[dict[str, ReaderStatistics]] = {}
        self.since: Final = time.time()

    def add(self, reader: str, slot_count: int) -> ReaderStatistics:
        """Begins to count what happens to a reader, and gives what observes its slots."""
        self.readers[reader] = statistics = ReaderStatistics(slot_count)
        return statistics

    def remove(self, reader: str) -> None:
        """Forgets a reader that is served no more."""
        del self.readers[reader]

    def connected(self, reader: str) -> None:
        """Counts a connection."""
        self.readers[reader].connections += 1

    def snapshot(self) -> dict[str, JSON]:
        """Gives it all for `query-stats`; times are in seconds."""
        return {
            "since": self.since,
            "readers": [
                {
                    "reader": name,
                    "connections": reader.connections,
                    "slots": [
                        {"slot": index, **_slot(slot)} for index, slot in enumerate(reader.slots)
                    ],
                }
                for name, reader in self.readers.items()
            ],
        }


def _slot(counts: SlotStatistics) -> dict[str, JSON]:
    return {
        "insertions": counts.insertions,
        "removals": counts.removals,
        "power-ons": counts.power_ons,
        "faults": counts.faults,
        "commands": dict(counts.commands),
        "responses": dict(counts.responses),
        "command-seconds": _histogram(counts.seconds),
        "key-operations": {
            kind: _histogram(seconds) for kind, seconds in counts.key_operations.items()
        },
        "key-failures": dict(counts.key_failures),
        "pin-failures": counts.pin_failures,
        "guard-refusals": dict(counts.guard_refusals),
    }


def _histogram(histogram: Histogram) -> dict[str, JSON]:
    """Gives a histogram; the last bound, which all are below, is null."""
    return {
        "count": histogram.count,
        "sum": histogram.sum,
        "buckets": [
            {"up-to": None if isinf(bound) else bound, "count": count}
            for bound, count in histogram.cumulative()
        ],
    }
