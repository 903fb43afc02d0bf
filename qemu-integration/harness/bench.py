# SPDX-License-Identifier: Apache-2.0
"""`./dev bench`: how long a command takes, beside a back end that only echoes.

Both front doors are measured, from socket to socket and in a guest. Each figure is a median, and is
taken in turn with its baseline, so that a machine that gets slower does so for both. Times of
different machines, or of different runs, say nothing.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar

import trio

from ccid_protocol import ccid, usbredir, vscard
from ccid_protocol.events import ConnectionClosed, NeedData
from harness import echo_usbredir, echo_vscard
from harness.ccidd import passthru, redirected, running_ccidd, running_echo
from harness.errors import HarnessError
from harness.guest import Guest, boot_guest
from harness.image import guest_image
from harness.opensc import OpenSC

if TYPE_CHECKING:
    from types import ModuleType

SELECT_PIV: Final = bytes.fromhex("00A4040C09A00000030800001000")
ROUNDS: Final = 5
HOST_COMMANDS: Final = 1000
GUEST_COMMANDS: Final = 200

Transmit: TypeAlias = Callable[[], Awaitable[bytes]]
"""Sends `SELECT_PIV` and returns the response."""

Event_co = TypeVar("Event_co", covariant=True)

_BULK_OUT: Final = 0x01
_BULK_IN: Final = 0x82
_READ_SIZE: Final = 65556  # as libccid does

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
class FrontDoor:
    """One of ccidd's front doors.

    Attributes:
        name: Its name as ccidd's option --transport has it.
        echo: The program that is its baseline.
        devices: Returns QEMU's options for the socket.
        connect: Does what QEMU and a guest do until a card takes commands.
    """

    name: str
    echo: ModuleType
    devices: Callable[[str], list[str]]
    connect: Callable[[trio.SocketStream], Awaitable[Transmit]]


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


class Connection(Protocol[Event_co]):
    """The receiving half of a connection of either front door."""

    def receive_data(self, data: bytes) -> None: ...

    def next_event(self) -> Event_co | ConnectionClosed | NeedData: ...


async def receive(stream: trio.SocketStream, connection: Connection[Event_co]) -> Event_co:
    """Return the peer's next message."""
    while isinstance(event := connection.next_event(), NeedData):
        connection.receive_data(bytes(await stream.receive_some(65536)))
    if isinstance(event, ConnectionClosed):
        raise HarnessError("a connection was closed while it was measured")
    return event


async def connect_vscard(stream: trio.SocketStream) -> Transmit:
    """Do what QEMU's usb-ccid does."""
    connection = vscard.Connection(vscard.Role.HOST)
    message: vscard.Message = vscard.Flush()
    while not isinstance(message, vscard.ATR):
        message = await receive(stream, connection)
        if isinstance(message, vscard.Init):
            await stream.send_all(connection.send(vscard.Init()))
        elif connection.unanswered is not None:
            await stream.send_all(connection.send(vscard.Error(vscard.ErrorCode.SUCCESS, 0)))

    async def transmit() -> bytes:
        await stream.send_all(connection.send(vscard.APDU(SELECT_PIV)))
        answer = await receive(stream, connection)
        assert isinstance(answer, vscard.APDU)
        return answer.data

    return transmit


async def connect_usbredir(stream: trio.SocketStream) -> Transmit:
    """Do what QEMU's usb-redir does for a guest with libccid: one request at a time."""
    connection = usbredir.Connection(usbredir.Role.GUEST)
    numbers = itertools.count()

    async def until(kind: type[Event_co], request: usbredir.Packet) -> Event_co:
        await stream.send_all(connection.send(request))
        # A hello and the tables come before what they belong to.
        while not isinstance(event := await receive(stream, connection), kind):
            pass
        return event

    async def exchange(command: ccid.Command) -> ccid.Response:
        data = ccid.encode(command)
        await until(usbredir.BulkPacket, usbredir.BulkPacket(next(numbers), _BULK_OUT, data=data))
        read = usbredir.BulkPacket(next(numbers), _BULK_IN, _READ_SIZE)
        return ccid.decode_response((await until(usbredir.BulkPacket, read)).data)

    async def transmit() -> bytes:
        answer = await exchange(ccid.XfrBlock(0, next(numbers) & 0xFF, SELECT_PIV))
        assert isinstance(answer, ccid.DataBlock)
        return answer.data

    await until(usbredir.DeviceConnect, connection.hello)
    configure = usbredir.SetConfiguration(next(numbers), 1)
    await until(usbredir.ConfigurationStatus, configure)
    await exchange(ccid.IccPowerOn(0, 0))
    return transmit


VSCARD: Final = FrontDoor("vscard", echo_vscard, passthru, connect_vscard)
USBREDIR: Final = FrontDoor("usbredir", echo_usbredir, redirected, connect_usbredir)


async def host_round_trip(door: FrontDoor, path: Path) -> float:
    """Return the median seconds from a command on the socket to its answer there."""
    async with await trio.open_unix_socket(str(path)) as stream:
        transmit = await door.connect(stream)
        times = []
        for _ in range(HOST_COMMANDS):
            start = time.perf_counter()
            answer = await transmit()
            times.append(time.perf_counter() - start)
            if answer != b"\x90\x00":
                raise HarnessError(f"{path} answered {answer.hex()}")
        return statistics.median(times)


async def guest_round_trip(guest: Guest) -> float:
    """Return the median seconds of SCardTransmit in a guest."""
    script = ("python3", "-c", _GUEST_SCRIPT, SELECT_PIV.hex(), str(GUEST_COMMANDS))
    return float((await guest.run(*script)).text)


async def measure(door: FrontDoor, workdir: Path) -> None:
    """Measure a front door, and print its rows of the table."""
    ours, baseline = workdir / "ccidd.socket", workdir / "echo.socket"
    options = (f"--transport={door.name}", f"--socket-path={ours}")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running_echo(door.echo, baseline))
        await stack.enter_async_context(running_ccidd(*options, workdir=workdir))
        host = await in_turn(
            f"{door.name}, socket to socket",
            lambda: host_round_trip(door, ours),
            lambda: host_round_trip(door, baseline),
        )
        print(host, flush=True)
        image = guest_image("bookworm")
        guests = [
            await stack.enter_async_context(
                boot_guest(image, workdir=workdir, devices=door.devices(f"path={path}"))
            )
            for path in (ours, baseline)
        ]
        for guest in guests:
            await OpenSC(guest).wait_for_card()
        in_guest = await in_turn(
            f"{door.name}, SCardTransmit in a guest on xHCI",
            lambda: guest_round_trip(guests[0]),
            lambda: guest_round_trip(guests[1]),
        )
        print(in_guest, flush=True)


async def bench() -> None:
    """Measure, and print a table."""
    print(f"{'one command, median of milliseconds':<44} {'ccidd':>9} {'echo':>9} {'ratio':>7}")
    with tempfile.TemporaryDirectory(prefix="ccidd-bench-") as directory:
        for door in (VSCARD, USBREDIR):
            workdir = Path(directory, door.name)
            workdir.mkdir()
            await measure(door, workdir)


def main() -> None:
    try:
        trio.run(bench)
    except HarnessError as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
