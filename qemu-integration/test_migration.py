# SPDX-License-Identifier: Apache-2.0
"""A guest is migrated to another QEMU while it uses ccidd's reader over usb-redir."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from ccid_protocol.usbredir import (
    BulkPacket,
    Role,
    StartInterruptReceiving,
    StopInterruptReceiving,
    is_in,
)
from harness.ccidd import redirected
from harness.errors import HarnessError
from harness.guest import Controller, boot_guest
from harness.reader import (
    WHO_ARE_YOU,
    run_script,
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

    from ccid_protocol.usbredir import Packet
    from harness.guest import Guest
    from harness.image import Image
    from harness.qemu import Qemu
    from harness.scripted_reader import Hand
    from harness.wiretap import Wiretap

DONE = b"\x90\x00"
CONTROLLERS: list[Controller] = ["xhci", "uhci"]


@asynccontextmanager
async def guest_with_hand(
    image: Image, qemu: Qemu, usb: Controller, workdir: Path
) -> AsyncGenerator[tuple[Guest, Hand]]:
    """Boot a guest that has a scripted reader."""
    path = workdir / "reader.socket"
    devices = redirected(f"path={path}")
    async with (
        scripted(path, workdir=workdir) as hand,
        boot_guest(image, qemu=qemu, workdir=workdir, devices=devices, usb=usb) as guest,
    ):
        yield guest, hand


@pytest.mark.parametrize("usb", [*CONTROLLERS, "ehci"])
async def test_a_guest_at_rest_keeps_its_reader(
    usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    async with guest_with_hand(image, qemu, usb, tmp_path) as (guest, hand):
        await until_cards(guest, {0: True})
        assert (await transmit(guest, 0, WHO_ARE_YOU))[0] == atr_of_card(0)
        history = await usb_history(guest)

        await guest.migrate()
        # The guest has sent nothing yet, and is notified all the same.
        await hand.remove(0)
        await until_cards(guest, {0: False})
        await hand.insert(0)
        await until_cards(guest, {0: True})
        assert (await transmit(guest, 0, WHO_ARE_YOU))[0] == atr_of_card(1)

        await guest.migrate()
        assert (await transmit(guest, 0, WHO_ARE_YOU))[0] == atr_of_card(1)
        await hand.swap(0)
        assert (await transmit_to(guest, 2))[1] == bytes([1, 2]) + DONE
        assert await usb_history(guest) == history


@pytest.mark.parametrize("usb", CONTROLLERS)
async def test_a_command_at_work_is_answered_at_the_destination(
    usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    async with guest_with_hand(image, qemu, usb, tmp_path) as (guest, hand):
        await until_cards(guest, {0: True})
        history = await usb_history(guest)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check_work, guest, 12)
            await hand.until_working(0)
            await guest.migrate()
            await hand.until_working(0)
        assert await usb_history(guest) == history


async def check_work(guest: Guest, seconds: int) -> None:
    """Check that a command is answered, and the card keeps its power meanwhile."""
    commands = [WHO_ARE_YOU, work(seconds), WHO_ARE_YOU]
    _atr, before, answer, after = await transmit(guest, 0, *commands)
    assert answer == DONE
    assert after == before


@pytest.mark.parametrize("usb", CONTROLLERS)
async def test_a_read_that_waits_is_answered_though_the_guest_says_nothing_more(
    usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    async with guest_with_hand(image, qemu, usb, tmp_path) as (guest, hand):
        await guest.run("pcscd-control", "stop")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check_work_over_usb, guest)
            await hand.until_working(0)
            await guest.migrate()
            await hand.until_working(0)


async def check_work_over_usb(guest: Guest) -> None:
    """Have the card work for 6 seconds, with no driver in between."""
    lines = ["configure 1"]
    # PC_to_RDR_IccPowerOn and PC_to_RDR_XfrBlock
    for message in ("62000000000001000000", f"6f040000000002000000{work(6).hex()}"):
        lines += [f"out {message}", "in 400"]
    *_, answer = await run_script(guest, "usb_requests", lines=lines)
    assert answer == f"80020000000002000000{DONE.hex()}"


@pytest.mark.parametrize("usb", CONTROLLERS)
async def test_an_answer_that_came_while_the_guest_was_stopped_is_not_lost(
    usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    async with guest_with_hand(image, qemu, usb, tmp_path) as (guest, hand):
        await until_cards(guest, {0: True})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check_work, guest, 3)
            await hand.until_working(0)
            await guest.qmp.execute("stop")
            await hand.until_working()
            await guest.migrate()
            await guest.qmp.execute("cont")


@pytest.mark.parametrize("usb", CONTROLLERS)
async def test_a_guest_gets_a_new_card_from_the_ccidd_of_another_host(
    usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    here, there = tmp_path / "here.socket", tmp_path / "there.socket"
    devices = redirected(f"path={here}")
    async with (
        scripted(here, workdir=tmp_path) as hand,
        scripted(there, "--cards=0", workdir=tmp_path) as other,
        boot_guest(image, qemu=qemu, workdir=tmp_path, devices=devices, usb=usb) as guest,
    ):
        await until_cards(guest, {0: True})
        await transmit(guest, 0, WHO_ARE_YOU)
        history = await usb_history(guest)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transmit_in_vain, guest)
            await hand.until_working(0)
            await guest.migrate(redirected(f"path={there}"))
        await until_cards(guest, {0: True})
        assert (await transmit_to(guest, 0))[0] == atr_of_card(0)
        await other.remove(0)
        await until_cards(guest, {0: False})
        await other.insert(0)
        await until_cards(guest, {0: True})
        assert (await transmit(guest, 0, WHO_ARE_YOU))[0] == atr_of_card(1)
        assert await usb_history(guest) == history
        assert guest.process.returncode is None


async def transmit_in_vain(guest: Guest) -> None:
    """Send a command whose card stays behind."""
    with pytest.raises(HarnessError):
        await transmit(guest, 0, work(30))


# What QEMU does, and ccidd relies on.


@pytest.mark.parametrize("usb", CONTROLLERS)
async def test_qemu_goes_on_with_a_session_without_a_word(
    usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "reader.socket"
    async with (
        scripted(path, workdir=tmp_path) as hand,
        wiretap(path, workdir=tmp_path) as first,
        wiretap(path, workdir=tmp_path) as second,
        wiretap(path, workdir=tmp_path) as third,
        boot_guest(
            image, qemu=qemu, workdir=tmp_path, devices=redirected(f"path={first.path}"), usb=usb
        ) as guest,
    ):
        await until_cards(guest, {0: True})
        # pcscd turns the card off, and waits for news from the interrupt endpoint.
        await until_silent(first, 5)
        await guest.migrate(redirected(f"path={second.path}"))
        await trio.sleep(2)
        listening = last_of(first, StartInterruptReceiving, StopInterruptReceiving)
        assert isinstance(listening, StartInterruptReceiving)
        assert second.packets(Role.GUEST) == []

        async with trio.open_nursery() as nursery:
            nursery.start_soon(transmit, guest, 0, work(30))
            await hand.until_working(0)
            # The program's command has begun, and nothing else is done until it ends.
            await guest.migrate(redirected(f"path={third.path}"))
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
        waiting = last_of(second, BulkPacket)
        assert isinstance(waiting, BulkPacket)
        assert is_in(waiting.endpoint)
        # The request is not made again, nor cancelled; the reader may have answered it.
        assert not third.said or third.said[0].role is Role.DEVICE


async def until_silent(tap: Wiretap, seconds: float) -> None:
    """Wait until nothing was said for so long."""
    said = -1
    while said != len(tap.said):
        said = len(tap.said)
        await trio.sleep(seconds)


def last_of(tap: Wiretap, *kinds: type[Packet]) -> Packet:
    """Return the last of QEMU's packets that is of some kinds."""
    *_, packet = (packet for packet in tap.packets(Role.GUEST) if isinstance(packet, kinds))
    return packet
