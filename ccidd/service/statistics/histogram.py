# SPDX-License-Identifier: Apache-2.0
"""Durations, by how long they were."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from math import inf
from typing import Final

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, inf)
"""Seconds that divide durations: from what a card in memory takes to a person who is asked."""


class Histogram:
    """How many durations there were of each length.

    Attributes:
        sum: all of them together, in seconds.
    """

    def __init__(self) -> None:
        self._counts = [0] * len(BOUNDS)
        self.sum = 0.0

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def add(self, seconds: float) -> None:
        """Counts one."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Gives each bound with how many durations were not above it."""
        return zip(BOUNDS, accumulate(self._counts), strict=True)
