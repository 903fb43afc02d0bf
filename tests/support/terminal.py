# SPDX-License-Identifier: Apache-2.0
"""A terminal with a person in front of it: a pseudo-terminal, at whose other end the test is."""

import contextlib
import fcntl
import os
import re
import struct
import termios
from collections.abc import AsyncIterator

import trio

_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\(.|[=>])")
_SIZE = struct.pack("HHHH", 24, 80, 0, 0)


class Terminal:
    """The end of the person.

    Attributes:
        name: the path of the end that programs use.
    """

    def __init__(self, stream: trio.abc.Stream, theirs: int) -> None:
        self._stream = stream
        self._theirs = theirs
        self._output = ""
        self._seen = 0
        self._settings = termios.tcgetattr(theirs)
        self.name = os.ttyname(theirs)

    @property
    def text(self) -> str:
        """All that was shown, without what only moves the cursor or sets colours."""
        return _SEQUENCE.sub("", self._output)

    @property
    def is_as_before(self) -> bool:
        """Whether echo, line editing and so on are set as they were."""
        return termios.tcgetattr(self._theirs) == self._settings

    async def sees(self, pattern: str) -> None:
        """Waits until something new is shown that has the pattern, escape sequences included."""
        while not (match := re.compile(pattern, re.DOTALL).search(self._output, self._seen)):
            self._output += (await self._stream.receive_some(4096)).decode()
        self._seen = match.end()

    async def types(self, keys: str) -> None:
        await self._stream.send_all(keys.encode())


@contextlib.asynccontextmanager
async def new_terminal() -> AsyncIterator[Terminal]:
    ours, theirs = os.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, _SIZE)
        async with trio.lowlevel.FdStream(ours) as stream:
            yield Terminal(stream, theirs)
    finally:
        os.close(theirs)
