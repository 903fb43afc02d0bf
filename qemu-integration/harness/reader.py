# SPDX-License-Identifier: Apache-2.0
"""The scripted reader beside a guest, and what the guest sees of it through PC/SC."""

from __future__ import annotations

import contextlib
import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from harness import scripted_reader
from harness.ccidd import running_ccidd
from harness.errors import HarnessError
from harness.scripted_reader import Hand, atr_of_card, hand_at

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from harness.guest import Guest

SCRIPTED_READER: Final = (sys.executable, "-P", scripted_reader.__file__)
_SCRIPTS: Final = Path(scripted_reader.__file__).with_name("guest_scripts")

WHO_ARE_YOU: Final = bytes.fromhex("0040000002")
"""A command: how often the card was powered on, and its number."""


def work(seconds: int) -> bytes:
    """Return a command that takes so many seconds."""
    return bytes([0, 0x30, seconds, 0])


@asynccontextmanager
async def scripted(path: Path, *options: str, workdir: Path) -> AsyncGenerator[Hand]:
    """Serve a scripted reader at `path`."""
    options = (f"--socket-path={path}", *options)
    async with (
        running_ccidd(*options, workdir=workdir, program=SCRIPTED_READER),
        hand_at(path) as hand,
    ):
        yield hand


async def run_script(guest: Guest, name: str, *arguments: str, lines: Sequence[str]) -> list[str]:
    """Run one of the scripts for the guest; return the lines that it prints."""
    script = (_SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
    text = "".join(f"{line}\n" for line in lines).encode()
    ran = await guest.run("python3", "-c", script, *arguments, input=text, timeout=120)
    return ran.text.splitlines()


async def transmit(guest: Guest, slot: int, *commands: bytes) -> list[bytes]:
    """Send commands to the card in a slot; return its ATR and the responses."""
    atr, *answers = await run_script(
        guest, "apdus", str(slot), lines=[command.hex() for command in commands]
    )
    return [bytes.fromhex(atr), *(bytes.fromhex(answer.split()[1]) for answer in answers)]


async def cards_in_slots(guest: Guest) -> dict[int, bool]:
    """Return which slots pcscd shows, and whether it sees a card there."""
    rows = [line.split() for line in await run_script(guest, "slots", lines=[])]
    return {int(slot, 16): content == "full" for slot, content in rows}


async def until_cards(guest: Guest, wanted: Mapping[int, bool]) -> None:
    """Wait until pcscd shows just these slots and cards."""
    seen: dict[int, bool] = {}
    with trio.move_on_after(30):
        while (seen := await cards_in_slots(guest)) != wanted:
            pass
        return
    raise HarnessError(f"pcscd shows {seen}, not {dict(wanted)}")


async def transmit_to(guest: Guest, number: int) -> list[bytes]:
    """Ask a card who it is as soon as the guest gets to it, in slot 0; return ATR and response."""
    with trio.move_on_after(30):
        while True:
            with contextlib.suppress(HarnessError):
                answers = await transmit(guest, 0, WHO_ARE_YOU)
                if answers[0] == atr_of_card(number):
                    return answers
    raise HarnessError(f"the guest does not get to card {number}")


async def usb_history(guest: Guest) -> list[str]:
    """Return what the guest's kernel said of USB devices that came and went."""
    said = (await guest.run("dmesg")).text
    return re.findall(r"usb \S+: (?:new .*|USB disconnect.*)", said)
