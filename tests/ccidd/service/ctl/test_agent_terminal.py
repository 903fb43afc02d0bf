# SPDX-License-Identifier: Apache-2.0
"""A person at `ccidctl agent` lets this host's pcscd use a card of a real ccidd, or does not."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from ccidd.service.state import State
from ccidd.transport.serial import serial_model
from control_client import ControlClient, connect
from crash import CHEAP
from kept_cards import PIN, keep_card
from pcscd import Pcscd, pcscd
from programs import CCIDD, started
from terminal import Terminal, new_terminal

CCIDCTL = str(Path(sys.executable).with_name("ccidctl"))
PROMPT = r"PIN \(nothing refuses\): $"
QUESTION = r"Allow\? \[y/N\] $"


class Desk:
    """The terminal at which the agent runs, and the host that uses the card."""

    def __init__(self, terminal: Terminal, host: Pcscd, directory: Path) -> None:
        self.terminal = terminal
        self._host = host
        self._directory = directory

    async def sign(self, results: list[str], status: int | None = 0) -> None:
        """Signs with the card; its PIN is entered at the reader."""
        data = self._directory / "data"
        data.write_bytes(b"to be signed")
        results.append(
            await self._host.run(
                *("pkcs11-tool", "--login", "--sign", "--id=01", "--mechanism=ECDSA-SHA256"),
                *(f"--input-file={data}", f"--output-file={self._directory / 'signature'}"),
                status=status,
            )
        )


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    with State(tmp_path / "state", cost=CHEAP) as state:
        keep_card(state, "default")
    link, control = tmp_path / "reader", tmp_path / "control.sock"
    ccidd = [
        *(*CCIDD, "--transport=serial", f"--socket-path={link}", "--reader=pin-entry=agent"),
        *("--card=piv,card=default,confirm=sign,confirm-with=agent", f"--control={control}"),
        f"--state-dir={tmp_path / 'state'}",
    ]
    with started(ccidd, log=tmp_path / "log"):
        client = ControlClient(await connect(control))
        await client.begin()
        model = serial_model(1, has_pin_entry=True).name
        async with new_terminal() as terminal, agent(terminal, control), pcscd(link, model) as host:
            await terminal.sees("connected to")
            yield Desk(terminal, host, tmp_path)
        await client.stream.aclose()
    # Nobody but the person and the card has seen it.
    for file in ("log", "pcscd.log"):
        assert PIN not in (tmp_path / file).read_text()


@asynccontextmanager
async def agent(terminal: Terminal, control: Path) -> AsyncIterator[None]:
    """Has an agent run at a terminal, which is its own."""
    fd = os.open(terminal.name, os.O_RDWR | os.O_NOCTTY)
    try:
        process = await trio.lowlevel.open_process(
            ["setsid", "--ctty", CCIDCTL, "agent", f"--socket={control}"],
            stdin=fd,
            stdout=fd,
            stderr=subprocess.STDOUT,
        )
    finally:
        os.close(fd)
    try:
        yield
        # ^C, as a person ends it.
        await terminal.types("\x03")
        assert await process.wait() == 0
        assert terminal.is_as_before
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def test_a_person_enters_the_pin_and_allows_the_signature(desk: Desk, tmp_path: Path) -> None:
    results: list[str] = []
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.sign, results)
            await desk.terminal.sees("asks for the PIN of .*" + PROMPT)
            await desk.terminal.types(f"{PIN}\r")
            await desk.terminal.sees("asks to sign.*" + QUESTION)
            await desk.terminal.types("y\r")
    assert (tmp_path / "signature").stat().st_size == 64
    assert "in slot 0 of the reader reader." in desk.terminal.text
    assert PIN not in desk.terminal.text + "".join(results)


async def test_a_person_refuses(desk: Desk, tmp_path: Path) -> None:
    results: list[str] = []
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(desk.sign, results, status=None))
            await desk.terminal.sees(PROMPT)
            await desk.terminal.types("\r")
    assert "CKR_FUNCTION_CANCELED" in results[0]
    assert not (tmp_path / "signature").exists()
