# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import trio
import trio.testing

from ccid_protocol.qmp import JSON
from ccidd.service.ctl.client import DisconnectedError
from ccidd.service.ctl.watch import watch
from scripted_control import ScriptedControl, connected_to

EVENTS: list[tuple[str, dict[str, JSON]]] = [
    ("CARD_INSERTED", {"reader": "alice", "slot": 0}),
    ("CONNECTION_OPENED", {"reader": "alice", "guest": "guest win11"}),
    ("STOPPING", {}),
    ("PIN_FAILED", {"reader": "bob\x1b[2J", "tries-left": 2}),
]


async def shown(*, as_json: bool) -> list[str]:
    lines: list[str] = []
    control = ScriptedControl()
    async with connected_to(control) as client, trio.open_nursery() as nursery:

        async def follow() -> None:
            with pytest.raises(DisconnectedError):
                await watch(client, lines.append, as_json=as_json)

        nursery.start_soon(follow)
        for name, data in EVENTS:
            await control.emit(name, **data)
        await control.hang_up()
    return lines


async def test_an_event_is_a_line_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = await shown(as_json=False)
    assert [line[21:] for line in lines] == [
        "CARD_INSERTED      reader=alice slot=0",
        'CONNECTION_OPENED  reader=alice guest="guest win11"',
        "STOPPING",
        'PIN_FAILED         reader="bob [2J" tries-left=2',
    ]
    # The time is that of this machine's zone.
    assert all(line[10:16] == lines[0][10:16] for line in lines)
    assert lines[0][17:19] == "03"


async def test_an_event_is_a_line_for_programs() -> None:
    lines = [json.loads(line) for line in await shown(as_json=True)]
    assert lines == [
        {
            "timestamp": {"seconds": 1764042123, "microseconds": 456789},
            "event": name,
            "data": data,
        }
        for name, data in EVENTS
    ]
