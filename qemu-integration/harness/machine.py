# SPDX-License-Identifier: Apache-2.0
"""A QEMU, its links to the harness, and its disk; and the way of a guest from one to another.

A guest is migrated as between two hosts that share their storage: both QEMUs have the disk open,
the second leaves it alone until the first has written all, and goes on then. So the disk is a
qcow2 file over the image's, of which each boot has one of its own.
"""

from __future__ import annotations

import itertools
import shlex
import socket
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from harness.console import Console
from harness.errors import HarnessError
from harness.process import Process, running
from harness.qmp import Qmp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AsyncExitStack
    from pathlib import Path

_CAPTURED = ("usb-ccid", "usb-redir")
_MIGRATION_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Machine:
    """A QEMU that was started.

    Attributes:
        directory: Its logs and captures.
        devices: The devices that it was started with, besides those of each.
        process: The program.
        qmp: Its monitor.
        console: The guest's console.
        agent: The link to the guest's agent.
    """

    directory: Path
    devices: Sequence[str]
    process: Process
    qmp: Qmp
    console: Console
    agent: socket.socket


@dataclass(frozen=True)
class Host:
    """What the QEMUs that a guest is in, one after the other, have in common.

    Attributes:
        argv: The command, without devices and links.
        env: Its environment.
        pass_fds: Descriptors that it inherits.
        stack: Ends them all.
        tasks: Where what they send is taken.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    pass_fds: Sequence[int]
    stack: AsyncExitStack
    tasks: trio.Nursery

    async def start(self, directory: Path, devices: Sequence[str], *options: str) -> Machine:
        """Start a QEMU.

        Args:
            directory: Gets the logs and captures.
            devices: More options; each `usb-ccid` and `usb-redir` is captured.
            options: And more.
        """
        links = _Links(self.stack)
        argv = [*self.argv, *links.options(directory), *_captured(devices, directory), *options]
        log = directory / "qemu.log"
        log.write_text(shlex.join(argv) + "\n", encoding="utf-8")
        fds = (*links.inherited, *self.pass_fds)
        process = await self.stack.enter_async_context(
            running(argv, log=log, env=self.env, pass_fds=fds)
        )
        links.given_away()
        qmp, console = Qmp(links.qmp), Console(links.console)
        for link in (qmp, console):
            self.stack.push_async_callback(link.aclose)
            self.tasks.start_soon(link.receive)
        return Machine(directory, devices, process, qmp, console, links.agent)


async def migrate(source: Machine, host: Host, devices: Sequence[str] | None = None) -> Machine:
    """Move a guest to a new QEMU, where it runs; the old one is left stopped.

    Args:
        source: Where the guest is.
        host: Starts the new one.
        devices: Those of the old one with other backends; by default, the same.

    Raises:
        HarnessError: It does not come to that; the guest is where it was.
    """
    directory = next_directory(source.directory.parent)
    devices = source.devices if devices is None else devices
    destination = await host.start(directory, devices, "-incoming", "defer")
    try:
        with trio.fail_after(_MIGRATION_SECONDS):
            await _migrate(source.qmp, destination.qmp, f"unix:{directory / 'migration.socket'}")
    except (HarnessError, trio.TooSlowError) as error:
        await destination.process.stop()
        log = destination.process.log_tail()
        raise HarnessError(f"the guest is not migrated: {error}\n{log}") from error
    return destination


async def _migrate(source: Qmp, destination: Qmp, uri: str) -> None:
    for qmp in (source, destination):
        capability = {"capability": "events", "state": True}
        await qmp.execute("migrate-set-capabilities", capabilities=[capability])
    before = source.count_events("MIGRATION")
    await destination.execute("migrate-incoming", uri=uri)
    await source.execute("migrate", uri=uri)
    await _until_migrated(source, before)
    # It runs by then, unless the guest was stopped before.
    await _until_migrated(destination, 0)


async def _until_migrated(qmp: Qmp, before: int) -> None:
    """Wait until a QEMU says that a migration is completed, after so many events of others."""
    for count in itertools.count(before + 1):
        event = await qmp.wait_for_event("MIGRATION", count=count)
        match event:
            case {"data": {"status": "completed"}}:
                return
            case {"data": {"status": "failed"}}:
                raise HarnessError(f"QEMU says: {await qmp.execute('query-migrate')}")


async def overlay_on(image: Path, disk: Path) -> None:
    """Make a disk that shows what an image holds, and keeps what is written to itself.

    Args:
        image: The raw image, never written to.
        disk: The file to make, in qcow2 format.

    Raises:
        HarnessError: qemu-img is missing or failed.
    """
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image), str(disk)]
    try:
        made = await trio.run_process(argv, capture_stdout=True, capture_stderr=True, check=False)
    except FileNotFoundError:
        raise HarnessError("qemu-img is missing: ./dev installs it, on Debian") from None
    if made.returncode != 0:
        raise HarnessError(f"{shlex.join(argv)}: {made.stderr.decode(errors='replace')}")


def next_directory(workdir: Path) -> Path:
    """Make the directory of the next QEMU, `guest-1` for the first."""
    number = 1 + len(list(workdir.glob("guest-*")))
    directory = workdir / f"guest-{number}"
    directory.mkdir(parents=True)
    return directory


def quoted(path: Path) -> str:
    """Return a path as a value among QEMU's comma-separated options."""
    return str(path).replace(",", ",,")


class _Links:
    """The socket pairs between the harness and QEMU, which leave no files behind."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._theirs: list[socket.socket] = []
        self._stack = stack
        self.agent = self._pair()
        self.console = self._pair()
        self.qmp = self._pair()
        self.inherited = [sock.fileno() for sock in self._theirs]

    def options(self, directory: Path) -> list[str]:
        """Return QEMU's options for its ends."""
        agent, console, qmp = self.inherited
        log = quoted(directory / "serial.log")
        options = ["-chardev", f"socket,id=console,fd={console},logfile={log}"]
        options += ["-serial", "chardev:console"]
        options += ["-chardev", f"socket,id=qmp,fd={qmp}", "-mon", "chardev=qmp,mode=control"]
        options += ["-device", "virtio-serial-pci"]
        options += ["-chardev", f"socket,id=agent,fd={agent}"]
        options += ["-device", "virtserialport,chardev=agent,name=org.ccidd.agent"]
        options += ["-chardev", f"file,id=pcscd,path={quoted(directory / 'pcscd.log')}"]
        options += ["-device", "virtserialport,chardev=pcscd,name=org.ccidd.pcscd"]
        return options

    def given_away(self) -> None:
        """Close QEMU's ends here, so that its end is seen."""
        for sock in self._theirs:
            sock.close()

    def _pair(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._theirs.append(theirs)
        for sock in (ours, theirs):
            self._stack.enter_context(closing(sock))
        return ours


def _captured(devices: Sequence[str], directory: Path) -> list[str]:
    """Return the options with a capture file for each of the USB devices among them."""
    options = list(devices)
    captures = 0
    for index, (option, value) in enumerate(itertools.pairwise(options), start=1):
        if option == "-device" and value.partition(",")[0] in _CAPTURED:
            options[index] = f"{value},pcap={quoted(directory / f'usb-{captures}.pcap')}"
            captures += 1
    return options
