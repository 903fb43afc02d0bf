# SPDX-License-Identifier: Apache-2.0
"""A guest uses ccidd's own reader over usb-redir."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from ccid_protocol.apdu import CommandAPDU
from harness.ccidd import pin_of_embedded_card, redirected, running_ccidd
from harness.errors import HarnessError
from harness.guest import Controller, boot_guest
from harness.keys import check_signature
from harness.opensc import PIV_NAME, OpenSC
from harness.reader import (
    SCRIPTED_READER,
    WHO_ARE_YOU,
    run_script,
    scripted,
    transmit,
    until_cards,
    work,
)
from harness.scripted_reader import Hand, atr_of_card, response_of_length

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from harness.guest import Guest
    from harness.image import Image
    from harness.process import Process
    from harness.qemu import Qemu

MESSAGE = b"signed in a guest\n"


def answer_of_length(length: int) -> bytes:
    return CommandAPDU(0, 0x10, *divmod(length, 256), ne=65536, extended=True).encode()


def backwards(data: bytes) -> bytes:
    return CommandAPDU(0, 0x20, 0, 0, data, ne=65536, extended=True).encode()


@pytest.mark.parametrize(
    ("level", "usb"), [("extended", "xhci"), ("short", "uhci"), ("tpdu", "ehci")]
)
async def test_a_guest_signs_with_the_embedded_card(
    level: str, usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "reader.socket"
    options = ["--transport=usbredir", f"--socket-path={path}", f"--reader=level={level}"]
    async with (
        running_ccidd(*options, workdir=tmp_path) as ccidd,
        boot_guest(
            image, qemu=qemu, workdir=tmp_path, devices=redirected(f"path={path}"), usb=usb
        ) as guest,
    ):
        opensc = OpenSC(guest)
        await opensc.wait_for_card()
        assert await opensc.card_name() == PIV_NAME
        pin = pin_of_embedded_card(ccidd)
        certificates = await opensc.certificates()
        signature = await opensc.sign("02", "SHA256-RSA-PKCS", MESSAGE, pin)
        check_signature(certificates["02"], signature, MESSAGE)
        shown = await opensc.self_test(pin)
        assert "No errors" in shown
        assert "RSA-PKCS: OK" in shown


async def test_readers_of_1_to_16_slots_come_and_go_with_cards_in_any_of_them(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    async with boot_guest(image, qemu=qemu, workdir=tmp_path) as guest:
        for slots, cards in ((1, {0}), (2, {1}), (8, {0, 5}), (16, {0, 3, 15})):
            path = tmp_path / f"reader-{slots}.socket"
            listed = ",".join(str(card) for card in sorted(cards))
            options = [f"--slots={slots}", f"--cards={listed}"]
            async with scripted(path, *options, workdir=tmp_path) as hand:
                await plug_in(guest, path)
                present = {slot: slot in cards for slot in range(slots)}
                await until_cards(guest, present)
                for number, slot in enumerate(sorted(cards)):
                    atr, who = await transmit(guest, slot, WHO_ARE_YOU)
                    assert atr == atr_of_card(number)
                    assert who[1:] == bytes([number, 0x90, 0])
                if slots == 16:
                    await change_cards_while_the_guest_works(guest, hand, present)
                await unplug(guest)
                await until_cards(guest, {})


async def change_cards_while_the_guest_works(
    guest: Guest, hand: Hand, present: dict[int, bool]
) -> None:
    """Insert, remove and swap cards of the reader of 16 slots while the card in slot 0 works."""
    numbers: dict[int, int] = {}
    made = sum(present.values())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transmit, guest, 0, work(60))
        await hand.until_working(0)
        for slot in range(1, 15):
            if present[slot]:
                await hand.swap(slot)
            else:
                await hand.insert(slot)
            numbers[slot], made = made, made + 1
        await hand.remove(15)
        await until_cards(guest, {**present, **dict.fromkeys(numbers, True), 15: False})
        for slot in (1, 3, 14):
            assert (await transmit(guest, slot, WHO_ARE_YOU))[0] == atr_of_card(numbers[slot])
        for slot in range(1, 15):
            await hand.remove(slot)
        await hand.insert(15)
        await until_cards(guest, {slot: slot in {0, 15} for slot in present})
        assert (await transmit(guest, 15, WHO_ARE_YOU))[0] == atr_of_card(made)
        # It was at work all this time, and is when the reader goes.
        await hand.until_working(0)
        nursery.cancel_scope.cancel()


async def plug_in(guest: Guest, path: Path) -> None:
    backend = {"addr": {"type": "unix", "data": {"path": str(path)}}, "server": False}
    await guest.qmp.execute(
        "chardev-add", id="plugged", backend={"type": "socket", "data": backend}
    )
    await guest.qmp.execute("device_add", driver="usb-redir", id="plugged", chardev="plugged")


async def unplug(guest: Guest) -> None:
    # The character device goes with the USB device.
    deleted = guest.qmp.count_events("DEVICE_DELETED") + 1
    await guest.qmp.execute("device_del", id="plugged")
    await guest.qmp.wait_for_event("DEVICE_DELETED", count=deleted)


@pytest.mark.parametrize("usb", ["xhci", "uhci", "ehci"])
async def test_apdus_of_all_lengths_and_any_duration_come_through(
    usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "reader.socket"
    devices = redirected(f"path={path}")
    async with (
        scripted(path, "--slots=2", "--cards=0,1", workdir=tmp_path) as hand,
        boot_guest(image, qemu=qemu, workdir=tmp_path, devices=devices, usb=usb) as guest,
    ):
        await until_cards(guest, {0: True, 1: True})
        lengths = range(2, 301)
        commands = [answer_of_length(n) for n in lengths]
        atr, *responses = await transmit(guest, 0, *commands)
        assert atr == atr_of_card(0)
        assert responses == [response_of_length(n) for n in lengths]

        long = [bytes(i % 253 for i in range(n)) for n in (256, 4096, 65534, 65535)]
        commands = [backwards(data) for data in long]
        _atr, *responses = await transmit(guest, 1, *commands)
        for data, response in zip(long, responses, strict=True):
            assert response == data[::-1] + b"\x90\x00"

        seconds = await side_by_side(guest, hand)
        assert all(3 <= each < 5 for each in seconds), seconds
        assert (await transmit(guest, 0, work(5)))[1] == b"\x90\x00"


async def side_by_side(guest: Guest, hand: Hand) -> list[float]:
    """Have both cards work for 3 seconds; return how long the guest waited for each."""
    seconds = []

    async def wait_for(slot: int) -> None:
        _atr, answer = await run_script(guest, "apdus", str(slot), lines=[work(3).hex()])
        seconds.append(float(answer.split()[0]))

    async with trio.open_nursery() as nursery:
        for slot in (0, 1):
            nursery.start_soon(wait_for, slot)
        await hand.until_working(0, 1)
    return seconds


async def test_the_card_works_again_after_reset_pause_and_a_new_ccidd(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "reader.socket"
    devices = redirected(f"path={path},{qemu.reconnect(1)}")
    async with boot_guest(image, qemu=qemu, workdir=tmp_path, devices=devices) as guest:
        async with scripted(path, workdir=tmp_path) as hand:
            await until_cards(guest, {0: True})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(check_work, guest)
                await hand.until_working(0)
                await guest.qmp.execute("stop")
                # It ends while nobody can be told.
                await hand.until_working()
                await guest.qmp.execute("cont")
            await transmit(guest, 0, WHO_ARE_YOU)

            with trio.CancelScope() as interrupted:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(partial(transmit_for_nothing, guest))
                    await hand.until_working(0)
                    await guest.reset()
                    interrupted.cancel()
            await until_cards(guest, {0: True})
            await transmit(guest, 0, WHO_ARE_YOU)
        await until_cards(guest, {})
        async with running_scripted(path, tmp_path) as reader:
            await until_cards(guest, {0: True})
            await transmit(guest, 0, WHO_ARE_YOU)
            reader.kill()
            await reader.wait()
        async with scripted(path, workdir=tmp_path):
            await until_cards(guest, {0: True})
            assert (await transmit(guest, 0, WHO_ARE_YOU))[0] == atr_of_card(0)


def running_scripted(path: Path, workdir: Path) -> AbstractAsyncContextManager[Process]:
    return running_ccidd(f"--socket-path={path}", workdir=workdir, program=SCRIPTED_READER)


async def check_work(guest: Guest) -> None:
    assert (await transmit(guest, 0, work(3)))[1] == b"\x90\x00"


async def transmit_for_nothing(guest: Guest) -> None:
    """Begin a command whose guest will be gone."""
    with pytest.raises(HarnessError):
        await transmit(guest, 0, work(60))


async def test_a_qemu_that_was_killed_and_started_again_has_the_card_again(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "reader.socket"
    async with scripted(path, workdir=tmp_path) as hand:
        for _ in range(2):
            async with boot_guest(
                image, qemu=qemu, workdir=tmp_path, devices=redirected(f"path={path}")
            ) as guest:
                await until_cards(guest, {0: True})
                assert (await transmit(guest, 0, WHO_ARE_YOU))[0] == atr_of_card(0)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(transmit_for_nothing, guest)
                    await hand.until_working(0)
                    await guest.kill()


# What no driver of Linux sends. Each step has the answer that the guest must get.

ATR = atr_of_card(0)
STALL = "EPIPE"
Step = tuple[str, str]


def message(
    kind: int, seq: int, data: bytes = b"", *, slot: int = 0, specific: str = "000000"
) -> bytes:
    """Return a bulk message, of either direction."""
    header = bytes([kind, *len(data).to_bytes(4, "little"), slot, seq])
    return header + bytes.fromhex(specific) + data


def out(data: bytes, answer: str = "") -> Step:
    return f"out {data.hex()}", answer


def read(answer: bytes, size: int = 1024) -> Step:
    return f"in {size:x}", answer.hex()


def answered(command: bytes, answer: bytes) -> list[Step]:
    return [out(command), read(answer)]


def request(setup: str, answer: str) -> Step:
    """Return a request on endpoint zero: bmRequestType, bRequest, wValue, wIndex, wLength."""
    return f"control {setup}", answer


def abort(seq: int, slot: int = 0, answer: str = "") -> Step:
    return f"control 21 01 {seq << 8 | slot:04x} 0000 -", answer


def transfer(seq: int, apdu: bytes, slot: int = 0) -> bytes:
    return message(0x6F, seq, apdu, slot=slot)


def echo(seq: int, length: int) -> bytes:
    return transfer(seq, answer_of_length(length))


def block(seq: int, data: bytes) -> bytes:
    return message(0x80, seq, data)


def slot_status(seq: int, specific: str = "000000", slot: int = 0) -> bytes:
    return message(0x81, seq, slot=slot, specific=specific)


IS_WELL = answered(echo(0xEE, 20), block(0xEE, response_of_length(20)))

BEGINNING = [
    ("configure 1", ""),
    ("notify", "500f"),
    *answered(message(0x65, 1), slot_status(1, "010001")),
    *answered(message(0x62, 2), block(2, ATR)),
    *IS_WELL,
]

ABORTS = [
    # The control half first, with a command pending, and another between the halves.
    out(transfer(1, work(60))),
    abort(2),
    read(message(0x80, 1, specific="40ff00")),
    *answered(message(0x65, 3), slot_status(3, "40ff00")),
    *answered(message(0x65, 4, slot=1), slot_status(4, "010001", slot=1)),
    *answered(message(0x72, 2), slot_status(2)),
    *IS_WELL,
    # The bulk half first.
    out(transfer(5, work(60))),
    out(message(0x72, 6)),
    read(message(0x80, 5, specific="40ff00")),
    abort(6),
    read(slot_status(6)),
    *IS_WELL,
    # With nothing pending, in both orders.
    abort(7),
    *answered(message(0x72, 7), slot_status(7)),
    out(message(0x72, 8)),
    abort(8),
    read(slot_status(8)),
    # What a slot that works can and cannot take.
    out(transfer(20, work(60))),
    *answered(message(0x65, 21), slot_status(21)),
    *answered(transfer(22, work(1)), message(0x80, 22, specific="40e000")),
    out(message(0x72, 23)),
    read(message(0x80, 20, specific="40ff00")),
    abort(23),
    read(slot_status(23)),
    # Halves that do not match.
    abort(9),
    *answered(message(0x72, 10), slot_status(10, "40ff00")),
    *answered(message(0x72, 9), slot_status(9)),
    abort(11, slot=2, answer=STALL),
    *IS_WELL,
]

RATES = "002a000001540000" + "02a8000005500100" + "0ba0020016400500"
MESSAGES = [
    request("a1 02 0000 0000 0004", "a00f0000"),
    request("a1 03 0000 0000 0018", RATES),
    request("a1 03 0000 0000 0004", RATES[:8]),
    request("a1 04 0000 0000 0004", STALL),
    *answered(message(0x6E, 1, specific="010000"), slot_status(1, "000001")),
    *answered(message(0x6E, 2, specific="000000"), slot_status(2)),
    *answered(message(0x6E, 3, specific="020000"), slot_status(3, "400700")),
    *answered(message(0x6A, 4), slot_status(4)),
    *answered(message(0x6A, 5, specific="03c0c2"), slot_status(5)),
    *answered(message(0x6A, 6, specific="040000"), slot_status(6, "400700")),
    *answered(message(0x71, 7, specific="010000"), slot_status(7, "400000")),
    *answered(
        message(0x73, 8, bytes.fromhex("a00f0000002a0000")),
        message(0x84, 8, bytes.fromhex("a00f0000002a0000")),
    ),
    *answered(
        message(0x73, 9, bytes.fromhex("ffffffffffffffff")),
        message(0x84, 9, bytes.fromhex("a00f000016400500")),
    ),
    *answered(message(0x6B, 10, b"\xcc\x01"), message(0x83, 10, b"slot 0")),
    *answered(message(0x6B, 11, b"\x6a"), message(0x83, 11, specific="400000")),
    *answered(message(0x42, 12), slot_status(12, "400000")),
    # One that only a reader sends.
    *answered(message(0x80, 13), slot_status(13, "400000")),
    *answered(message(0x65, 14, slot=2), slot_status(14, "420500", slot=2)),
    *answered(message(0x65, 15, slot=255), slot_status(15, "420500", slot=255)),
    *answered(transfer(16, work(1), slot=2), message(0x80, 16, slot=2, specific="420500")),
    *IS_WELL,
]

LENGTHS = [
    # dwLength: longer than the transfer, shorter, longer than any, not that of the message.
    *answered(bytes.fromhex("6f05000000000100000000"), message(0x80, 1, specific="400100")),
    *answered(bytes.fromhex("6f01000000000200000000400000"), message(0x80, 2, specific="400100")),
    *answered(bytes.fromhex("6f00000200000300000000400000"), message(0x80, 3, specific="400100")),
    *answered(bytes.fromhex("6fffffffff000400000000400000"), message(0x80, 4, specific="400100")),
    *answered(message(0x65, 5, b"\0"), slot_status(5, "400100")),
    # dwLength of this answer is 8 whatever comes (6.2.5).
    *answered(message(0x73, 6, bytes(4)), message(0x84, 6, bytes(8), specific="400100")),
    # A header that is cut short can have no answer.
    out(bytes.fromhex("6500000000"), STALL),
    out(message(0x65, 7), STALL),
    request("82 00 0000 0001 0002", "0100"),
    ("clear 01", ""),
    request("82 00 0000 0001 0002", "0000"),
    *answered(message(0x65, 8), slot_status(8)),
    # Reads of one packet, of much more than there is, and of just what there is: each message ends
    # where it ends, and no empty packet is left for the next read.
    out(echo(9, 100)),
    read(block(9, response_of_length(100))[:64], 64),
    read(block(9, response_of_length(100))[64:], 64),
    *[
        step
        for length in (53, 54, 55, 117, 118, 119, 246)
        for size in (65536, 10 + length)
        for step in (out(echo(10, length)), read(block(10, response_of_length(length)), size))
    ],
    # Several messages before the first read.
    *[out(message(0x65, seq)) for seq in (11, 12, 13)],
    *[read(slot_status(seq)) for seq in (11, 12, 13)],
    *IS_WELL,
]

DEVICE = [
    request("80 06 0600 0000 000a", STALL),
    request("80 06 0300 0000 00ff", "04030904"),
    request("80 06 0301 0409 00ff", "0c03" + "ccidd".encode("utf-16-le").hex()),
    request("80 06 0309 0409 00ff", STALL),
    request("80 06 0200 0000 0009", "09025d000101008032"),
    request("80 00 0000 0000 0002", "0000"),
    request("81 00 0000 0000 0002", "0000"),
    request("82 00 0000 0082 0002", "0000"),
    request("80 08 0000 0000 0001", "01"),
    request("81 0a 0000 0000 0001", "00"),
    request("80 0c 0000 0000 0002", STALL),
    request("c0 01 0000 0000 0004", STALL),
    # Halted by the host itself.
    request("02 03 0000 0082 -", ""),
    request("82 00 0000 0082 0002", "0100"),
    ("in 40", STALL),
    ("clear 82", ""),
    *IS_WELL,
    # Without a configuration, and with one again: all cards are off, and are announced.
    ("configure 0", ""),
    request("80 08 0000 0000 0001", "00"),
    request("80 00 0000 0000 0002", "0000"),
    *BEGINNING,
]


@pytest.mark.parametrize("usb", ["xhci", "uhci"])
async def test_the_reader_answers_what_no_driver_sends(
    usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "reader.socket"
    devices = redirected(f"path={path}")
    async with (
        scripted(path, "--slots=2", "--cards=0,1", workdir=tmp_path),
        boot_guest(image, qemu=qemu, workdir=tmp_path, devices=devices, usb=usb) as guest,
    ):
        await guest.run("pcscd-control", "stop")
        steps = [*BEGINNING, *ABORTS, *MESSAGES, *LENGTHS, *DEVICE]
        answers = await run_script(guest, "usb_requests", lines=[step for step, _ in steps])
        wrong = [
            f"{step}: {answer}, not {right}"
            for (step, right), answer in zip(steps, answers, strict=True)
            if answer != right
        ]
        assert not wrong
