# SPDX-License-Identifier: Apache-2.0
"""A person at the terminal who is asked for PINs, which are not shown, and for consent.

Source: termios(3), "Canonical and noncanonical mode", ECHO; tty(4), /dev/tty.
"""

import contextlib
import hmac
import os
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import structlog
import trio

from ccidd.errors import UserError
from ccidd.reader.pinentry.dialogue import MAX_ATTEMPTS, describe, digits
from ccidd.reader.pinentry.source import (
    EntryRequest,
    ModificationRequest,
    NoPin,
    PinEntry,
    Pins,
    PinSource,
)
from ccidd.service.ctl.tables import printable

log: structlog.stdlib.BoundLogger = structlog.get_logger()

T = TypeVar("T")

_MAX_LINE: Final = 4096
"""Bytes of the longest line that a terminal gives (termios(3))."""

_LOCAL_MODES: Final = 3
"""Where in what tcgetattr gives."""


class Terminal(PinSource):
    """Asks at a terminal, one question at a time. An empty line refuses.

    Args:
        path: the terminal.

    Raises:
        UserError: There is none.
    """

    def __init__(self, path: Path = Path("/dev/tty")) -> None:
        self._path = path
        self._person = trio.Lock()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_NOCTTY))
        except OSError as error:
            raise UserError(
                f"there is no terminal to ask at ({path}: {error.strerror}); use --pinentry"
            ) from error

    @property
    def can_modify(self) -> bool:
        """See `PinSource.can_modify`: always."""
        return True

    async def ask(self, request: EntryRequest) -> PinEntry:
        """See `PinSource.ask`."""
        return await self._talk(
            describe(request),
            lambda page: _enter_pins(page, request),
            request.timeout,
            late=NoPin.TIMED_OUT,
            failed=NoPin.CANCELLED,
        )

    async def confirm(self, text: str, seconds: float) -> bool:
        """Lets the person allow or refuse something.

        Args:
            text: what, in some lines.
            seconds: how long the person may take.

        Returns:
            Whether it was allowed; no answer in time is a refusal.
        """
        return await self._talk(text, _allow, seconds, late=False, failed=False)

    async def _talk(
        self,
        text: str,
        say: Callable[["_Page"], Awaitable[T]],
        seconds: float,
        *,
        late: T,
        failed: T,
    ) -> T:
        answer = late
        with trio.move_on_after(seconds):
            try:
                async with self._person, self._opened(text) as page:
                    answer = await say(page)
            except (OSError, termios.error, trio.BrokenResourceError):
                log.warning("terminal_failed", path=f"{self._path}")
                return failed
        return answer

    @contextlib.asynccontextmanager
    async def _opened(self, text: str) -> AsyncIterator["_Page"]:
        """Shows what it is about, and leaves the terminal as it was."""
        fd = os.open(self._path, os.O_RDWR | os.O_NOCTTY)
        async with trio.lowlevel.FdStream(fd) as stream:
            page = _Page(stream)
            with _restoring(fd):
                await page.write("".join(f"{printable(line)}\n" for line in text.split("\n")))
                try:
                    yield page
                except trio.Cancelled:
                    page.leave()
                    raise


class _Page:
    """What is shown and typed for one question."""

    def __init__(self, stream: trio.lowlevel.FdStream) -> None:
        self._stream = stream

    async def write(self, text: str) -> None:
        await self._stream.send_all(text.encode(errors="replace"))

    async def read(self, prompt: str, *, is_secret: bool) -> bytearray:
        """Reads a line, without its end; nothing if the terminal was closed or ^D was typed.

        What was typed before, for whatever purpose, does not count.
        """
        fd = self._stream.fileno()
        _set_echo(fd, on=not is_secret)
        await self.write(prompt)
        line = bytearray()
        piece = bytearray(_MAX_LINE)
        while True:
            await trio.lowlevel.wait_readable(fd)
            try:
                size = os.readv(fd, [piece])
            except BlockingIOError:
                continue
            except OSError:
                # The terminal has gone.
                size = 0
            line += memoryview(piece)[:size]
            piece[:] = bytes(len(piece))
            if not size or line.endswith(b"\n"):
                break
        if is_secret:
            await self.write("\n")
        return line.rstrip(b"\r\n")

    def leave(self) -> None:
        """Ends the line of a prompt that nobody is to answer any more."""
        with contextlib.suppress(OSError):
            os.write(self._stream.fileno(), b"\n")


@contextlib.contextmanager
def _restoring(fd: int) -> Iterator[None]:
    """Leaves a terminal's settings as they were, and drops what was half typed."""
    before = termios.tcgetattr(fd)
    try:
        yield
    finally:
        # The terminal may have gone.
        with contextlib.suppress(termios.error):
            _apply(fd, before)


def _set_echo(fd: int, *, on: bool) -> None:
    """Says whether what is typed is shown, and forgets what was typed."""
    settings = termios.tcgetattr(fd)
    if on:
        settings[_LOCAL_MODES] |= termios.ECHO
    else:
        settings[_LOCAL_MODES] &= ~termios.ECHO
    settings[_LOCAL_MODES] |= termios.ICANON
    _apply(fd, settings)


def _apply(fd: int, settings: list[int | list[bytes | int]]) -> None:
    """Does what TCSAFLUSH does, but without waiting for a terminal whose output is stopped."""
    termios.tcsetattr(fd, termios.TCSANOW, settings)
    termios.tcflush(fd, termios.TCIFLUSH)


async def _allow(page: _Page) -> bool:
    answer = await page.read("Allow? [y/N] ", is_secret=False)
    return bytes(answer).strip().lower() in {b"y", b"yes"}


async def _enter_pins(page: _Page, request: EntryRequest) -> PinEntry:
    if not isinstance(request, ModificationRequest):
        pin = await _enter(page, "PIN", request)
        return NoPin.CANCELLED if pin is None else Pins(current=pin)
    if request.after_mismatch:
        await page.write("The two new PINs were different.\n")
    current = None
    if request.asks_current:
        current = await _enter(page, "Current PIN", request)
        if current is None:
            return NoPin.CANCELLED
    new = await _enter(page, "New PIN", request)
    if new is None:
        return NoPin.CANCELLED
    if request.confirms:
        again = await page.read("New PIN again: ", is_secret=True)
        if not hmac.compare_digest(again, new):
            return NoPin.MISMATCH
    return Pins(current, new)


async def _enter(page: _Page, prompt: str, request: EntryRequest) -> bytes | None:
    """Has a PIN entered that the request accepts; None if there is none."""
    for _attempt in range(MAX_ATTEMPTS):
        pin = await page.read(f"{prompt} (nothing refuses): ", is_secret=True)
        if not pin:
            return None
        if request.accepts(pin):
            return bytes(pin)
        await page.write(f"A PIN of {digits(request)} is needed.\n")
    return None
