# SPDX-License-Identifier: Apache-2.0
"""This machine's pcscd, with readers of ours: on serial lines, and virtual ones."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path

import trio

from ccidd.reader.pinentry.source import PinSource
from ccidd.reader.profile import Level, default_profile
from ccidd.reader.slot import Slot
from ccidd.transport.serial import PseudoTerminal, serve_serial

_PATIENCE = 60
"""Seconds for a program; pcscd takes its time over a reader that was busy when it came."""

_SOCKET = "pcscd.comm"
_SOCKET_VARIABLE = "PCSCLITE_CSOCK_NAME"


class Pcscd:
    """A pcscd in a mount namespace of its own.

    Args:
        process: the process.
        socket: where its socket is for the rest of the machine.
    """

    def __init__(self, process: trio.Process, socket: Path) -> None:
        enter = ["nsenter", f"--target={process.pid}", "--mount"]
        if os.geteuid():
            enter += ["--user", "--preserve-credentials"]
        self._enter = enter
        self._process = process
        self.socket = socket

    @property
    def environ(self) -> Mapping[str, str]:
        """What a program outside has to have in its environment to find this pcscd."""
        return {_SOCKET_VARIABLE: str(self.socket)}

    async def run(
        self,
        *command: str,
        directory: Path = Path("/"),
        given: bytes = b"",
        status: int | None = 0,
    ) -> str:
        """Runs a program that finds this pcscd, without a terminal; gives what it says.

        Args:
            command: the program.
            directory: where it runs.
            given: its standard input.
            status: what it must end with, if not None.
        """
        # Whoever enters the namespace is at its root.
        there = ("sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(directory))
        with trio.fail_after(_PATIENCE):
            result = await trio.run_process(
                ["setsid", "--wait", *self._enter, *there, *command],
                stdin=given,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
                env={**os.environ, **self.environ},
            )
        output = result.stdout.decode()
        assert status in {None, result.returncode}, output
        return output

    def kill(self) -> None:
        """Kills it at once."""
        self._process.kill()

    def pause(self) -> None:
        """Stops it: it answers nobody, as if it hung."""
        self._process.send_signal(signal.SIGSTOP)
        # It may answer until all of its threads have stopped.
        tasks = Path(f"/proc/{self._process.pid}/task")
        while any("T (stopped)" not in (task / "status").read_text() for task in tasks.iterdir()):
            time.sleep(0.01)

    def resume(self) -> None:
        """Lets it go on."""
        self._process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def pcscd(link: Path, model: str) -> AsyncIterator[Pcscd]:
    """A pcscd with a reader of libccid's on a serial line."""
    async with pcscd_with(link.parent, serial_reader(link, model)) as host:
        yield host


def serial_reader(link: Path, model: str, name: str = "ccidd") -> str:
    """What pcscd's configuration says of a reader on a serial line."""
    return (
        f'FRIENDLYNAME "{name}"\n'
        f"DEVICENAME {link}:{model}\n"
        "LIBPATH /usr/lib/pcsc/drivers/serial/libccidtwin.so\n"
    )


@asynccontextmanager
async def pcscd_with(directory: Path, *readers: str) -> AsyncIterator[Pcscd]:
    """A pcscd of its own.

    Args:
        directory: gets what it has in `/run/pcscd`, its socket among it, and its configuration.
        readers: what its configuration says of each of its readers.
    """
    configuration, run = directory / "reader.conf.d", directory / "pcscd"
    configuration.mkdir(exist_ok=True)
    (configuration / "readers").write_text("\n".join(readers))
    # One that was killed has left its socket behind.
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    script = (
        f"mount -t tmpfs none /run && mkdir /run/pcscd && mount --bind {run} /run/pcscd && echo &&"
        f" exec pcscd -f -c {configuration} 2>&1"
    )
    as_root = ["--map-root-user"] if os.geteuid() else []
    with (directory / "pcscd.log").open("ab") as log:
        process = await trio.lowlevel.open_process(
            ["unshare", "--mount", *as_root, "sh", "-c", script], stdout=log, stderr=log
        )
    host = Pcscd(process, run / _SOCKET)
    try:
        with trio.fail_after(_PATIENCE):
            while not host.socket.exists():
                assert process.poll() is None, "pcscd did not start: is a mount namespace denied?"
                await trio.sleep(0.02)
        yield host
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@cache
def place_of_socket() -> Path:
    """Where the PC/SC library of this process looks, as long as it runs."""
    place = Path(tempfile.mkdtemp(prefix="pcsc-")) / _SOCKET
    os.environ[_SOCKET_VARIABLE] = str(place)
    return place


def use_from_here(host: Pcscd) -> None:
    """Has the PC/SC library of this process find a pcscd, from now on."""
    place = place_of_socket()
    place.unlink(missing_ok=True)
    place.symlink_to(host.socket)


@asynccontextmanager
async def serving(
    link: Path, slots: list[Slot], pins: PinSource | None = None
) -> AsyncIterator[None]:
    terminal = PseudoTerminal(link)
    try:
        async with trio.open_nursery() as nursery:
            profile = default_profile(len(slots), "1", Level.TPDU)
            nursery.start_soon(partial(serve_serial, terminal, slots, profile, pins))
            yield
            nursery.cancel_scope.cancel()
    finally:
        terminal.close()
