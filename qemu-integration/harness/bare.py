# SPDX-License-Identifier: Apache-2.0
"""QEMU with one of its smart-card devices and no guest: its BIOS alone runs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from harness.process import running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from harness.qemu import Qemu

_READY_SECONDS = 30


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
    machine = ["-nodefaults", "-display", "none", "-accel", "tcg", "-device", "qemu-xhci"]
    argv = [*qemu.argv, *machine, *devices(f"path={path},server=on,wait=off")]
    async with running(argv, log=directory / "qemu.log"):
        with trio.fail_after(_READY_SECONDS):
            while not path.exists():  # noqa: ASYNC110 -- nobody tells when QEMU listens
                await trio.sleep(0.05)
        async with await trio.open_unix_socket(str(path)) as stream:
            yield stream
