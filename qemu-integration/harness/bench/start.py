# SPDX-License-Identifier: Apache-2.0
"""The time until ccidd is ready, and the memory that it has when it rests."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from harness.bench.figures import Figure, Report, in_turn
from harness.ccidd import CCIDD, running_ccidd
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Sequence

# What any daemon of these libraries has to import.
_IMPORTS: Final = "import cryptography.x509, structlog, trio"


async def measure(report: Report, workdir: Path) -> None:
    """Measure the start, and memory at rest."""
    path = workdir / "start.socket"
    state = workdir / "start-state"
    serve = [*CCIDD, f"--socket-path={path}", f"--state-dir={state}"]
    await _until_ready(serve)  # the card is made
    baseline = [sys.executable, "-c", _IMPORTS]
    for title, ours in (
        ("from the start to ready, a PIV card over usbredir", partial(_until_ready, serve)),
        ("--print-capabilities", partial(_run, [*CCIDD, "--print-capabilities"])),
    ):
        pairs = await in_turn(ours, partial(_run, baseline))
        report.add(Figure.of_pairs(title, "ms", "python with libraries", pairs))
    directory = workdir / "start-memory"
    directory.mkdir()
    async with running_ccidd(f"--socket-path={path}", workdir=directory) as process:
        await trio.sleep(1)
        report.add(Figure("memory at rest (Pss)", "MiB", pss(process.pid) / 2**20))


async def _run(command: Sequence[str]) -> float:
    begin = time.perf_counter()
    await trio.run_process(list(command), capture_stdout=True)
    return 1e3 * (time.perf_counter() - begin)


async def _until_ready(command: Sequence[str]) -> float:
    return await trio.to_thread.run_sync(_milliseconds_until_ready, command)


def _milliseconds_until_ready(command: Sequence[str]) -> float:
    begin = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"event=ready" in line:
                taken = time.perf_counter() - begin
                process.terminate()
                return 1e3 * taken
    raise HarnessError("ccidd ended before it was ready")


def pss(pid: int) -> int:
    """Return the bytes of memory of a process, those that it shares in proportion."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Pss: +([0-9]+) kB$", text, re.MULTILINE)
    assert match is not None
    return 1024 * int(match[1])
