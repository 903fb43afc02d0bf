# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator

import pytest
import structlog
import trio
import trio.testing
from structlog.typing import EventDict

from ccidd.card.card import Card
from ccidd.reader.slot import Slot
from usbredir_bench import Bench, Plug


@pytest.fixture
def plug(nursery: trio.Nursery) -> Plug:
    async def plug(*cards: Card | None) -> Bench:
        bench = Bench(nursery, [Slot(card) for card in cards])
        await trio.testing.wait_all_tasks_blocked()
        return bench

    return plug


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def held() -> trio.Event:
    """What a `held_card` waits for."""
    return trio.Event()
