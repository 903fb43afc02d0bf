# SPDX-License-Identifier: Apache-2.0
"""A guest sleeps and wakes with ccidd's reader over usb-redir."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest
import trio

from ccid_protocol.usbredir import Reset, Role, SetConfiguration
from harness.ccidd import redirected
from harness.errors import HarnessError
from harness.guest import Controller, boot_guest
from harness.reader import (
    WHO_ARE_YOU,
    scripted,
    transmit,
    transmit_to,
    until_cards,
    usb_history,
    work,
)
from harness.scripted_reader import atr_of_card
from harness.wiretap import wiretap

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from harness.guest import Guest
    from harness.image import Image
    from harness.qemu import Qemu

State = Literal["mem", "freeze"]
"""As /sys/power/state has them: S3, which QEMU knows of, and s2idle, of which it knows nothing."""

SLEEPS = [
    pytest.param(state, usb, id=f"{state}-{usb}")
    for state in ("mem", "freeze")
    for usb in ("xhci", "uhci")
]


async def packed(image: Image, qemu: Qemu, workdir: Path) -> Image:
    """Return an image with the kernel as Debian has it.

    An unpacked one does not survive S3: QEMU writes it to its place again when the guest wakes.
    """
    async with boot_guest(image, qemu=qemu, workdir=workdir) as guest:
        kernel = await guest.run("sh", "-c", "cat /boot/vmlinuz-*")
    path = workdir / "vmlinuz"
    path.write_bytes(kernel.stdout)
    return replace(image, kernel=path)


_FALL_ASLEEP = """\
echo N >/sys/module/printk/parameters/console_suspend
echo 1 >/sys/power/pm_debug_messages
dmesg --console-level debug
echo enabled >/sys/class/tty/ttyS0/power/wakeup
exec </dev/ttyS0 # a terminal that is open wakes the guest when a key is pressed
echo "$1" >/sys/power/state
"""
_SLEEPS_IDLY = "PM: suspend-to-idle"
_POLL_SECONDS = 0.1


@asynccontextmanager
async def asleep(guest: Guest, state: State) -> AsyncGenerator[None]:
    """Have the guest sleep while the block runs."""
    console = guest.directory / "serial.log"
    suspends, idles = guest.qmp.count_events("SUSPEND"), console.read_text().count(_SLEEPS_IDLY)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guest.run, "sh", "-ec", _FALL_ASLEEP, "sh", state)
            if state == "mem":
                await guest.qmp.wait_for_event("SUSPEND", count=suspends + 1)
            else:
                await until_idle(console, idles + 1)
            yield
            if state == "mem":
                await guest.qmp.execute("system_wakeup")
            else:
                await guest.type(b"\n")


async def until_idle(console: Path, times: int) -> None:
    """Wait until the guest has gone to sleep so many times without QEMU's knowledge."""
    while console.read_text().count(_SLEEPS_IDLY) < times:  # noqa: ASYNC110 -- it is elsewhere
        await trio.sleep(_POLL_SECONDS)


@pytest.mark.parametrize(("state", "usb"), SLEEPS)
async def test_a_guest_that_slept_uses_its_card_again(
    state: State, usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "reader.socket"
    if state == "mem":
        image = await packed(image, qemu, tmp_path)
    async with (
        scripted(path, workdir=tmp_path) as hand,
        wiretap(path, workdir=tmp_path) as tap,
        boot_guest(
            image, qemu=qemu, workdir=tmp_path, devices=redirected(f"path={tap.path}"), usb=usb
        ) as guest,
    ):
        await until_cards(guest, {0: True})
        assert (await transmit(guest, 0, WHO_ARE_YOU))[0] == atr_of_card(0)
        history = await usb_history(guest)
        async with asleep(guest, state):
            before = len(tap.packets(Role.GUEST))
        await until_cards(guest, {0: True})
        said = [type(packet) for packet in tap.packets(Role.GUEST)[before:]]
        assert said[0] is Reset
        assert SetConfiguration in said
        assert (await transmit(guest, 0, WHO_ARE_YOU))[0] == atr_of_card(0)

        async with asleep(guest, state):
            await hand.swap(0)
        await transmit_to(guest, 1)

        async with asleep(guest, state):
            await hand.remove(0)
        await until_cards(guest, {0: False})
        await hand.insert(0)
        await transmit_to(guest, 2)
        assert await usb_history(guest) == history


@pytest.mark.parametrize(("state", "usb"), SLEEPS[:1])
async def test_a_card_at_work_is_free_again_when_the_guest_wakes(
    state: State, usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "reader.socket"
    devices = redirected(f"path={path}")
    if state == "mem":
        image = await packed(image, qemu, tmp_path)
    async with (
        scripted(path, workdir=tmp_path) as hand,
        boot_guest(image, qemu=qemu, workdir=tmp_path, devices=devices, usb=usb) as guest,
    ):
        await until_cards(guest, {0: True})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transmit_in_vain, guest)
            await hand.until_working(0)
            async with asleep(guest, state):
                pass
        await transmit_to(guest, 0)
        await hand.until_working()


async def transmit_in_vain(guest: Guest) -> None:
    """Send a command that the guest's sleep breaks off."""
    with pytest.raises(HarnessError):
        await transmit(guest, 0, work(100))
