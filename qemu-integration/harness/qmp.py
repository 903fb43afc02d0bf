# SPDX-License-Identifier: Apache-2.0
"""QEMU's machine protocol (QEMU, docs/interop/qmp-spec), as much as tests need."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import trio

from harness.errors import HarnessError
from harness.lines import JsonLines, Message

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


class QmpError(HarnessError):
    """QEMU answered a command with an error, or is gone."""


class Qmp:
    """One QMP connection: commands, and the events that came since it was opened."""

    def __init__(self, sock: socket.socket) -> None:
        self._lines = JsonLines(sock)
        self._numbers = itertools.count(1)
        self._answers: dict[int, Message] = {}
        self._closed = False
        self._news = trio.Condition()
        self.events: list[Message] = []

    async def execute(self, command: str, /, **arguments: object) -> object:
        """Run a command and return what it returns.

        Args:
            command: Its name, such as "device_add".
            arguments: Its arguments under their own names: `**{"serial-number": "1"}` where one is
                no word of Python.

        Raises:
            QmpError: QEMU refused it, or is gone.
        """
        number = next(self._numbers)
        try:
            await self._lines.send({"execute": command, "arguments": arguments, "id": number})
        except trio.BrokenResourceError:
            raise QmpError(f"{command}: QEMU is gone") from None
        await self._wait_for(lambda: number in self._answers, command)
        answer = self._answers.pop(number)
        error = answer.get("error")
        if isinstance(error, dict):
            raise QmpError(f"{command} {arguments}: {error.get('desc')}")
        return answer["return"]

    async def wait_for_event(self, name: str, *, count: int = 1) -> Message:
        """Wait until an event has come so many times since the start, and return the last of them.

        Args:
            name: Such as "DEVICE_DELETED".
            count: `count_events(name) + 1` waits for one more.

        Raises:
            QmpError: QEMU is gone.
        """
        await self._wait_for(lambda: self.count_events(name) >= count, name)
        return [event for event in self.events if event["event"] == name][count - 1]

    def count_events(self, name: str) -> int:
        """Return how many times an event has come since the start."""
        return sum(event["event"] == name for event in self.events)

    async def receive(self) -> None:
        """Take what QEMU sends until it is gone: a task beside those that use this object."""
        with contextlib.suppress(trio.BrokenResourceError):
            # Nothing else is understood, and no event sent, before this.
            await self._lines.send({"execute": "qmp_capabilities"})
        async for message in self._lines.received():
            async with self._news:
                if "event" in message:
                    self.events.append(message)
                elif isinstance(number := message.get("id"), int):
                    self._answers[number] = message
                self._news.notify_all()
        async with self._news:
            self._closed = True
            self._news.notify_all()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._lines.aclose()

    async def _wait_for(self, happened: Callable[[], bool], what: str) -> None:
        async with self._news:
            while not happened():
                if self._closed:
                    raise QmpError(f"{what}: QEMU is gone")
                await self._news.wait()
