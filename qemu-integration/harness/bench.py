# SPDX-License-Identifier: Apache-2.0
"""`./dev bench`: how long a command takes, beside a back end that only echoes.

Each figure is a median, and is taken in turn with its baseline, so that a machine that gets slower
does so for both. Times of different machines, or of different runs, say nothing.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from ccid_protocol import vscard
from ccid_protocol.events import ConnectionClosed, NeedData
from harness import echo
from harness.ccidd import passthru, running_ccidd, until_logged
from harness.errors import HarnessError
from harness.guest import Guest, boot_guest
from harness.image import guest_image
from harness.opensc import OpenSC
from harness.process import running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SELECT_PIV: Final = bytes.fromhex("00A4040C09A00000030800001000")
ROUNDS: Final = 5
HOST_COMMANDS: Final = 1000
GUEST_COMMANDS: Final = 200

_GUEST_SCRIPT = """\
import statistics, sys, time
from smartcard.System import readers

command = list(bytes.fromhex(sys.argv[1]))
connection = readers()[0].createConnection()
connection.connect()
times = []
for _ in range(int(sys.argv[2])):
    start = time.perf_counter()
    answer = connection.transmit(command)
    times.append(time.perf_counter() - start)
    assert answer == ([], 0x90, 0x00), answer
print(statistics.median(times))
"""


@dataclass(frozen=True)
class Figure:
    """A median time beside that of the baseline.

    Attributes:
        name: What was measured.
        ours: Seconds.
        baseline: Seconds.
        ratio: The median of the ratios of each round.
    """

    name: str
    ours: float
    baseline: float
    ratio: float

    def __str__(self) -> str:
        ours, baseline = self.ours * 1e3, self.baseline * 1e3
        return f"{self.name:<44} {ours:>9.3f} {baseline:>9.3f} {self.ratio:>7.2f}"


async def in_turn(
    name: str, ours: Callable[[], Awaitable[float]], baseline: Callable[[], Awaitable[float]]
) -> Figure:
    """Measure two things in turn, `ROUNDS` times."""
    pairs = [(await ours(), await baseline()) for _ in range(ROUNDS)]
    return Figure(
        name,
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )


async def host_round_trip(path: Path) -> float:
    """Return the median seconds from a command on the socket to its answer there."""
    connection = vscard.Connection(vscard.Role.HOST)
    async with await trio.open_unix_socket(str(path)) as stream:

        async def receive() -> vscard.Message:
            while isinstance(event := connection.next_event(), NeedData):
                connection.receive_data(bytes(await stream.receive_some(65536)))
            if isinstance(event, ConnectionClosed):
                raise HarnessError(f"{path} was closed while it was measured")
            return event

        message: vscard.Message = vscard.Flush()
        while not isinstance(message, vscard.ATR):
            message = await receive()
            if isinstance(message, vscard.Init):
                await stream.send_all(connection.send(vscard.Init()))
            elif connection.unanswered is not None:
                await stream.send_all(connection.send(vscard.Error(vscard.ErrorCode.SUCCESS, 0)))
        times = []
        for _ in range(HOST_COMMANDS):
            start = time.perf_counter()
            await stream.send_all(connection.send(vscard.APDU(SELECT_PIV)))
            answer = await receive()
            times.append(time.perf_counter() - start)
            if answer != vscard.APDU(b"\x90\x00"):
                raise HarnessError(f"{path} answered {answer!r}")
        return statistics.median(times)


async def guest_round_trip(guest: Guest) -> float:
    """Return the median seconds of SCardTransmit in a guest."""
    script = ("python3", "-c", _GUEST_SCRIPT, SELECT_PIV.hex(), str(GUEST_COMMANDS))
    return float((await guest.run(*script)).text)


async def bench() -> None:
    """Measure, and print a table."""
    async with AsyncExitStack() as stack:
        workdir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ccidd-bench-")))
        ours, baseline = workdir / "ccidd.socket", workdir / "echo.socket"
        argv = [sys.executable, "-P", echo.__file__, str(baseline)]
        process = await stack.enter_async_context(running(argv, log=workdir / "echo.log"))
        await until_logged(process, "event=ready")
        await stack.enter_async_context(running_ccidd(f"--socket-path={ours}", workdir=workdir))
        print(f"{'one command, median of milliseconds':<44} {'ccidd':>9} {'echo':>9} {'ratio':>7}")
        host = await in_turn(
            "vscard, socket to socket",
            lambda: host_round_trip(ours),
            lambda: host_round_trip(baseline),
        )
        print(host, flush=True)
        image = guest_image("bookworm")
        guests = [
            await stack.enter_async_context(
                boot_guest(image, workdir=workdir, devices=passthru(f"path={path}"))
            )
            for path in (ours, baseline)
        ]
        for guest in guests:
            await OpenSC(guest).wait_for_card()
        in_guest = await in_turn(
            "vscard, SCardTransmit in a guest on xHCI",
            lambda: guest_round_trip(guests[0]),
            lambda: guest_round_trip(guests[1]),
        )
        print(in_guest, flush=True)


def main() -> None:
    try:
        trio.run(bench)
    except HarnessError as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
