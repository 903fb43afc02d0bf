# SPDX-License-Identifier: Apache-2.0
"""PIN entry in a window or on a terminal of the host, by a pinentry program.

Source: the manual of pinentry 1.2, and what pinentry-tty and pinentry-curses do. Any pinentry will
do: it is told nothing that would let it keep a PIN (allow-external-password-cache, SETKEYINFO).
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final, TypeAlias, TypeVar

import structlog
import trio

from ccid_protocol.errors import RemoteProtocolError
from ccidd.errors import UserError
from ccidd.reader.pinentry.dialogue import Dialogue, PinentryError
from ccidd.reader.pinentry.source import EntryRequest, NoPin, PinEntry, PinSource

log: structlog.stdlib.BoundLogger = structlog.get_logger()

T = TypeVar("T")

Opener: TypeAlias = Callable[[], AbstractAsyncContextManager[trio.abc.Stream]]
"""Starts a pinentry, and ends it with the context."""

END_TIME: Final = 0.5
"""Seconds that a pinentry has to clean up its terminal or window: twice, and then it is killed."""

# Each Assuan option, with the environment variables that its value comes from, the first first.
_OPTIONS: Final[Mapping[str, Sequence[str]]] = {
    "ttyname": ("GPG_TTY",),
    "ttytype": ("TERM",),
    "lc-ctype": ("LC_ALL", "LC_CTYPE", "LANG"),
    "lc-messages": ("LC_ALL", "LC_MESSAGES", "LANG"),
    "display": ("DISPLAY",),
}


class Pinentry(PinSource):
    """Asks through a pinentry, one request at a time: there is one person, with one keyboard.

    The time that a request waits for others counts as its own.

    Args:
        name: what to call the pinentry in the log.
        open_stream: starts one, for one request.
        options: names and values of the Assuan options that tell it where it runs.
    """

    def __init__(
        self, name: str, open_stream: Opener, options: Sequence[tuple[str, str]] = ()
    ) -> None:
        self._name = name
        self._open = open_stream
        self._options = options
        self._person = trio.Lock()

    @property
    def can_modify(self) -> bool:
        """See `PinSource.can_modify`: always."""
        return True

    async def ask(self, request: EntryRequest) -> PinEntry:
        """See `PinSource.ask`."""
        return await self._talk(
            lambda dialogue: dialogue.ask(request),
            request.timeout,
            late=NoPin.TIMED_OUT,
            failed=NoPin.CANCELLED,
        )

    async def confirm(self, text: str, seconds: float) -> bool:
        """Lets the person allow or refuse something.

        Args:
            text: what, in at most 230 characters.
            seconds: how long the person may take, waiting for others included.

        Returns:
            Whether it was allowed. No answer in time is a refusal, and so is a pinentry that
            fails, which the log tells.
        """
        return await self._talk(
            lambda dialogue: dialogue.confirm(text), seconds, late=False, failed=False
        )

    async def _talk(
        self, say: Callable[[Dialogue], Awaitable[T]], seconds: float, *, late: T, failed: T
    ) -> T:
        answer = late
        with trio.move_on_after(seconds):
            try:
                async with self._person, self._open() as stream:
                    dialogue = Dialogue(stream)
                    await dialogue.open(self._options)
                    answer = await say(dialogue)
                    await dialogue.close()
            except (OSError, PinentryError, RemoteProtocolError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                log.warning("pinentry_failed", program=self._name, reason=reason)
                return failed
        return answer


class PinentryProgram(Pinentry):
    """Asks through a pinentry program, which runs only while somebody is asked.

    It runs in ccidd's environment. On a terminal it uses $GPG_TTY, or else that of ccidd.

    Args:
        program: its name or path: pinentry, pinentry-curses, pinentry-gnome3, …
        environ: ccidd's environment.

    Raises:
        UserError: There is no such program.
    """

    def __init__(self, program: str = "pinentry", environ: Mapping[str, str] = os.environ) -> None:
        path = shutil.which(program, path=environ.get("PATH"))
        if path is None:
            raise UserError(
                f"there is no program {program} for PIN entry; install a pinentry, or name another"
            )
        super().__init__(path, partial(_running, path, environ), _options(environ))


def _options(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    found = {}
    for option, variables in _OPTIONS.items():
        value = next((environ[name] for name in variables if environ.get(name)), None)
        if option == "ttyname" and value is None:
            value = _terminal()
        if value is not None:
            found[option] = value
    return list(found.items())


def _terminal() -> str | None:
    """Gives the terminal that ccidd was started from."""
    for fd in range(3):
        with contextlib.suppress(OSError):
            return os.ttyname(fd)
    return None


@contextlib.asynccontextmanager
async def _running(path: str, environ: Mapping[str, str]) -> AsyncIterator[trio.abc.Stream]:
    """Runs a pinentry; it does not outlive the block, however that ends.

    It has a process group of its own: it may be a script around the real one.
    """
    process = await trio.lowlevel.open_process(
        [path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environ,
        start_new_session=True,
    )
    try:
        assert process.stdio is not None
        yield process.stdio
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


async def _end(process: trio.Process) -> None:
    if process.stdio is not None:
        await trio.aclose_forcefully(process.stdio)
    # At SIGINT, and not at SIGTERM, every pinentry puts the terminal's echo back. pinentry-tty
    # does not notice one that comes just before it waits for a key.
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with trio.move_on_after(END_TIME):
            await process.wait()
            return
    await process.wait()
