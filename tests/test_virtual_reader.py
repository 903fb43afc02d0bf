# SPDX-License-Identifier: Apache-2.0
"""The virtual reader that other tests take for a physical one, in a real pcscd."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from cards import ScriptedCard, echo_card
from pcscd import Pcscd, pcscd_with
from vpcd import VirtualReader, virtual_reader


@asynccontextmanager
async def host_with_reader(directory: Path) -> AsyncIterator[tuple[Pcscd, VirtualReader]]:
    async with virtual_reader() as reader, pcscd_with(directory, reader.configuration) as host:
        yield host, reader


async def until_listed(host: Pcscd, *states: str) -> None:
    """Waits until the slots have cards or not."""
    with trio.fail_after(20):
        listed: list[str] = []
        while listed != list(states):
            lines = (await host.run("opensc-tool", "--list-readers")).splitlines()
            listed = [line.split()[1] for line in lines[2:]]


async def test_cards_come_and_go_in_each_of_its_slots(tmp_path: Path) -> None:
    async with host_with_reader(tmp_path) as (host, reader):
        await until_listed(host, "No", "No")
        for _ in range(2):
            reader.insert(echo_card())
            await until_listed(host, "Yes", "No")
            reader.insert(echo_card(), slot=1)
            await until_listed(host, "Yes", "Yes")
            reader.remove()
            await until_listed(host, "No", "Yes")
            reader.remove(slot=1)
            await until_listed(host, "No", "No")


async def test_a_card_answers_each_pcscd_that_comes(tmp_path: Path) -> None:
    async with virtual_reader() as reader:
        reader.insert(echo_card())
        for killed in (True, False):
            async with pcscd_with(tmp_path, reader.configuration) as host:
                await until_listed(host, "Yes", "No")
                sent = await host.run("opensc-tool", "--send-apdu=0010000500")
                assert "Received (SW1=0x90, SW2=0x00):\n00 01 02" in sent
                if killed:
                    host.kill()


async def test_a_card_goes_while_it_is_at_work(tmp_path: Path) -> None:
    at_work = trio.Event()

    async def answer(command: bytes) -> bytes:
        at_work.set()
        await trio.sleep(math.inf)
        return command

    async with host_with_reader(tmp_path) as (host, reader), trio.open_nursery() as nursery:
        reader.insert(ScriptedCard(answer))
        await until_listed(host, "Yes", "No")
        nursery.start_soon(send_in_vain, host)
        await at_work.wait()
        reader.remove()
        await until_listed(host, "No", "No")


async def send_in_vain(host: Pcscd) -> None:
    with pytest.raises(AssertionError):
        await host.run("opensc-tool", "--send-apdu=0010000500")
