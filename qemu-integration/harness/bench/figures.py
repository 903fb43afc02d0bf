# SPDX-License-Identifier: Apache-2.0
"""Figures beside their baselines, as a table for people, for a document, and as a plot."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

ROUNDS: Final = 5

_BAR: Final = 18
_LABEL: Final = 420
_WIDTH: Final = 900


@dataclass(frozen=True)
class Figure:
    """A value beside that of a baseline.

    Attributes:
        name: What was measured.
        unit: Of both values.
        ours: The value.
        beside: What the baseline is; empty if there is none.
        baseline: Its value.
        ratio: The median of the ratios of each round.
    """

    name: str
    unit: str
    ours: float
    beside: str = ""
    baseline: float = 0.0
    ratio: float = 0.0

    @classmethod
    def of_pairs(
        cls, name: str, unit: str, beside: str, pairs: Iterable[tuple[float, float]]
    ) -> Figure:
        """Make one of what several rounds gave, ours first."""
        ours, baselines = zip(*pairs, strict=True)
        ratios = [a / b for a, b in zip(ours, baselines, strict=True)]
        median = statistics.median
        return cls(name, unit, median(ours), beside, median(baselines), median(ratios))

    def __str__(self) -> str:
        shown = f"{self.name:<52} {number(self.ours):>9} {self.unit:<5}"
        if not self.beside:
            return shown
        return f"{shown} {number(self.baseline):>9} {self.beside:<22} {self.ratio:>7.2f}"


def number(value: float) -> str:
    """Write a number with as many digits as it has to say."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


async def in_turn(
    ours: Callable[[], Awaitable[float]], baseline: Callable[[], Awaitable[float]]
) -> list[tuple[float, float]]:
    """Measure two things in turn, `ROUNDS` times."""
    return [(await ours(), await baseline()) for _ in range(ROUNDS)]


@dataclass
class Report:
    """All figures of a run; each is printed as soon as it is there."""

    figures: list[Figure] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        """Take a figure."""
        if not self.figures:
            print(f"{'':<52} {'ccidd':>9} {'':<5} {'baseline':>9} {'':<22} {'ratio':>7}")
        self.figures.append(figure)
        print(figure, flush=True)

    def write(self, table: Path) -> None:
        """Write the figures as a table in Markdown, and a plot of the ratios beside it."""
        lines = [
            f"Measured on {machine()}.",
            "",
            "| | ccidd | baseline | | ratio |",
            "| --- | ---: | ---: | --- | ---: |",
        ]
        for each in self.figures:
            beside = f"{number(each.baseline)} {each.unit}" if each.beside else ""
            ratio = f"{each.ratio:.2f}" if each.beside else ""
            ours = f"{number(each.ours)} {each.unit}"
            lines.append(f"| {each.name} | {ours} | {beside} | {each.beside} | {ratio} |")
        table.write_text("\n".join(lines) + "\n")
        table.with_suffix(".svg").write_text(plot(self.figures))


def machine() -> str:
    """Describe the machine."""
    processor = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return (
        f"{os.cpu_count()} processors ({processor}), Linux {platform.release()},"
        f" Python {platform.python_version()}"
    )


def plot(figures: Iterable[Figure]) -> str:
    """Draw the ratios as bars, as SVG; the line is where ccidd and its baseline are equal."""
    shown = [each for each in figures if each.beside]
    longest = max((each.ratio for each in shown), default=1.0)
    scale = (_WIDTH - _LABEL - 60) / max(longest, 1.0)
    rows = []
    for index, each in enumerate(shown):
        top, width = index * _BAR, each.ratio * scale
        text = f"{each.name}, beside {each.beside}".replace("&", "&amp;").replace("<", "&lt;")
        rows += [
            f'<text x="{_LABEL - 8}" y="{top + 13}" text-anchor="end">{text}</text>',
            f'<rect x="{_LABEL}" y="{top + 3}" width="{width:.1f}" height="12"/>',
            f'<text x="{_LABEL + width + 6:.1f}" y="{top + 13}">{each.ratio:.2f}</text>',
        ]
    height = len(shown) * _BAR + 4
    one = _LABEL + scale
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">',
            "<style>text{font:11px sans-serif}rect{fill:#48a}line{stroke:#c44}</style>",
            *rows,
            f'<line x1="{one:.1f}" y1="0" x2="{one:.1f}" y2="{height}"/>',
            "</svg>\n",
        ]
    )
