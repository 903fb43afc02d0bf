# SPDX-License-Identifier: Apache-2.0
"""Statistics as text for those who collect metrics.

Source: OpenMetrics 1.0 (draft-richih-opsawg-openmetrics): 5.1 (text format), 5.4 (histograms).
"""

from collections.abc import Callable, Iterator, Mapping
from math import isinf
from typing import Final

from ccidd import __version__
from ccidd.service.statistics.histogram import Histogram
from ccidd.service.statistics.statistics import SlotStatistics, Statistics

CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})

# What is counted of a slot: the name, what it is, and the counts by the values of a label.
_SLOT_COUNTERS: Final[
    tuple[tuple[str, str, str, Callable[[SlotStatistics], Mapping[str, int]]], ...]
] = (
    ("insertions", "Cards that came.", "", lambda slot: {"": slot.insertions}),
    ("removals", "Cards that went.", "", lambda slot: {"": slot.removals}),
    ("power_ons", "Answers to reset.", "", lambda slot: {"": slot.power_ons}),
    ("faults", "What the card did not answer.", "", lambda slot: {"": slot.faults}),
    ("commands", "Command APDUs.", "instruction", lambda slot: slot.commands),
    ("responses", "Response APDUs, by SW1.", "sw1", lambda slot: slot.responses),
    ("key_failures", "Uses of keys that failed.", "operation", lambda slot: slot.key_failures),
    ("pin_failures", "PINs that were wrong.", "", lambda slot: {"": slot.pin_failures}),
    (
        "guard_refusals",
        "Commands that the guard has not let through.",
        "reason",
        lambda slot: slot.guard_refusals,
    ),
)


def openmetrics(statistics: Statistics) -> str:
    """Gives the text, which ends with `# EOF`."""
    return "".join(f"{line}\n" for line in _lines(statistics))


def _lines(statistics: Statistics) -> Iterator[str]:
    yield from _family("ccidd_build", "info", "The ccidd that is running.")
    yield _sample("ccidd_build_info", {"version": __version__}, 1)
    yield from _family("ccidd_connections", "counter", "Connections of guests.")
    for name, reader in statistics.readers.items():
        yield _sample("ccidd_connections_total", {"reader": name}, reader.connections)
    slots = [
        ({"reader": name, "slot": f"{index}"}, slot)
        for name, reader in statistics.readers.items()
        for index, slot in enumerate(reader.slots)
    ]
    for name, text, label, counts in _SLOT_COUNTERS:
        yield from _family(f"ccidd_{name}", "counter", text)
        for labels, slot in slots:
            for value, count in counts(slot).items():
                told = {**labels, label: value} if label else labels
                yield _sample(f"ccidd_{name}_total", told, count)
    yield from _family("ccidd_command_seconds", "histogram", "How long commands took.")
    for labels, slot in slots:
        yield from _histogram("ccidd_command_seconds", labels, slot.seconds)
    yield from _family("ccidd_key_operation_seconds", "histogram", "How long uses of keys took.")
    for labels, slot in slots:
        for kind, histogram in slot.key_operations.items():
            told = {**labels, "operation": kind}
            yield from _histogram("ccidd_key_operation_seconds", told, histogram)
    yield "# EOF"


def _family(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    if name.endswith("_seconds"):
        yield f"# UNIT {name} seconds"
    yield f"# HELP {name} {text}"


def _histogram(name: str, labels: Mapping[str, str], histogram: Histogram) -> Iterator[str]:
    for bound, count in histogram.cumulative():
        told = {**labels, "le": "+Inf" if isinf(bound) else f"{bound}"}
        yield _sample(f"{name}_bucket", told, count)
    yield _sample(f"{name}_count", labels, histogram.count)
    yield _sample(f"{name}_sum", labels, histogram.sum)


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    told = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in labels.items())
    return f"{name}{{{told}}} {value}"
