# SPDX-License-Identifier: Apache-2.0
"""vscclient's commands on standard input, with its prompt and its answers.

Source: libcacard 2.8, vscclient (observed, and its list of "valid commands").
"""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Final

import trio

from ccidd.service.vscclient.readers import Readers

PROMPT: Final = "> "

_STDIN: Final = 0
_STDOUT: Final = 1
_READ_SIZE: Final = 4096
_MAX_LINE: Final = 4096
_BACKGROUND_DELAY: Final = 1.0

_OK: Final = 0
_FAILED: Final = 1

_VALID_COMMANDS: Final = """\
valid commands:
insert [reader_id]
remove [reader_id]
select reader_id
list
debug [level]
exit
"""


class Commands:
    """Carries commands out.

    Args:
        readers: what they are about.
        debug_level: the level to begin with.
        set_debug_level: called with each new one.
    """

    def __init__(
        self, readers: Readers, debug_level: int, set_debug_level: Callable[[int], None]
    ) -> None:
        self._readers = readers
        self._debug_level = debug_level
        self._set_debug_level = set_debug_level

    async def run(self) -> None:
        """Carries out what comes on standard input; `exit` ends the process as SIGTERM does.

        So does the end of a terminal's input. After that of anything else the readers are served
        on: they may have been started without anybody to give commands.
        """
        await _write(PROMPT)
        async for line in _lines():
            if line.split()[:1] == ["exit"]:
                break
            await _write(self.obey(line) + PROMPT)
        else:
            if not os.isatty(_STDIN):
                return
        signal.raise_signal(signal.SIGTERM)

    def obey(self, line: str) -> str:
        """Carries a command out, other than `exit`.

        Args:
            line: the command.

        Returns:
            What to print.
        """
        match line.split():
            case []:
                return ""
            case ["insert" | "remove" as command, *arguments]:
                return self._move(command, *arguments)
            case ["select", *arguments]:
                return self._select(*arguments)
            case ["list", *_]:
                return self._list()
            case ["debug", *arguments]:
                return self._debug(*arguments)
            case _:
                return _VALID_COMMANDS

    def _move(self, command: str, which: str = "", *_: str) -> str:
        number = self._find(which)
        if number is None:
            return f"no reader by id {which} found\n"
        move = self._readers.insert if command == "insert" else self._readers.remove
        result = _OK if move(number) else _FAILED
        return f"{command} {self._readers[number].name}, returned {result}\n"

    def _select(self, which: str = "", *_: str) -> str:
        number = self._find(which)
        if number is None:
            return f"Reader with id {which} not found\n"
        self._readers.select(number)
        return f"Selecting reader {number}, {self._readers[number].name}\n"

    def _list(self) -> str:
        lines = []
        for number in range(len(self._readers)):
            reader = self._readers[number]
            state = "CARD_PRESENT" if reader.insertion else ""
            lines.append(f"{number:3} {state:12} {reader.name}\n")
        active = lines.pop(self._readers.current)
        return "".join(["Active Readers:\n", active, "Inactive Readers:\n", *lines])

    def _debug(self, level: str = "", *_: str) -> str:
        if level:
            self._debug_level = int(level) if level.isdecimal() else 0
            self._set_debug_level(self._debug_level)
        return f"debug level = {self._debug_level}\n"

    def _find(self, which: str) -> int | None:
        """Gives the number of a reader; of the current one if no other is named."""
        if not which:
            return self._readers.current
        known = {str(number): number for number in range(len(self._readers))}
        return known.get(which)


async def _lines() -> AsyncIterator[str]:
    """Gives the lines of standard input, as they come."""
    received = b""
    while data := await _read():
        *lines, received = (received + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
        received = received[-_MAX_LINE:]
    if received:
        yield received.decode(errors="replace")


async def _read() -> bytes:
    """Reads what there is, as soon as there is something; nothing at the end."""
    # Files are no matter for epoll(7), and have no need of it. The descriptor stays blocking: it
    # may be a terminal that others use as well.
    with contextlib.suppress(PermissionError):
        await trio.lowlevel.wait_readable(_STDIN)
    # To read would stop the process (SIGTTIN), and with it the card. No event tells of a change.
    while _is_in_background():  # noqa: ASYNC110
        await trio.sleep(_BACKGROUND_DELAY)
    try:
        return await trio.to_thread.run_sync(os.read, _STDIN, _READ_SIZE, abandon_on_cancel=True)
    except OSError:
        return b""


def _is_in_background() -> bool:
    """Whether standard input is a terminal that belongs to others for now."""
    try:
        return os.tcgetpgrp(_STDIN) != os.getpgrp()
    except OSError:
        return False


async def _write(text: str) -> None:
    """Prints; that nobody listens does not end the service."""
    with contextlib.suppress(OSError):
        await trio.to_thread.run_sync(os.write, _STDOUT, text.encode(), abandon_on_cancel=True)
