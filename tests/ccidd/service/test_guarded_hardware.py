# SPDX-License-Identifier: Apache-2.0
"""Guests that share a card of the host's, in a real pcscd, and are guarded from harming it."""

from pathlib import Path

import trio
from structlog.testing import capture_logs

from ccid_protocol.apdu import ResponseAPDU
from ccidd.card.card import Card, CardGoneError
from ccidd.card.guard.consent import Consent, ConsentRequest
from ccidd.card.guard.guard import Guard, Rules
from ccidd.card.guard.guest import Guest
from ccidd.card.guard.operations import CONFIRMABLE, USE
from ccidd.card.passthrough.card import Sharing
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import KeyReference
from ccidd.keys.key import KeyAlgorithm
from ccidd.reader.slot import Slot
from ccidd.service.guards import protector
from ccidd.service.options import parse_card
from ccidd.service.readers import Pinentries
from ccidd.service.supply import Protect
from credentials import credential
from host_program import connected
from memory import VolatileMemory
from passthrough import READER, bench, following, inserted, powered
from piv import SELECT, new_memory, selected, verify

PIN, WRONG = "123456", "999999"
SIGN = bytes.fromhex("0087119A267C2482008120" + "11" * 32 + "00")


def a_card(memory: VolatileMemory) -> Card:
    return piv_card({KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256)}, memory)


def guarded_as_configured() -> Protect:
    return protector(parse_card("pcsc,reader=x"), Guest("guest vm"), Pinentries()).protect


async def sw(card: Card, command: bytes) -> int:
    return ResponseAPDU.decode(await card.transmit(command)).sw


async def test_a_card_of_the_host_is_guarded_by_default(tmp_path: Path) -> None:
    memory = new_memory()
    async with (
        bench(tmp_path, a_card(memory)),
        following(protect=guarded_as_configured()) as slot,
    ):
        guest = await selected(await powered(slot))
        assert await verify(guest, PIN) == 0x9000
        assert await sw(guest, SIGN) == 0x9000
        assert await sw(guest, bytes.fromhex("00240080") + b"\x10" + b"1" * 16) == 0x6985
        assert await sw(guest, bytes.fromhex("0047009A05AC03800111")) == 0x6985
        answers = [await verify(guest, WRONG) for _ in range(3)]
        assert answers == [0x63C1, 0x63C0, 0x6983]
    assert await memory.pin(0x80).tries_left() == 1


async def try_wrong_pins(slot: Slot, times: int) -> None:
    """What a guest does that wants to block the PIN, each time with the card as it finds it."""
    for _ in range(times):
        try:
            insertion = await inserted(slot)
            guest = await selected(insertion)
            for _again in range(4):
                await verify(guest, WRONG)
            await guest.power_off()
        except CardGoneError:
            await trio.sleep(0.05)


async def test_two_guests_that_want_to_block_a_pin_leave_the_host_its_try(tmp_path: Path) -> None:
    memory = new_memory()
    async with (
        bench(tmp_path, a_card(memory)),
        following(protect=guarded_as_configured()) as first,
        following(protect=guarded_as_configured()) as second,
    ):
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(try_wrong_pins, first, 3)
                nursery.start_soon(try_wrong_pins, second, 3)
        assert await memory.pin(0x80).tries_left() == 1
        # The host's user still has the card, and with it the guests.
        async with connected(READER) as program:
            await program.transmit(bytes.fromhex(SELECT))
            right = bytes.fromhex("0020008008") + PIN.encode() + b"\xff\xff"
            assert await program.transmit(right) == b"\x90\x00"
        guest = await selected(await powered(first))
        assert await verify(guest, PIN) == 0x9000


class SlowPerson(Consent):
    """Agrees after a while."""

    async def ask(self, request: ConsentRequest) -> bool:
        assert request.key == "PIV authentication"
        await trio.sleep(1.5)
        return True


async def test_a_guest_keeps_the_card_while_a_person_is_asked(tmp_path: Path) -> None:
    def protect(card: Card) -> Card:
        return Guard(card, Rules(USE, 1, CONFIRMABLE), consent=SlowPerson())

    sharing = Sharing(idle_release=0.5)
    async with (
        bench(tmp_path, a_card(new_memory())),
        following(sharing=sharing, protect=protect) as slot,
    ):
        insertion = await inserted(slot)
        guest = await selected(insertion)
        assert await verify(guest, PIN) == 0x9000
        assert await sw(guest, SIGN) == 0x9000
        assert slot.insertion is insertion


async def test_the_question_ends_when_the_card_goes(tmp_path: Path) -> None:
    asked = trio.Event()
    ended = trio.Event()

    class Nobody(Consent):
        async def ask(self, request: ConsentRequest) -> bool:
            asked.set()
            try:
                await trio.sleep_forever()
            finally:
                ended.set()

    def protect(card: Card) -> Card:
        return Guard(card, Rules(USE, 1, CONFIRMABLE), consent=Nobody())

    async with bench(tmp_path, a_card(new_memory())) as host, following(protect=protect) as slot:
        insertion = await inserted(slot)
        guest = await selected(insertion)
        assert await verify(guest, PIN) == 0x9000
        with capture_logs() as logs, trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guest.transmit, SIGN)
                await asked.wait()
                host.reader.remove()
                # As the reader does when its slot tells.
                await slot.wait_until_not(insertion)
                nursery.cancel_scope.cancel()
            await ended.wait()
        assert not [event for event in logs if "fault" in event["event"]]
