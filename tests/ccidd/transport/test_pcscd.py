# SPDX-License-Identifier: Apache-2.0
"""The serial front door, with pcscd and libccid of this machine as its host."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import pin_pad
from cards import ScriptedCard
from ccid_protocol.atr import ATR, InterfaceBytes
from ccidd.card.card import Card
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import KeyReference
from ccidd.keys.key import KeyAlgorithm
from ccidd.reader.pinentry.source import EntryRequest, PinEntry, Pins, PinSource
from ccidd.reader.slot import Slot
from ccidd.transport.serial import serial_model
from credentials import credential
from pcscd import Pcscd, pcscd, serving
from piv import new_memory

PIN = "123456"
BOTH = (
    InterfaceBytes(ta=0x11, protocol=0),
    InterfaceBytes(protocol=1),
    InterfaceBytes(ta=0xFE, tb=0x45),
)
T0 = (InterfaceBytes(ta=0x11, protocol=0),)
T1 = (
    InterfaceBytes(ta=0x11, protocol=1),
    InterfaceBytes(protocol=1),
    InterfaceBytes(ta=0xFE, tb=0x45),
)


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "reader"


class WithProtocols(Card):
    """A PIV card that offers the protocols that are given, and needs time to sign."""

    def __init__(self, interface: tuple[InterfaceBytes, ...], seconds: float = 0) -> None:
        keys = {KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256)}
        self._card = piv_card(keys, new_memory())
        self._interface = interface
        self._seconds = seconds

    async def power_on(self) -> ATR:
        return ATR((await self._card.power_on()).historical, self._interface)

    async def power_off(self) -> None:
        await self._card.power_off()

    async def transmit(self, command: bytes) -> bytes:
        if command[1] == 0x87:  # GENERAL AUTHENTICATE
            await trio.sleep(self._seconds)
        return await self._card.transmit(command)


async def sign_and_verify(host: Pcscd, directory: Path, pin: str | None = PIN) -> None:
    """Signs; without a PIN, the reader has to ask for it."""
    data, signature = directory / "data", directory / "signature"
    data.write_bytes(b"to be signed")
    await host.run(
        *("pkcs11-tool", "--login", *([f"--pin={pin}"] if pin else []), "--sign", "--id=01"),
        *("--mechanism=ECDSA-SHA256", "--signature-format=openssl"),
        *(f"--input-file={data}", f"--output-file={signature}"),
    )
    key = credential(KeyAlgorithm.P_256).certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(signature.read_bytes(), data.read_bytes(), ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("interface", [BOTH, T0, T1], ids=["both", "T=0", "T=1"])
async def test_pcscd_signs_with_a_card(
    link: Path, tmp_path: Path, interface: tuple[InterfaceBytes, ...]
) -> None:
    async with serving(link, [Slot(WithProtocols(interface))]), pcscd(link, "GemPCTwin") as host:
        assert "Yes             ccidd 00 00" in await host.run("opensc-tool", "--list-readers")
        await sign_and_verify(host, tmp_path)


async def test_pcscd_sees_every_slot(link: Path, tmp_path: Path) -> None:
    model = serial_model(2)
    slots = model.slots
    cards = [Slot() for _ in range(slots)]
    # OpenSC's PKCS#11 module has room for four readers, so it is not asked for the fifth.
    cards[1].insert(WithProtocols(BOTH))
    cards[-1].insert(WithProtocols(BOTH))
    async with serving(link, cards), pcscd(link, model.name) as host:
        listed = await host.run("opensc-tool", "--list-readers")
        expected = ["No" if slot.insertion is None else "Yes" for slot in cards]
        assert [line.split()[1] for line in listed.splitlines()[2:]] == expected
        name = await host.run("opensc-tool", f"--reader={slots - 1}", "--name")
        assert "Personal Identity Verification Card" in name
        await sign_and_verify(host, tmp_path)


async def test_pcscd_follows_a_card_that_goes_and_comes(link: Path, tmp_path: Path) -> None:
    slot = Slot()
    async with serving(link, [slot]), pcscd(link, "GemPCTwin") as host:
        assert " No " in await host.run("opensc-tool", "--list-readers")
        for _ in range(2):
            slot.insert(WithProtocols(T1))
            await until_listed(host, " Yes ")
            await sign_and_verify(host, tmp_path)
            slot.remove()
            await until_listed(host, " No ")


async def until_listed(host: Pcscd, text: str) -> None:
    with trio.fail_after(60):
        while text not in await host.run("opensc-tool", "--list-readers"):
            pass


async def test_pcscd_may_be_killed_and_started_again(link: Path, tmp_path: Path) -> None:
    async def answer(command: bytes) -> bytes:
        await trio.sleep(1)
        return b"\x6a\x82"

    slot = Slot(ScriptedCard(answer))
    async with serving(link, [slot]):
        async with pcscd(link, "GemPCTwin") as host, trio.open_nursery() as nursery:
            # It dies while the card works.
            nursery.start_soon(partial(ignoring_failure, host.run, "opensc-tool", "--name"))
            await until_listed(host, " Yes ")
            nursery.cancel_scope.cancel()
        slot.insert(WithProtocols(BOTH))
        for _ in range(2):
            async with pcscd(link, "GemPCTwin") as host:
                await sign_and_verify(host, tmp_path)


async def ignoring_failure(run: Callable[..., Awaitable[str]], *command: str) -> None:
    try:
        await run(*command)
    except (AssertionError, trio.TooSlowError):
        return


@pytest.mark.parametrize("interface", [T0, T1], ids=["T=0", "T=1"])
async def test_libccid_waits_for_a_card_that_works_for_long(
    link: Path, tmp_path: Path, interface: tuple[InterfaceBytes, ...]
) -> None:
    # libccid's own time-out is 3 seconds; it hears 5 time requests, an odd number.
    card = WithProtocols(interface, seconds=5)
    async with serving(link, [Slot(card)]), pcscd(link, "GemPCTwin") as host:
        await sign_and_verify(host, tmp_path)


# PIN entry at the reader.

CHANGE = bytes.fromhex("0024008010") + bytes(16)


class Person(PinSource):
    """Enters the PINs at once."""

    @property
    def can_modify(self) -> bool:
        return True

    async def ask(self, request: EntryRequest) -> PinEntry:
        await trio.lowlevel.checkpoint()
        return Pins(current=PIN.encode(), new=b"654321")


async def test_pcscd_has_a_pin_entered_at_the_reader(link: Path, tmp_path: Path) -> None:
    model = serial_model(1, has_pin_entry=True)
    slots = [Slot(WithProtocols(BOTH))]
    async with serving(link, slots, Person()), pcscd(link, model.name) as host:
        await sign_and_verify(host, tmp_path, pin=None)


@pytest.mark.parametrize("interface", [T0, T1], ids=["T=0", "T=1"])
async def test_pcscd_has_a_pin_changed_at_the_reader_however_many_messages_it_wants(
    link: Path, interface: tuple[InterfaceBytes, ...]
) -> None:
    commands: list[bytes] = []

    async def answer(command: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        commands.append(command)
        return b"\x90\x00"

    card = ScriptedCard(answer, interface=interface)
    model = serial_model(1, has_pin_entry=True)
    async with serving(link, [Slot(card)], Person()), pcscd(link, model.name) as host:
        shown = await host.run("/usr/bin/python3", pin_pad.__file__, CHANGE.hex())
    assert shown.splitlines() == ["9000"] * len(pin_pad.NUMBERS_OF_MESSAGES)
    padded = PIN.encode() + bytes(2) + b"654321" + bytes(2)
    assert commands == [CHANGE[:5] + padded] * len(pin_pad.NUMBERS_OF_MESSAGES)
