# SPDX-License-Identifier: Apache-2.0
"""This machine's pcscd and libccid, with readers of ours on serial lines."""

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from ccidd.reader.pinentry.source import PinSource
from ccidd.reader.profile import Level, default_profile
from ccidd.reader.slot import Slot
from ccidd.transport.serial import PseudoTerminal, serve_serial

_PATIENCE = 60
"""Seconds for a program; pcscd takes its time over a reader that was busy when it came."""


class Pcscd:
    """A pcscd in a mount namespace of its own, which holds its socket."""

    def __init__(self, process: trio.Process) -> None:
        self.pid = process.pid
        enter = ["nsenter", f"--target={process.pid}", "--mount"]
        if os.geteuid():
            enter += ["--user", "--preserve-credentials"]
        self._enter = enter

    async def run(self, *command: str) -> str:
        """Runs a program that finds this pcscd; gives what it says."""
        with trio.fail_after(_PATIENCE):
            result = await trio.run_process(
                [*self._enter, *command],
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
        output = result.stdout.decode()
        assert result.returncode == 0, output
        return output


@asynccontextmanager
async def pcscd(link: Path, model: str) -> AsyncIterator[Pcscd]:
    configuration = link.parent / "reader.conf.d"
    configuration.mkdir(exist_ok=True)
    (configuration / "ccidd").write_text(
        'FRIENDLYNAME "ccidd"\n'
        f"DEVICENAME {link}:{model}\n"
        "LIBPATH /usr/lib/pcsc/drivers/serial/libccidtwin.so\n"
    )
    script = (
        "mount -t tmpfs none /run && mkdir /run/pcscd && echo && exec pcscd -f -c"
        f" {configuration} 2>&1"
    )
    as_root = ["--map-root-user"] if os.geteuid() else []
    process = await trio.lowlevel.open_process(
        ["unshare", "--mount", *as_root, "sh", "-c", script], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    log = bytearray()
    try:
        with trio.fail_after(60):
            log += await process.stdout.receive_some()
            assert log.startswith(b"\n"), "pcscd needs a mount namespace: unshare --mount failed"
            host = Pcscd(process)
            await host.run("sh", "-c", "until [ -S /run/pcscd/pcscd.comm ]; do sleep 0.02; done")
        yield host
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


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
