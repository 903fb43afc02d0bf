# SPDX-License-Identifier: Apache-2.0
"""Runs ccidd as its users do: as a process."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

CCIDD = (sys.executable, "-m", "ccidd")


def run_ccidd(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs ccidd to its end, with no terminal to ask on."""
    return subprocess.run(
        [*CCIDD, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environ},
        start_new_session=True,
    )


@contextmanager
def started(
    arguments: Sequence[str], *, pass_fds: Sequence[int] = (), log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program beside the test; it does not outlive the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments, stdout=output, stderr=output, stdin=subprocess.DEVNULL, pass_fds=pass_fds
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


async def connect_when_ready(path: Path) -> trio.SocketStream:
    """Connects to a Unix socket as soon as somebody listens there."""
    with trio.fail_after(60):
        while True:
            try:
                return await trio.open_unix_socket(str(path))
            except OSError:
                await trio.sleep(0.05)
