# SPDX-License-Identifier: Apache-2.0
"""A guest: QEMU with one of the images, its devices, and commands that run inside.

    async with boot_guest(image, workdir=tmp_path, devices=["-device", "usb-ccid"]) as guest:
        await guest.run("opensc-tool", "--list-readers")

Everything of a QEMU lies in a directory of its own below `workdir`, `guest-1` for the first:
`qemu.log` (the command line, QEMU's own output), `serial.log` (the console), `pcscd.log`, and
`usb-N.pcap`, the traffic of the Nth USB device for Wireshark, complete when QEMU has ended.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import trio

from harness.agent import Agent, CommandError, Completed, GuestGoneError
from harness.errors import HarnessError, tail
from harness.machine import Host, Machine, migrate, next_directory, overlay_on, quoted
from harness.process import background_tasks
from harness.qemu import Qemu, environment, system_qemu
from harness.qmp import QmpError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from harness.image import Image

Controller = Literal["xhci", "uhci", "ehci", "ohci"]

Init = Literal["init", "init-systemd"]

_CONTROLLERS: Final[dict[Controller, Sequence[str]]] = {
    "xhci": ("qemu-xhci,id=usb",),
    "uhci": ("piix3-usb-uhci,id=usb",),
    # Full-speed devices need a companion of the EHCI; all are functions of one PCI device.
    "ehci": (
        "ich9-usb-ehci1,id=usb,addr=1d.7,multifunction=on",
        "ich9-usb-uhci1,masterbus=usb.0,firstport=0,addr=1d.0,multifunction=on",
        "ich9-usb-uhci2,masterbus=usb.0,firstport=2,addr=1d.1",
        "ich9-usb-uhci3,masterbus=usb.0,firstport=4,addr=1d.2",
    ),
    "ohci": ("pci-ohci,id=usb",),
}
_BOOT_SECONDS = 120.0
_KVM_BOOT_SECONDS = 10.0
_KERNEL_ARGUMENTS = "console=ttyS0 loglevel=5 nokaslr mitigations=off cryptomgr.notests"


class Guest:
    """A guest that is up; `boot_guest` makes these.

    Attributes:
        directory: The logs and captures of this boot.
        process: QEMU.
        qmp: QEMU's monitor: hotplug, reset, stop and continue.
    """

    def __init__(self, host: Host, machine: Machine, agent: Agent) -> None:
        self._host = host
        self._agent = agent
        self._move_in(machine)

    def _move_in(self, machine: Machine) -> None:
        self._machine = machine
        self.directory = machine.directory
        self.process = machine.process
        self.qmp = machine.qmp

    async def run(
        self,
        *argv: str,
        check: bool = True,
        timeout: float | None = 60,  # noqa: ASYNC109 -- kept in the guest, which ends the command
        input: bytes = b"",  # noqa: A002 -- as subprocess.run() calls it
    ) -> Completed:
        """Run a command in the guest to its end. Cancelling the call kills the command.

        Args:
            argv: The command.
            check: Whether a status other than 0 is an error.
            timeout: Seconds it may take; None for any time.
            input: Its standard input.

        Raises:
            CommandError: It failed, took too long, or could not be started. The text shows the
                command, its status and all its output.
            GuestGoneError: The guest was reset or QEMU ended meanwhile.
        """
        return await self._agent.run(argv, input, timeout, check=check)

    async def write_file(self, path: str, content: bytes) -> None:
        """Write a file in the guest."""
        await self.run("sh", "-c", 'cat >"$1"', "sh", path, input=content)

    async def read_file(self, path: str) -> bytes:
        """Return what a file in the guest holds."""
        return (await self.run("cat", path)).stdout

    async def run_until(self, *argv: str, shows: str, within: float = 30) -> Completed:
        """Run a command again and again until its standard output contains a text.

        Args:
            argv: The command; its status does not count.
            shows: The text.
            within: Seconds after which it is an error.

        Raises:
            CommandError: The text did not appear; shows the last run.
        """
        last: Completed | None = None
        with trio.move_on_after(within):
            while last is None or shows not in last.text:
                last = await self.run(*argv, check=False)
            return last
        raise CommandError(argv, f"did not show {shows!r} within {within} s", last)

    async def restart_pcscd(self, *options: str) -> None:
        """Stop pcscd and start it again, perhaps with more options, such as "--debug"."""
        await self.run("pcscd-control", "restart", *options)

    async def reset(self) -> None:
        """Press the reset button, and wait until the guest is up again."""
        boots = self._agent.boots
        await self.qmp.execute("system_reset")
        await self.wait_for_boot(boots + 1)

    async def migrate(self, devices: Sequence[str] | None = None) -> None:
        """Move the guest, running, to a second QEMU, and end the first.

        `directory`, `process` and `qmp` are the second one's afterwards. Commands that run in the
        guest meanwhile go on, and are answered from there.

        Args:
            devices: What `boot_guest` got, with other backends; by default, the same.

        Raises:
            HarnessError: The guest does not move, and is where it was.
        """
        source = self._machine
        async with self._agent.moving() as moved:
            destination = await migrate(source, self._host, devices)
            moved(destination.agent)
        self._move_in(destination)
        await source.qmp.execute("quit")
        await source.process.wait()

    async def kill(self) -> None:
        """End QEMU as a crash would, at once; no capture file is complete then."""
        self.process.kill()
        await self.process.wait()

    async def type(self, text: bytes) -> None:
        """Type on the serial console."""
        await self._machine.console.type(text)

    async def interact(self) -> None:
        """Give the person at the terminal a shell in the guest, until it ends or Ctrl-].

        Raises:
            HarnessError: Standard input or output is no terminal.
        """

        async def shell(size: tuple[int, int]) -> None:
            rows, columns = size
            argv = ("console", str(rows), str(columns), os.environ.get("TERM", "vt100"))
            await self.run(*argv, check=False, timeout=None)

        await self._machine.console.lend(shell)

    async def wait_for_boot(self, boots: int = 1) -> None:
        """Wait until the guest has come up so many times since QEMU was started.

        Raises:
            HarnessError: The guest stopped on its way, or the time is over. The text shows the ends
                of the logs.
        """
        outcome = f"the guest was not up after {_BOOT_SECONDS:.0f} s"

        async def end_with(text: str, happened: Callable[[], Awaitable[object]]) -> None:
            nonlocal outcome
            # The others fail when QEMU ends, which is watched for itself.
            with contextlib.suppress(GuestGoneError, QmpError):
                await happened()
                outcome = text
                tasks.cancel_scope.cancel()

        stops = self.qmp.count_events("STOP")
        with trio.move_on_after(_BOOT_SECONDS):
            async with trio.open_nursery() as tasks:
                tasks.start_soon(end_with, "", lambda: self._agent.wait_for_boot(boots))
                tasks.start_soon(end_with, "QEMU ended", self.process.wait)
                tasks.start_soon(
                    end_with, "the kernel panicked", self._machine.console.panicked.wait
                )
                # KVM stops a guest where it meets an instruction that it cannot execute.
                stopped = functools.partial(self.qmp.wait_for_event, "STOP", count=stops + 1)
                tasks.start_soon(end_with, "QEMU stopped the guest", stopped)
        if outcome:
            logs = tail(self.directory / "serial.log") + tail(self.directory / "qemu.log")
            raise HarnessError(f"{outcome}\n{logs}")


@asynccontextmanager
async def boot_guest(
    image: Image,
    *,
    workdir: Path,
    devices: Sequence[str] = (),
    qemu: Qemu | None = None,
    usb: Controller = "xhci",
    memory: int = 384,
    accelerator: str | None = None,
    pass_fds: Sequence[int] = (),
    init: Init = "init",
) -> AsyncGenerator[Guest]:
    """Boot a guest; inside the block it is up, and when the block is left QEMU has ended.

    Each boot starts from the image's pristine state.

    Args:
        image: What to boot.
        workdir: Gets a directory with the logs and captures of this boot.
        devices: More options for QEMU. Each `usb-ccid` and `usb-redir` is captured.
        qemu: Which QEMU; by default, this host's.
        usb: The USB host controller.
        memory: In MiB.
        accelerator: "kvm" or "tcg"; by default, KVM where a first guest comes up with it.
        pass_fds: Descriptors that QEMU inherits, for `fd=` in the options.
        init: The guest's first program: one that starts pcscd and the agent, or systemd.

    Raises:
        HarnessError: The guest does not come up.
    """
    qemu = qemu or system_qemu()
    accelerator = accelerator or await _accelerator(image, qemu)
    directory = next_directory(workdir)
    async with AsyncExitStack() as stack, background_tasks() as tasks:
        disk = directory / "root.qcow2"
        await overlay_on(image.root, disk)
        stack.callback(disk.unlink)
        options = _machine(image, disk, memory, accelerator, init)
        for controller in _CONTROLLERS[usb]:
            options += ["-device", controller]
        host = Host([*qemu.argv, *options], environment(qemu), pass_fds, stack, tasks)
        machine = await host.start(directory, devices)
        agent = Agent(machine.agent)
        stack.push_async_callback(agent.aclose)
        tasks.start_soon(agent.receive)
        guest = Guest(host, machine, agent)
        await guest.wait_for_boot()
        yield guest


def _machine(image: Image, disk: Path, memory: int, accelerator: str, init: Init) -> list[str]:
    argv = ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc"]
    # Five-level page tables make TCG slower, and nothing here needs them.
    cpu = "host" if accelerator == "kvm" else "max,la57=off"
    argv += ["-accel", accelerator, "-cpu", cpu, "-smp", "1", "-m", str(memory)]
    argv += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
    argv += ["-append", f"{_KERNEL_ARGUMENTS} guest_init={init}"]
    argv += ["-drive", f"file={quoted(disk)},format=qcow2,if=virtio,cache=unsafe"]
    return argv


_chosen_accelerators: dict[str, str] = {}


async def _accelerator(image: Image, qemu: Qemu) -> str:
    """Return "kvm" where a guest comes up with it, else "tcg"; tried once for each QEMU.

    Nothing less than a whole boot will do: there are hosts whose KVM executes some instructions,
    and not those that every kernel has.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    if qemu.name not in _chosen_accelerators:
        with tempfile.TemporaryDirectory() as workdir, trio.move_on_after(_KVM_BOOT_SECONDS):
            _chosen_accelerators[qemu.name] = "tcg"
            with contextlib.suppress(HarnessError):
                async with boot_guest(
                    image, workdir=Path(workdir), qemu=qemu, accelerator="kvm"
                ) as guest:
                    await guest.run("opensc-tool", "--list-readers")
                    _chosen_accelerators[qemu.name] = "kvm"
    return _chosen_accelerators[qemu.name]
