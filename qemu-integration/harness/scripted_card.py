# SPDX-License-Identifier: Apache-2.0
"""A card that answers with as many bytes as P1 and P2 say, behind ccidd's own front door.

    python scripted_card.py --socket-path=S

It takes ccidd's options for the socket and its state, and stands in its place in a test.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import trio

from ccid_protocol.atr import ATR
from ccidd.card.card import Card
from ccidd.reader.slot import Slot
from ccidd.service.daemon import serve
from ccidd.service.log import configure_log
from ccidd.service.served import SocketReader
from ccidd.service.service import Service
from ccidd.transport.endpoint import listen
from ccidd.transport.vscard import serve_vscard


def response_of_length(length: int) -> bytes:
    """Return the response with which the card answers; `length` counts the status word."""
    return bytes(i % 251 for i in range(length - 2)) + b"\x90\x00"


class ScriptedCard(Card):
    """The card."""

    async def power_on(self) -> ATR:
        await trio.lowlevel.checkpoint()
        return ATR(b"scripted")

    async def power_off(self) -> None:
        await trio.lowlevel.checkpoint()

    async def transmit(self, command: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return response_of_length(int.from_bytes(command[2:4]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket-path", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, help="not used: the card remembers nothing")
    options = parser.parse_args()
    configure_log("info")
    slot = Slot(ScriptedCard())
    handler = partial(serve_vscard, slot=slot)
    service = Service()
    service.put(SocketReader([slot], partial(listen, options.socket_path), handler))
    trio.run(serve, service)


if __name__ == "__main__":
    main()
