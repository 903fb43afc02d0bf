# SPDX-License-Identifier: Apache-2.0
"""A command in a guest, from SCardTransmit and back, beside back ends that only echo."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from harness.bench.doors import DOORS, SELECT_PIV, FrontDoor
from harness.bench.figures import Figure, Report, in_turn
from harness.ccidd import running_ccidd, running_echo
from harness.guest import Guest, boot_guest
from harness.image import guest_image
from harness.opensc import OpenSC

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS: Final = 200

_SCRIPT: Final = """\
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


async def measure(report: Report, workdir: Path) -> None:
    """Measure both doors."""
    for door in DOORS:
        await _measure(report, door, workdir)


async def _measure(report: Report, door: FrontDoor, workdir: Path) -> None:
    directory = workdir / f"{door.name}-guest"
    directory.mkdir()
    ours, baseline = directory / "ccidd.socket", directory / "echo.socket"
    options = (f"--transport={door.name}", f"--socket-path={ours}")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running_echo(door.echo, baseline))
        await stack.enter_async_context(running_ccidd(*options, workdir=directory))
        image = guest_image("bookworm")
        guests = [
            await stack.enter_async_context(
                boot_guest(image, workdir=directory, devices=door.devices(f"path={path}"))
            )
            for path in (ours, baseline)
        ]
        for guest in guests:
            await OpenSC(guest).wait_for_card()
        pairs = await in_turn(*(partial(_round_trip, guest) for guest in guests))
        title = f"SCardTransmit in a guest, {door.name} on xHCI"
        report.add(Figure.of_pairs(title, "ms", "a back end that echoes", pairs))


async def _round_trip(guest: Guest) -> float:
    """Return the median milliseconds of SCardTransmit in a guest."""
    script = ("python3", "-c", _SCRIPT, SELECT_PIV.hex(), str(COMMANDS))
    return 1e3 * float((await guest.run(*script)).text)
