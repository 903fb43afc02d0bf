# SPDX-License-Identifier: Apache-2.0
"""The log while inputs are tried: nothing is written, and a fault of ccidd's own fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

FAULTS: Final = {"error", "critical"}
"""Levels of the log for what must not happen."""

OF_THE_CARD: Final = {"card_fault"}
"""What a card that fails is logged as."""


@contextmanager
def quiet(*, of_the_card: bool = True) -> Iterator[None]:
    """Refuses what stands in the log of a fault, except of the card's if that is so."""
    with structlog.testing.capture_logs() as entries:
        yield
    faults = [entry for entry in entries if entry["log_level"] in FAULTS]
    allowed = OF_THE_CARD if of_the_card else set()
    assert not [entry for entry in faults if entry["event"] not in allowed]
