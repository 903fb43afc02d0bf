# SPDX-License-Identifier: Apache-2.0
"""ccidd beside QEMU, and the ways in which the two come together."""

from __future__ import annotations

import re
import socket
import sys
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

import trio

from harness.errors import HarnessError
from harness.guest import Guest, boot_guest
from harness.machine import quoted
from harness.process import Process, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path
    from types import ModuleType

    from harness.image import Image
    from harness.qemu import Qemu

Transport = Literal["usbredir", "vscard"]

Way = Literal["QEMU connects", "QEMU listens", "inherited descriptor", "socket activation"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)

CCIDD: Final = (sys.executable, "-m", "ccidd")

_READY_SECONDS = 30.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Pair:
    """A guest, and the ccidd that it has its card from."""

    guest: Guest
    ccidd: Process


def passthru(socket_options: str) -> list[str]:
    """Return QEMU's options for a reader whose card is behind a socket chardev.

    Args:
        socket_options: The socket, such as "path=/tmp/s" or "fd=5".
    """
    return [
        *("-chardev", f"socket,id=card,{socket_options}"),
        *("-device", "usb-ccid"),
        *("-device", "ccid-card-passthru,chardev=card"),
    ]


def redirected(socket_options: str) -> list[str]:
    """Return QEMU's options for a USB device behind a socket chardev, as `passthru` does."""
    return ["-chardev", f"socket,id=card,{socket_options}", "-device", "usb-redir,chardev=card"]


@asynccontextmanager
async def running_ccidd(
    *options: str,
    workdir: Path,
    program: Sequence[str] = CCIDD,
    wait: bool = True,
    pass_fds: Sequence[int] = (),
) -> AsyncGenerator[Process]:
    """Run ccidd; inside the block it is ready.

    Args:
        options: Its options; the state is kept in `workdir`.
        workdir: Gets the log, `ccidd-1.log` for the first.
        program: What to run in its place, with the same options.
        wait: Whether to wait until it says that it is ready.
        pass_fds: Descriptors that it inherits.

    Raises:
        HarnessError: It ended before it was ready.
    """
    argv = [*program, *options, f"--state-dir={workdir / 'state'}"]
    log = workdir / f"ccidd-{1 + len(list(workdir.glob('ccidd-*.log')))}.log"
    async with running(argv, log=log, pass_fds=pass_fds) as process:
        if wait:
            await until_logged(process, "event=ready")
        yield process


@asynccontextmanager
async def running_echo(echo: ModuleType, path: Path) -> AsyncGenerator[None]:
    """Run one of the programs that only echo; inside the block it listens at `path`."""
    argv = [sys.executable, "-P", str(echo.__file__), str(path)]
    async with running(argv, log=path.with_suffix(".log")) as process:
        await until_logged(process, "event=ready")
        yield


async def until_logged(process: Process, text: str) -> None:
    """Wait until ccidd's log contains a text.

    Raises:
        HarnessError: It does not, and ccidd ended or too much time went by.
    """
    with trio.move_on_after(_READY_SECONDS):
        while process.returncode is None:
            if text in process.log_text():
                return
            await trio.sleep(_POLL_SECONDS)
    raise HarnessError(f"ccidd did not say {text!r}\n{process.log_tail()}")


@asynccontextmanager
async def guest_with_card(
    *options: str,
    image: Image,
    workdir: Path,
    qemu: Qemu | None = None,
    way: Way = "QEMU connects",
    transport: Transport = "usbredir",
) -> AsyncGenerator[Pair]:
    """Boot a guest whose reader has ccidd's card in it.

    Args:
        options: ccidd's options, but for the socket.
        image: What to boot.
        workdir: Gets the logs and captures.
        qemu: Which QEMU; by default, this host's.
        way: How the two come together.
        transport: What they speak.
    """
    path = workdir / "card.socket"
    ccidd_options, qemu_socket = [*options, f"--transport={transport}"], f"path={quoted(path)}"
    devices = {"usbredir": redirected, "vscard": passthru}[transport]
    program: Sequence[str] = CCIDD
    fds: tuple[int, ...] = ()
    with ExitStack() as sockets:
        match way:
            case "QEMU connects":
                ccidd_options.append(f"--socket-path={path}")
            case "QEMU listens":
                ccidd_options.append(f"--connect={path}")
                qemu_socket += ",server=on,wait=off"
            case "inherited descriptor":
                ends = [sockets.enter_context(end) for end in socket.socketpair()]
                fds = ends[0].fileno(), ends[1].fileno()
                ccidd_options.append(f"--fd={fds[0]}")
                qemu_socket = f"fd={fds[1]}"
            case "socket activation":
                # It starts ccidd as soon as QEMU connects.
                program = ("systemd-socket-activate", f"--listen={path}", *CCIDD)
        async with (
            running_ccidd(
                *ccidd_options,
                workdir=workdir,
                program=program,
                wait=way != "socket activation",
                pass_fds=fds[:1],
            ) as ccidd,
            boot_guest(
                image,
                workdir=workdir,
                qemu=qemu,
                devices=devices(qemu_socket),
                pass_fds=fds[1:],
            ) as guest,
        ):
            # What is handed over must be in nobody else's hands, or no end of it is ever seen.
            sockets.close()
            yield Pair(guest, ccidd)


def pin_of_embedded_card(ccidd: Process) -> str:
    """Return the PIN that ccidd showed when it made its card."""
    shown = re.search(r"^PIN +(\d+)$", ccidd.log_text(), re.MULTILINE)
    if shown is None:
        raise HarnessError(f"ccidd showed no PIN\n{ccidd.log_tail()}")
    return shown[1]
