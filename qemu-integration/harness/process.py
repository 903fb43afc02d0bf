# SPDX-License-Identifier: Apache-2.0
"""Programs that run beside a test and never stay behind.

The kernel kills such a program when the thread that started it ends, however that comes about
(PR_SET_PDEATHSIG), so they are started from the main thread and from no other: trio's own
open_process() forks in a worker thread, which ends when it has been idle for a while.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from harness.errors import HarnessError, tail

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path

_GRACE_SECONDS = 5.0


class Process:
    """A program that was started; `running` makes these."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self.log = log

    @property
    def pid(self) -> int:
        """The identifier of the program itself."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, the negative number of a signal, or None while it runs."""
        return self._popen.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended gets none."""
        self._popen.send_signal(number)

    def terminate(self) -> None:
        """Ask the program to end (SIGTERM)."""
        self._popen.terminate()

    def kill(self) -> None:
        """End the program at once (SIGKILL)."""
        self._popen.kill()

    async def wait(self) -> int:
        """Wait for the end; return the exit status, or the negative number of a signal."""
        if self._popen.poll() is None:
            # One descriptor for each that waits: trio allows one waiter for a descriptor.
            descriptor = os.pidfd_open(self._popen.pid)
            try:
                await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)
        return self._popen.wait()

    async def stop(self, grace: float = _GRACE_SECONDS) -> int:
        """End the program, by force if it does not heed SIGTERM; return what `wait` returns.

        Args:
            grace: Seconds before SIGKILL.
        """
        with trio.CancelScope(shield=True):
            self.terminate()
            with trio.move_on_after(grace) as patience:
                await self.wait()
            if patience.cancelled_caught:
                self.kill()
            await self.wait()
        return self._popen.wait()

    def log_text(self) -> str:
        """Return what the program has written to its standard output and error."""
        return self.log.read_text(encoding="utf-8", errors="backslashreplace")

    def log_tail(self) -> str:
        """Return the end of the log for an error's text."""
        return tail(self.log)


@asynccontextmanager
async def running(
    argv: Sequence[str | Path],
    *,
    log: Path,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    grace: float = _GRACE_SECONDS,
) -> AsyncGenerator[Process]:
    """Run a program for as long as the block; it has ended when the block is left.

    Args:
        argv: The command.
        log: Where its standard output and error are added.
        pass_fds: Descriptors that it inherits under their numbers.
        env: Its environment; by default, this process's.
        grace: Seconds between SIGTERM and SIGKILL at the end.

    Raises:
        HarnessError: There is no such program.
    """
    process = _start([str(word) for word in argv], log, pass_fds, env)
    try:
        yield process
    finally:
        await process.stop(grace)


def _start(
    argv: Sequence[str], log: Path, pass_fds: Sequence[int], env: Mapping[str, str] | None
) -> Process:
    assert threading.current_thread() is threading.main_thread(), "would be killed with the thread"
    program = shutil.which(argv[0])
    if program is None:
        raise HarnessError(f"{argv[0]}: no such program")
    with log.open("ab") as output:
        popen = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "--", program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            env=env,
            # A person's Ctrl-C is for the harness, which then ends the program in good order.
            start_new_session=True,
        )
    return Process(popen, log)


@asynccontextmanager
async def background_tasks() -> AsyncGenerator[trio.Nursery]:
    """Open a nursery whose tasks are cancelled when the block ends.

    A single error, of the block or of a task, leaves it as itself and not in a group: a caller need
    not know that there are tasks behind what it called.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        raise error from error.__cause__
