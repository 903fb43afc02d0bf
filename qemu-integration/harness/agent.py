# SPDX-License-Identifier: Apache-2.0
"""The host's side of the guest's agent; `guest_files/agent.py` describes the messages."""

from __future__ import annotations

import base64
import itertools
import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from harness.errors import HarnessError
from harness.lines import JsonLines, Message

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

_SILENCE_SECONDS = 30.0
"""How much later than a command's own timeout the agent may be."""


@dataclass(frozen=True)
class Completed:
    """A command that ran in the guest.

    Attributes:
        argv: The command.
        status: Its exit status, or the negative number of a signal.
        stdout: What it wrote.
        stderr: What it wrote there.
    """

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode(errors="backslashreplace")

    @property
    def error_text(self) -> str:
        """Standard error as text."""
        return self.stderr.decode(errors="backslashreplace")


class CommandError(HarnessError):
    """A command in the guest failed, took too long, or could not be started.

    Attributes:
        completed: What is known of it, where it was started.
    """

    def __init__(self, argv: Sequence[str], what: str, completed: Completed | None = None) -> None:
        self.completed = completed
        text = f"in the guest: {shlex.join(argv)}: {what}"
        if completed is not None:
            text += f"\n--- standard output\n{completed.text}"
            text += f"\n--- standard error\n{completed.error_text}"
        super().__init__(text)


class GuestGoneError(HarnessError):
    """The guest was reset, or QEMU ended, before the agent answered."""


class Agent:
    """Runs commands in the guest, any number at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._lines = JsonLines(sock)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, trio.MemorySendChannel[Message]] = {}
        self._closed = False
        self._news = trio.Condition()
        self.boots = 0

    async def wait_for_boot(self, count: int = 1) -> None:
        """Wait until the agent has started so many times since QEMU did.

        Raises:
            GuestGoneError: QEMU ended.
        """
        async with self._news:
            while self.boots < count:
                if self._closed:
                    raise GuestGoneError("QEMU ended before the guest was up")
                await self._news.wait()

    async def run(
        self, argv: Sequence[str], given: bytes, seconds: float | None, *, check: bool
    ) -> Completed:
        """Run a command; `Guest.run` describes it."""
        number = next(self._numbers)
        answered, answer = trio.open_memory_channel[Message](1)
        self._waiting[number] = answered
        request: Message = {
            "id": number,
            "argv": list(argv),
            "input": base64.b64encode(given).decode(),
            "timeout": seconds,
        }
        try:
            with trio.fail_after(math.inf if seconds is None else seconds + _SILENCE_SECONDS):
                await self._send(request)
                message = await answer.receive()
        except trio.EndOfChannel:
            raise GuestGoneError(f"the guest is gone, during: {shlex.join(argv)}") from None
        except trio.TooSlowError:
            raise CommandError(argv, "the guest does not answer any more") from None
        except trio.Cancelled:
            if not self._closed:
                await self._cancel(number)
            raise
        finally:
            self._waiting.pop(number, None)
            answer.close()
        return _completed(tuple(argv), message, seconds, check=check)

    async def receive(self) -> None:
        """Take what the agent sends until QEMU is gone: a task beside those that run commands."""
        async for message in self._lines.received():
            if message.get("hello"):
                await self._booted()
            elif isinstance(number := message.get("id"), int) and number in self._waiting:
                self._waiting[number].send_nowait(message)
        self._closed = True
        await self._booted(up=False)

    def moving(self) -> AbstractAsyncContextManager[Callable[[socket.socket], None]]:
        """Hold commands back while the guest moves; `JsonLines.moving` describes the block.

        Those that run meanwhile are answered from there.
        """
        return self._lines.moving()

    async def aclose(self) -> None:
        """Close the connection; the guest's agent waits for another."""
        await self._lines.aclose()

    async def _booted(self, *, up: bool = True) -> None:
        for answered in self._waiting.values():
            answered.close()
        async with self._news:
            self.boots += up
            self._news.notify_all()

    async def _send(self, message: Message) -> None:
        if self._closed:
            raise GuestGoneError("QEMU has ended")
        try:
            await self._lines.send(message)
        except trio.BrokenResourceError:
            raise GuestGoneError("QEMU has ended") from None

    async def _cancel(self, number: int) -> None:
        # The guest may be stopped, and read nothing.
        with trio.CancelScope(shield=True), trio.move_on_after(1):
            await self._send({"id": number, "cancel": True})


def _completed(
    argv: tuple[str, ...], message: Message, seconds: float | None, *, check: bool
) -> Completed:
    if "error" in message:
        raise CommandError(argv, str(message["error"]))
    completed = Completed(
        argv,
        int(str(message["status"])),
        base64.b64decode(str(message["stdout"])),
        base64.b64decode(str(message["stderr"])),
    )
    if message["timed_out"]:
        raise CommandError(argv, f"killed after {seconds} s", completed)
    if check and completed.status != 0:
        raise CommandError(argv, f"status {completed.status}", completed)
    return completed
