# SPDX-License-Identifier: Apache-2.0
"""`ccidctl watch`: what happens in a ccidd, one event a line."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NoReturn

from ccid_protocol.qmp import JSON, Event
from ccidd.service.ctl import tables
from ccidd.service.ctl.client import Client

_LONGEST_NAME: Final = len("CONNECTION_CLOSED")


async def watch(client: Client, show: Callable[[str], None], *, as_json: bool) -> NoReturn:
    """Shows events until the connection ends.

    Args:
        client: the connection.
        show: takes each line.
        as_json: whether lines are the events as they came.

    Raises:
        DisconnectedError: It has ended.
    """
    while True:
        event = await client.receive()
        if isinstance(event, Event):
            show(_as_json(event) if as_json else _line(event))


def _line(event: Event) -> str:
    when = datetime.fromtimestamp(event.seconds, UTC).astimezone()
    data = " ".join(
        f"{tables.printable(name)}={_word(value)}" for name, value in event.data.items()
    )
    name = tables.printable(event.name)
    return f"{when:%Y-%m-%d %H:%M:%S}  {name:{_LONGEST_NAME}}  {data}".rstrip()


def _word(value: JSON) -> str:
    text = tables.shown(value)
    return f'"{text}"' if isinstance(value, str) and (" " in text or not text) else text


def _as_json(event: Event) -> str:
    timestamp = {"seconds": event.seconds, "microseconds": event.microseconds}
    return json.dumps({"timestamp": timestamp, "event": event.name, "data": event.data})
