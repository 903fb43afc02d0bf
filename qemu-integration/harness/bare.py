# SPDX-License-Identifier: Apache-2.0
"""QEMU with one of its smart-card devices and no guest: its BIOS alone runs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from harness.process import running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from harness.qemu import Qemu

_READY_SECONDS = 30


def bare_command(qemu: Qemu, devices: Sequence[str]) -> list[str]:
    """Return the command for a QEMU with devices and no guest.

    Args:
        qemu: Which QEMU.
        devices: The options for the devices.
    """
    machine = ["-nodefaults", "-display", "none", "-accel", "tcg", "-device", "qemu-xhci"]
    return [*qemu.argv, *machine, *devices]


@asynccontextmanager
async def bare_qemu(
    qemu: Qemu, directory: Path, devices: Callable[[str], list[str]]
) -> AsyncGenerator[trio.SocketStream]:
    """Give a connection to a device of QEMU's.

    Args:
        qemu: Which QEMU.
        directory: Gets the socket and the log.
        devices: Makes the options for the device, given those of its socket.
    """
    path = directory / "device.socket"
    argv = bare_command(qemu, devices(f"path={path},server=on,wait=off"))
    async with running(argv, log=directory / "qemu.log"):
        with trio.fail_after(_READY_SECONDS):
            while not path.exists():  # noqa: ASYNC110 -- nobody tells when QEMU listens
                await trio.sleep(0.05)
        async with await trio.open_unix_socket(str(path)) as stream:
            yield stream
