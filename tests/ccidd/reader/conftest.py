# SPDX-License-Identifier: Apache-2.0
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from ccid_host import Host, Start
from ccidd.card.card import Card
from ccidd.reader.profile import Level, default_profile
from ccidd.reader.slot import Slot
from terminal import Terminal, new_terminal


@pytest.fixture
def start(nursery: trio.Nursery) -> Start:
    async def start(*cards: Card | None, level: Level = Level.EXTENDED_APDU) -> Host:
        slots = [Slot(card, index) for index, card in enumerate(cards)]
        host = Host(slots, default_profile(len(slots), "1", level))
        nursery.start_soon(host.reader.run)
        await trio.testing.wait_all_tasks_blocked()
        return host

    return start


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    async with new_terminal() as terminal:
        yield terminal
