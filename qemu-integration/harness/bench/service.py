# SPDX-License-Identifier: Apache-2.0
"""A command from socket to socket, beside echo servers that are sent as many bytes as often."""

from __future__ import annotations

import shutil
import statistics
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from harness.bench import echo_trio
from harness.bench.doors import DOORS, Exchange, FrontDoor, Host
from harness.bench.figures import Figure, Report, in_turn
from harness.ccidd import running_ccidd, until_logged
from harness.errors import HarnessError
from harness.process import running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

COMMANDS: Final = 1000


async def measure(report: Report, workdir: Path) -> None:
    """Measure both doors."""
    compiled = workdir / "echo-c"
    await _compile(Path(__file__).with_name("echo.c"), compiled)
    baselines = {
        "echo in trio": [sys.executable, "-P", str(echo_trio.__file__)],
        "echo in C": [str(compiled)],
    }
    for door in DOORS:
        async with AsyncExitStack() as stack:
            ours = workdir / f"{door.name}.socket"
            options = (f"--transport={door.name}", f"--socket-path={ours}")
            await stack.enter_async_context(running_ccidd(*options, workdir=workdir))
            for name, program in baselines.items():
                path = workdir / f"{door.name}-{name.replace(' ', '-')}.socket"
                await stack.enter_async_context(_running(program, path))
                pairs = await in_turn(partial(_ours, door, ours), partial(_echo, door, ours, path))
                microseconds = [(a * 1e6, b * 1e6) for a, b in pairs]
                title = f"a command over {door.name}, socket to socket"
                report.add(Figure.of_pairs(title, "us", name, microseconds))


async def _compile(source: Path, program: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise HarnessError("there is no C compiler: install gcc")
    await trio.run_process([compiler, "-O2", "-o", str(program), str(source)])


@asynccontextmanager
async def _running(program: Sequence[str], path: Path) -> AsyncGenerator[None]:
    async with running([*program, str(path)], log=path.with_suffix(".log")) as process:
        await until_logged(process, "event=ready")
        yield


async def _ours(door: FrontDoor, path: Path) -> float:
    return await trio.to_thread.run_sync(_median_of_ours, door, path)


def _median_of_ours(door: FrontDoor, path: Path) -> float:
    host = door.host(path)
    try:
        return statistics.median(host.times(host.select(), COMMANDS))
    finally:
        host.close()


async def _echo(door: FrontDoor, ours: Path, path: Path) -> float:
    return await trio.to_thread.run_sync(_median_of_echo, door, ours, path)


def _median_of_echo(door: FrontDoor, ours: Path, path: Path) -> float:
    """Send an echo server what ccidd is sent, padded or cut to what ccidd answers."""
    host = door.host(ours)
    try:
        steps = host.select().steps
    finally:
        host.close()
    echo = Host(path)
    same = tuple((data[:size].ljust(size, b"\0"), size) for data, size in steps)
    try:
        return statistics.median(echo.times(Exchange(same, b""), COMMANDS))
    finally:
        echo.close()
