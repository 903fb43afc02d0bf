# SPDX-License-Identifier: Apache-2.0
"""The switch between a reader and its trace: traces begin and end while the reader is served.

What is secret in a message depends on those before it, so the censors see all of them, also while
there is no trace.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import structlog
import trio

from ccid_protocol.ccid import BadMessage, Command, Notification, Response
from ccidd.errors import UserError
from ccidd.reader.profile import Level, ReaderProfile
from ccidd.reader.witness import Witness
from ccidd.service.trace.censor import Censor
from ccidd.service.trace.trace import Trace
from ccidd.service.trace.tracefile import TraceFile, open_trace_file

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_LAST_WRITE: Final = 2.0
"""Seconds that a disk has for what is yet to be written when a trace ends."""


Changed: TypeAlias = Callable[[Path, bool], None]
"""Is told of a trace's file, and whether it has begun or ended."""


class Tracer(Witness):
    """Passes on what it sees to a trace, while there is one.

    Args:
        front_door: what the messages cross, for people.
        profile: the reader's profile.

    Attributes:
        changed: called when a trace has begun or ended; it must not wait.
    """

    def __init__(self, front_door: str, profile: ReaderProfile) -> None:
        self._front_door = front_door
        self._profile = profile
        tpdu = profile.level is Level.TPDU
        self._censors = [Censor(tpdu=tpdu) for _ in range(profile.slots)]
        self._trace: Trace | None = None
        self._with_secrets = False
        self._changing = trio.Lock()
        self.changed: Changed = _ignore

    @property
    def file(self) -> Path | None:
        """The file of the trace; None while there is none."""
        return None if self._trace is None else self._trace.file.path

    def open(self, path: Path, *, with_secrets: bool = False) -> None:
        """Begins a trace; it may block.

        Args:
            path: the file; an older trace that is there is replaced.
            with_secrets: whether PINs and keys are written as well.

        Raises:
            UserError: The file cannot be used.
        """
        self._take(open_trace_file(path), with_secrets=with_secrets)

    def begin(self) -> None:
        """Has a trace written that was opened before the reader is served."""
        if self._trace is not None:
            self._trace.file.begin()

    async def start(self, path: Path, *, with_secrets: bool = False) -> None:
        """Begins a trace while the reader is served; see `open`.

        Raises:
            UserError: There is a trace already, or the file cannot be used.
        """
        async with self._changing:
            self._end_failed()
            if self._trace is not None:
                raise UserError(f"there is a trace already, in {self.file}; stop it first")
            # Where the disk hangs, the thread is left to itself when ccidd is to end.
            file = await trio.to_thread.run_sync(open_trace_file, path, abandon_on_cancel=True)
            self._take(file, with_secrets=with_secrets)
            self.begin()
            self.changed(path, True)

    async def stop(self) -> None:
        """Ends the trace, and waits for a while until it is written.

        Raises:
            UserError: There is none.
        """
        async with self._changing:
            self._end_failed()
            trace = self._trace
            if trace is None:
                raise UserError("there is no trace")
            self.close()
            is_written = await trio.to_thread.run_sync(trace.file.wait, _LAST_WRITE)
            if not is_written:
                log.warning("trace_not_whole", file=str(trace.file.path))

    def close(self) -> None:
        """Ends the trace, if there is one, without waiting."""
        if self._trace is not None:
            trace, self._trace = self._trace, None
            trace.close()
            self.changed(trace.file.path, False)

    def command(self, command: Command | BadMessage) -> None:
        """See `Witness.command`."""
        shown = command
        if not isinstance(command, BadMessage) and command.slot < len(self._censors):
            shown = self._censors[command.slot].command(command)
        if self._trace is not None:
            self._trace.command(command if self._with_secrets else shown)
            self._end_failed()

    def response(self, response: Response) -> None:
        """See `Witness.response`."""
        shown = response
        if response.slot < len(self._censors):
            shown = self._censors[response.slot].response(response)
        if self._trace is not None:
            self._trace.response(response if self._with_secrets else shown)
            self._end_failed()

    def notification(self, notification: Notification) -> None:
        """See `Witness.notification`."""
        if self._trace is not None:
            self._trace.notification(notification)
            self._end_failed()

    def _take(self, file: TraceFile, *, with_secrets: bool) -> None:
        log.info("trace_started", file=str(file.path))
        if with_secrets:
            log.warning("trace_has_secrets", file=str(file.path))
        self._with_secrets = with_secrets
        self._trace = Trace(file, self._front_door, self._profile)

    def _end_failed(self) -> None:
        """Ends a trace whose file takes no more."""
        if self._trace is not None and self._trace.file.has_failed:
            self.close()


def _ignore(_file: Path, _is_running: bool) -> None:  # noqa: FBT001 (a callback)
    """Nobody wants to know."""
