# SPDX-License-Identifier: Apache-2.0
"""ccidd with the card of a host's reader, as emulated QEMUs see it over both front doors."""

import itertools
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from cards import response_of_length
from ccid_protocol import ccid
from ccid_protocol.atr import ATR
from ccid_protocol.ccid import (
    IccPowerOff,
    IccPowerOn,
    IccStatus,
    PinFormat,
    PinTemplate,
    PinVerification,
    Secure,
    SlotError,
    XfrBlock,
)
from host_program import HostProgram, connected
from passthrough import PATIENCE, READER, Bench, bench, new_piv_card, scripted_card
from pcscd import pcscd_with, use_from_here
from piv import SELECT
from programs import CCIDD, started
from qemu_peer import QemuPeer
from usbredir_peer import UsbredirPeer

VERIFY = bytes.fromhex("0020008008313233343536ffff")
PIN_STATUS = bytes.fromhex("00200080")


@dataclass
class Served:
    """A ccidd, and a connection to it."""

    process: subprocess.Popen[bytes]
    stream: trio.abc.Stream


@asynccontextmanager
async def serving_card(
    bench: Bench, transport: str, *options: str, card: str = ""
) -> AsyncIterator[Served]:
    """A ccidd with the card in the bench's reader."""
    number = len(list(bench.directory.glob("ccidd-*.log")))
    path = bench.directory / f"socket-{number}"
    arguments = (
        *CCIDD,
        f"--transport={transport}",
        f"--card=pcsc,reader=Virtual*,policy=manage{card}",
        f"--socket-path={path}",
        f"--state-dir={bench.directory / 'state'}",
        *options,
    )
    with started(arguments, log=bench.directory / f"ccidd-{number}.log") as process:
        with trio.fail_after(PATIENCE):
            while not path.exists():  # noqa: ASYNC110 (a file tells nobody)
                await trio.sleep(0.05)
        async with await trio.open_unix_socket(path) as stream:
            yield Served(process, stream)


# vscard.


@asynccontextmanager
async def qemu_with_card(bench: Bench, card: str = "") -> AsyncIterator[QemuPeer]:
    async with serving_card(bench, "vscard", card=card) as served, trio.open_nursery() as nursery:
        peer = QemuPeer(served.stream)
        nursery.start_soon(peer.run)
        with trio.fail_after(PATIENCE):
            yield peer
        nursery.cancel_scope.cancel()


async def test_vscard_carries_a_t1_card_as_one_of_t0(tmp_path: Path) -> None:
    card = scripted_card(response_of_length)
    async with bench(tmp_path, card) as host, qemu_with_card(host) as qemu:
        await qemu.until(lambda: qemu.atr)
        assert qemu.atr == ATR(b"test").encode()
        assert await qemu.transmit(bytes.fromhex("0010000a08")) == await response_of_length(
            bytes.fromhex("0010000a")
        )
        # More than QEMU's reader carries at a time.
        response = await qemu.transmit(bytes.fromhex("00100400000000"))
        assert len(response) == 374
        assert response[-2:-1] == b"\x61"
        host.reader.remove()
        await qemu.until(lambda: qemu.atr is None)
        host.reader.insert(new_piv_card())
        await qemu.until(lambda: qemu.atr)
        assert (await qemu.transmit(bytes.fromhex(SELECT)))[-2:] == b"\x90\0"


async def test_vscard_shows_a_turn_that_has_ended_as_a_new_card(tmp_path: Path) -> None:
    async with (
        bench(tmp_path, new_piv_card()) as host,
        qemu_with_card(host, card=",idle-release=1") as qemu,
    ):
        await qemu.until(lambda: qemu.atr)
        await qemu.transmit(bytes.fromhex(SELECT))
        assert await qemu.transmit(VERIFY) == b"\x90\0"
        async with connected(READER) as program:
            assert await program.transmit(bytes.fromhex("00CA000000")) == b"\x6a\x82"
        assert await qemu.transmit(PIN_STATUS) == b"\x6f\0"
        await qemu.until(lambda: qemu.atr is None)
        await qemu.until(lambda: qemu.atr)
        await qemu.transmit(bytes.fromhex(SELECT))
        assert (await qemu.transmit(PIN_STATUS))[:1] == b"\x63"


# usbredir.


@dataclass
class Driver:
    """A guest's driver of the reader, and its slot."""

    peer: UsbredirPeer
    ccidd: subprocess.Popen[bytes]
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    extensions: int = 0

    @property
    def _number(self) -> int:
        return next(self._numbers) % 256

    async def _ask(self, command: ccid.Command) -> ccid.Response:
        assert await self.peer.bulk_out(ccid.encode(command)) == 0
        while True:
            response = ccid.decode_response(await self.peer.bulk_in())
            if response.command_status is not ccid.CommandStatus.TIME_EXTENSION:
                return response
            self.extensions += 1

    async def power_on(self) -> ccid.DataBlock:
        response = await self._ask(IccPowerOn(0, self._number))
        assert isinstance(response, ccid.DataBlock)
        return response

    async def power_off(self) -> None:
        await self._ask(IccPowerOff(0, self._number))

    async def transmit(self, command: bytes) -> ccid.DataBlock:
        response = await self._ask(XfrBlock(0, self._number, command))
        assert isinstance(response, ccid.DataBlock)
        return response

    async def enter_pin(self, request: PinVerification) -> ccid.DataBlock:
        response = await self._ask(Secure(0, self._number, request.encode()))
        assert isinstance(response, ccid.DataBlock)
        return response

    async def until_powered(self) -> ccid.DataBlock:
        """Waits for a card, and powers it on."""
        while True:
            response = await self.power_on()
            if response.icc_status is IccStatus.ACTIVE:
                return response
            await trio.sleep(0.05)

    async def until_removed(self) -> ccid.DataBlock:
        """Sends commands until the card is gone."""
        while True:
            response = await self.transmit(PIN_STATUS)
            if response.icc_status is IccStatus.ABSENT:
                return response
            await trio.sleep(0.05)


@asynccontextmanager
async def guest_driver(bench: Bench, *options: str, card: str = "") -> AsyncIterator[Driver]:
    async with (
        serving_card(bench, "usbredir", *options, card=card) as served,
        trio.open_nursery() as nursery,
    ):
        peer = UsbredirPeer(served.stream)
        nursery.start_soon(peer.run)
        with trio.fail_after(PATIENCE):
            yield Driver(await peer.configure(), served.process)
        nursery.cancel_scope.cancel()


async def test_usbredir_carries_the_atr_and_apdus_as_they_are(tmp_path: Path) -> None:
    card = scripted_card(response_of_length)
    atr = (await card.power_on()).encode()
    async with bench(tmp_path, card) as host, guest_driver(host) as driver:
        assert (await driver.until_powered()).data == atr
        command = bytes.fromhex("0010fde8000005") + b"hello" + bytes(2)
        assert (await driver.transmit(command)).data == await response_of_length(command)
        host.reader.remove()
        assert (await driver.until_removed()).error == SlotError.ICC_MUTE


async def test_usbredir_shows_a_turn_that_has_ended_as_a_new_card(tmp_path: Path) -> None:
    async with (
        bench(tmp_path, new_piv_card()) as host,
        guest_driver(host, card=",idle-release=1") as driver,
    ):
        await driver.until_powered()
        await driver.transmit(bytes.fromhex(SELECT))
        assert (await driver.transmit(VERIFY)).data == b"\x90\0"
        async with connected(READER) as program:
            assert await program.transmit(bytes.fromhex("00CA000000")) == b"\x6a\x82"
        assert (await driver.transmit(PIN_STATUS)).error == SlotError.ICC_MUTE
        await driver.until_powered()
        await driver.transmit(bytes.fromhex(SELECT))
        assert (await driver.transmit(PIN_STATUS)).data[:1] == b"\x63"


async def test_usbredir_tells_a_guest_to_wait_while_others_have_the_card(tmp_path: Path) -> None:
    async with bench(tmp_path, new_piv_card()) as host, guest_driver(host) as driver:
        await driver.until_powered()
        async with connected(READER) as program, trio.open_nursery() as nursery:
            await program.begin()
            nursery.start_soon(end_later, program)
            assert (await driver.transmit(bytes.fromhex(SELECT))).data[-2:] == b"\x90\0"
        assert driver.extensions >= 2


async def end_later(program: HostProgram) -> None:
    await trio.sleep(2.5)
    await program.end()


async def test_a_pin_that_is_entered_at_the_reader_gets_to_the_card(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("123456\n")
    reader = f"--reader=pin-file={tmp_path / 'pin'}"
    template = PinTemplate.decode(VERIFY[:5] + b"\xff" * 8, 0)
    request = PinVerification(template, PinFormat.decode(0x82, 0x08, 0x00), 6, 8)
    async with bench(tmp_path, new_piv_card()) as host, guest_driver(host, reader) as driver:
        await driver.until_powered()
        await driver.transmit(bytes.fromhex(SELECT))
        assert (await driver.transmit(PIN_STATUS)).data[:1] == b"\x63"
        assert (await driver.enter_pin(request)).data == b"\x90\0"
        assert (await driver.transmit(PIN_STATUS)).data == b"\x90\0"


async def test_usbredir_outlives_a_service_that_is_killed_and_started_again(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path, new_piv_card()) as host, guest_driver(host) as driver:
        await driver.until_powered()
        await driver.transmit(bytes.fromhex(SELECT))
        host.host.kill()
        await driver.until_removed()
        async with pcscd_with(tmp_path, host.reader.configuration) as again:
            use_from_here(again)
            await driver.until_powered()
            assert (await driver.transmit(bytes.fromhex(SELECT))).data[-2:] == b"\x90\0"


async def test_two_processes_and_a_host_program_take_turns(tmp_path: Path) -> None:
    async with (
        bench(tmp_path, new_piv_card()) as host,
        guest_driver(host) as first,
        guest_driver(host) as second,
        trio.open_nursery() as nursery,
    ):
        for driver in (first, second):
            nursery.start_soon(use_three_times, driver)
        for _ in range(3):
            name = await host.host.run("opensc-tool", "--name")
            assert "Personal Identity Verification Card" in name


async def use_three_times(driver: Driver) -> None:
    for _ in range(3):
        await driver.until_powered()
        assert (await driver.transmit(bytes.fromhex(SELECT))).data[-2:] == b"\x90\0"
        assert (await driver.transmit(PIN_STATUS)).data[:1] == b"\x63"
        assert (await driver.transmit(VERIFY)).data == b"\x90\0"
        assert (await driver.transmit(PIN_STATUS)).data == b"\x90\0"
        await driver.power_off()


async def test_a_ccidd_that_ends_gives_the_card_back_at_rest(tmp_path: Path) -> None:
    async with bench(tmp_path, new_piv_card()) as host, guest_driver(host) as driver:
        await driver.until_powered()
        await driver.transmit(bytes.fromhex(SELECT))
        assert (await driver.transmit(VERIFY)).data == b"\x90\0"
        driver.ccidd.terminate()
        async with connected(READER) as program:
            await program.transmit(bytes.fromhex(SELECT))
            assert (await program.transmit(PIN_STATUS))[:1] == b"\x63"
        with trio.fail_after(PATIENCE):
            assert await trio.to_thread.run_sync(driver.ccidd.wait) == 0
