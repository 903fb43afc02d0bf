# SPDX-License-Identifier: Apache-2.0
"""The guest's serial console: watched for a panic, and lent to a person's terminal."""

from __future__ import annotations

import os
import sys
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from harness.errors import HarnessError
from harness.process import background_tasks

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterator

_CHUNK = 4096
_PANIC = b"Kernel panic"
_LEAVE = b"\x1d"
"""Ctrl-]"""


class Console:
    """The guest's ttyS0; QEMU keeps what is written to it in a file besides."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._terminal: int | None = None
        self.panicked = trio.Event()

    async def receive(self) -> None:
        """Take what the guest writes until QEMU is gone: a console that is not read blocks it."""
        seen = b""
        while True:
            try:
                chunk = await self._stream.receive_some(_CHUNK)
            except trio.BrokenResourceError:
                return
            if not chunk:
                return
            seen = (seen + chunk)[-_CHUNK - len(_PANIC) :]
            if _PANIC in seen:
                self.panicked.set()
            if self._terminal is not None:
                await _write_all(self._terminal, chunk)

    async def lend(self, shell: Callable[[tuple[int, int]], Awaitable[object]]) -> None:
        """Connect this process's terminal until the shell ends or the person presses Ctrl-].

        Args:
            shell: Runs a shell on the console, given the terminal's lines and columns.

        Raises:
            HarnessError: Standard input or output is no terminal.
        """
        source, target = sys.stdin.fileno(), sys.stdout.fileno()
        if not (os.isatty(source) and os.isatty(target)):
            raise HarnessError("a shell in the guest needs a terminal as standard input and output")
        size = os.get_terminal_size(target)
        with _raw(source):
            self._terminal = target
            try:
                async with background_tasks() as tasks:
                    tasks.start_soon(self._relay, source, tasks.cancel_scope)
                    await shell((size.lines, size.columns))
            finally:
                self._terminal = None

    async def type(self, text: bytes) -> None:
        """Send what a person would type."""
        await self._stream.send_all(text)

    async def aclose(self) -> None:
        """Close the host's end."""
        await self._stream.aclose()

    async def _relay(self, source: int, until_left: trio.CancelScope) -> None:
        while True:
            await trio.lowlevel.wait_readable(source)
            typed, leave, _ = os.read(source, _CHUNK).partition(_LEAVE)
            if typed:
                await self._stream.send_all(typed)
            if leave or not typed:
                until_left.cancel()
                return


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Switch a terminal to raw mode, and back whatever happens."""
    saved = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, saved)


async def _write_all(terminal: int, data: bytes) -> None:
    while data:
        await trio.lowlevel.wait_writable(terminal)
        data = data[os.write(terminal, data) :]
