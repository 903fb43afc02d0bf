# SPDX-License-Identifier: Apache-2.0
"""Neither noise on the wire nor what a guest sends harms QEMU, ccidd, or the card's next use."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

from harness.ccidd import redirected, running_ccidd
from harness.errors import HarnessError
from harness.guest import Controller, boot_guest
from harness.noisy_wire import noisy_wire
from harness.reader import SCRIPTED_READER, WHO_ARE_YOU, run_script, transmit, until_cards
from harness.scripted_reader import atr_of_card, hand_at

if TYPE_CHECKING:
    from pathlib import Path

    from harness.guest import Guest
    from harness.image import Image
    from harness.process import Process
    from harness.qemu import Qemu

SECONDS_OF_NOISE = 25
REQUESTS = 800
FAULTS = ("connection_fault", "card_fault", "Traceback")


async def check_that_all_are_well(guest: Guest, reader: Process) -> None:
    """Check that QEMU, the guest and the reader live, and have found no fault in themselves."""
    status = await guest.qmp.execute("query-status")
    assert isinstance(status, dict)
    assert status["status"] == "running"
    assert guest.process.returncode is None
    assert "ssertion" not in guest.process.log_text()
    kernel = (await guest.run("dmesg")).text
    assert not [line for line in kernel.splitlines() if "BUG" in line or "Call Trace" in line]
    assert reader.returncode is None
    log = reader.log_text()
    assert not [fault for fault in FAULTS if fault in log]


async def test_noise_on_the_wire_harms_nobody(image: Image, qemu: Qemu, tmp_path: Path) -> None:
    reader, path = tmp_path / "reader.socket", tmp_path / "wire.socket"
    devices = redirected(f"path={path},{qemu.reconnect(1)}")
    async with (
        running_ccidd(
            f"--socket-path={reader}", workdir=tmp_path, program=SCRIPTED_READER
        ) as process,
        hand_at(reader) as hand,
        noisy_wire(reader, path, random.Random(1)) as wire,  # noqa: S311 -- noise, and always the same
        boot_guest(image, qemu=qemu, workdir=tmp_path, devices=devices) as guest,
    ):
        with trio.move_on_after(SECONDS_OF_NOISE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(use_again_and_again, guest)
                while True:
                    await trio.sleep(0.4)
                    await hand.swap(0)
        assert min(wire.connections, wire.spoilt) >= 4
        print(wire.connections, wire.spoilt)
        wire.is_honest = True
        wire.cut()
        await until_cards(guest, {0: True})
        await transmit(guest, 0, WHO_ARE_YOU)
        await check_that_all_are_well(guest, process)


async def use_again_and_again(guest: Guest) -> None:
    while True:
        with suppress(HarnessError):
            await transmit(guest, 0, *[bytes.fromhex("001000FF00"), WHO_ARE_YOU] * 10)


@pytest.mark.parametrize("usb", ["xhci", "uhci"])
async def test_no_request_of_a_guest_harms_anybody(
    usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "reader.socket"
    devices = redirected(f"path={path}")
    options = [f"--socket-path={path}", "--slots=2", "--cards=0"]
    async with (
        running_ccidd(*options, workdir=tmp_path, program=SCRIPTED_READER) as process,
        boot_guest(image, qemu=qemu, workdir=tmp_path, devices=devices, usb=usb) as guest,
    ):
        await guest.run("pcscd-control", "stop")
        outcomes = await run_script(guest, "usb_noise", "1", str(REQUESTS), lines=[])
        print("\n".join(outcomes))
        await guest.run("pcscd-control", "start")
        await until_cards(guest, {0: True, 1: False})
        assert (await transmit(guest, 0, WHO_ARE_YOU))[0] == atr_of_card(0)
        await check_that_all_are_well(guest, process)
