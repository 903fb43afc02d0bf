# SPDX-License-Identifier: Apache-2.0
"""Runs ccidd-vscclient as its users do: as a process, beside an emulated QEMU that listens."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from qemu_peer import QemuPeer

VSCCLIENT = str(Path(sys.executable).with_name("ccidd-vscclient"))
PASSWORD = "654321"
SELECT_PKI = (
    bytes.fromhex("00A4040007A0000000790100"),
    bytes.fromhex("00A4040007A0000000790101"),
)


def soft(*nicknames: str, name: str = "Test") -> str:
    return f"soft=(,{name},CAC,,{','.join(nicknames)})"


def emul_args(database: Path, *readers: str) -> str:
    return " ".join([f'db="sql:{database}" use_hw=no', *readers])


class Qemu:
    """A QEMU that listens, for one client after the other."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self.address = listener.socket.getsockname()[:2]

    @property
    def arguments(self) -> list[str]:
        host, port = self.address
        return [host, str(port)]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[QemuPeer]:
        """Takes one client; in the end the connection is cut."""
        stream = await self._listener.accept()
        peer = QemuPeer(stream)
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            yield peer
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def listening(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Qemu]:
    (listener,) = await trio.open_tcp_listeners(port, host=host)
    async with listener:
        yield Qemu(listener)


class Client:
    """A running ccidd-vscclient, and the person who types its commands."""

    def __init__(self, process: trio.Process, log: Path) -> None:
        self.process = process
        self._log = log
        self._output = b""

    async def sees(self, text: str) -> str:
        """Waits for a text; returns all that was printed up to its end since the last."""
        assert self.process.stdout is not None
        wanted = text.encode()
        while wanted not in self._output:
            data = await self.process.stdout.receive_some()
            assert data, self.log
            self._output += data
        seen, _, self._output = self._output.partition(wanted)
        return (seen + wanted).decode()

    async def types(self, text: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())

    async def does(self, command: str) -> str:
        """Types a command; returns the answer to it."""
        await self.types(command + "\n")
        return (await self.sees("> ")).removesuffix("> ")

    @property
    def log(self) -> str:
        return self._log.read_text()


@asynccontextmanager
async def running(
    *arguments: str, tmp_path: Path, stdin: int = subprocess.PIPE
) -> AsyncIterator[Client]:
    with (log := tmp_path / "log").open("ab") as stderr, trio.fail_after(60):
        process = await trio.lowlevel.open_process(
            [VSCCLIENT, *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=stderr
        )
        try:
            yield Client(process, log)
        finally:
            process.kill()
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()
            if process.stdin is not None:
                await process.stdin.aclose()


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VSCCLIENT, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
