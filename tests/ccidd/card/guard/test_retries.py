# SPDX-License-Identifier: Apache-2.0
"""Guests that try to block PINs, and cards that behave as real ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

import cac
import piv
from ccid_protocol.apdu import CommandAPDU, ResponseAPDU
from ccid_protocol.atr import ATR
from ccidd.card.card import Card
from ccidd.card.guard.guard import Guard, Rules
from ccidd.card.guard.operations import MANAGE, NOTHING
from ccidd.card.guard.retries import Counts
from ccidd.card.piv.card import piv_card
from recording_card import OPENPGP, PIV, select

WRONG = "0020008008303030303030FFFF"
RIGHT = "0020008008313233343536FFFF"
STATUS = "00200080"
PUK_WRONG = "002C008010" + "39" * 8 + "313233343536FFFF"
PUK_RIGHT = "002C008010" + "3132333435363738" + "313233343536FFFF"


async def send(card: Card, command: str) -> int:
    return ResponseAPDU.decode(await card.transmit(bytes.fromhex(command))).sw


async def guarded_by(
    card: Card, aid: str, floor: int = 1, ledger: dict[bytes, Counts] | None = None
) -> Guard:
    guarded = Guard(card, Rules(MANAGE, floor, NOTHING), ledger=ledger)
    await guarded.power_on()
    assert await send(guarded, select(aid)) >> 8 in {0x90, 0x61}
    return guarded


@pytest.fixture(params=[False, True], ids=["standard", "extensions"])
async def host(request: pytest.FixtureRequest) -> piv.PivHost:
    """A PIV card as its holder sees it, and its memory."""
    memory = piv.new_memory(attestation=True)
    return piv.PivHost(piv_card({}, memory, vendor_extensions=request.param), memory)


async def tries(host: piv.PivHost, reference: int = 0x80) -> int:
    return await host.memory.pin(reference).tries_left()


async def test_a_guest_cannot_block_the_pin(host: piv.PivHost) -> None:
    guest = await guarded_by(host.card, PIV)
    # It looks like a card with two tries.
    assert await send(guest, STATUS) == 0x63C2
    with capture_logs() as logs:
        answers = [await send(guest, WRONG) for _ in range(4)]
        assert answers == [0x63C1, 0x63C0, 0x6983, 0x6983]
        assert await send(guest, STATUS) == 0x6983
        # Not even the right one passes any more, nor does a way round.
        assert await send(guest, RIGHT) == 0x6983
        assert await send(guest, "002400801030303030303030303132333435363738") == 0x6983
    assert await tries(host) == 1
    refused = [event for event in logs if event["event"] == "guard_refused"]
    assert [event["instruction"] for event in refused] == [*["VERIFY"] * 3, "CHANGE REFERENCE DATA"]
    assert {(event["reason"], event["key"]) for event in refused} == {("retry-floor", "80")}
    assert "30303030" not in str(logs)


async def test_the_right_pin_passes_and_gives_all_tries_back(host: piv.PivHost) -> None:
    guest = await guarded_by(host.card, PIV)
    for _ in range(5):
        assert await send(guest, WRONG) == 0x63C1
        assert await send(guest, RIGHT) == 0x9000
        assert await send(guest, STATUS) == 0x9000
    # Verified, the card does not tell how many are left, and a wrong one is still no danger.
    assert await send(guest, WRONG) == 0x63C1
    assert await send(guest, WRONG) == 0x63C0
    assert await send(guest, WRONG) == 0x6983
    assert await tries(host) == 1


async def test_tries_of_others_count(host: piv.PivHost) -> None:
    guest = await guarded_by(host.card, PIV)
    await host.verify(piv.WRONG)
    assert await send(guest, STATUS) == 0x63C1
    assert await send(guest, WRONG) == 0x63C0
    assert await send(guest, WRONG) == 0x6983
    # The holder enters it right, and the guest can go on.
    assert await host.verify() == 0x9000
    await guest.power_on()
    await send(guest, select(PIV))
    assert await send(guest, STATUS) == 0x63C2
    assert await send(guest, RIGHT) == 0x9000


async def test_a_guest_cannot_block_the_puk(host: piv.PivHost) -> None:
    guest = await guarded_by(host.card, PIV)
    assert await send(guest, PUK_WRONG) == 0x63C1
    assert await send(guest, PUK_RIGHT) == 0x9000
    assert await send(guest, PUK_WRONG) == 0x63C1
    assert await send(guest, "0024008110" + "39" * 16) == 0x63C0
    assert await send(guest, PUK_WRONG) == 0x6983
    assert await send(guest, "0024008110" + "39" * 16) == 0x6983
    assert await tries(host, 0x81) == 1


async def test_a_puk_whose_tries_cannot_be_read_is_counted_over_power_cycles() -> None:
    memory = piv.new_memory()
    ledger: dict[bytes, Counts] = {}
    for expected in (0x63C1, 0x63C0, 0x6983, 0x6983):
        # As if the card were taken out and put in again each time.
        guest = await guarded_by(piv_card({}, memory), PIV, ledger=ledger)
        assert await send(guest, PUK_WRONG) == expected
    assert await memory.pin(0x81).tries_left() == 1


async def test_a_higher_floor_leaves_more() -> None:
    memory = piv.new_memory(tries=5)
    guest = await guarded_by(piv_card({}, memory), PIV, floor=3)
    assert [await send(guest, WRONG) for _ in range(3)] == [0x63C1, 0x63C0, 0x6983]
    assert await memory.pin(0x80).tries_left() == 3


async def test_without_a_floor_the_card_is_as_it_is(host: piv.PivHost) -> None:
    guest = await guarded_by(host.card, PIV, floor=0)
    answers = [await send(guest, WRONG) for _ in range(4)]
    assert answers == [0x63C2, 0x63C1, 0x63C0, 0x6983]


async def test_what_is_not_compared_costs_no_try() -> None:
    memory = piv.new_memory()
    guest = await guarded_by(piv_card({}, memory), PIV)
    for _ in range(5):
        # The new PIN is none; the PIN has letters; there is no such PIN.
        assert await send(guest, "002C008010" + "39" * 8 + "41" * 8) == 0x6A80
        assert await send(guest, "0020008008" + "41" * 8) == 0x6A80
        assert await send(guest, "0020009908" + "41" * 8) == 0x6A88
    assert await memory.pin(0x81).tries_left() == 3
    assert await send(guest, PUK_WRONG) == 0x63C1


async def test_a_guest_cannot_block_the_pin_of_a_cac() -> None:
    memory = cac.card_memory()
    card = await cac.powered(memory=memory)
    guest = await guarded_by(card, cac.PKI + "00")
    assert await send(guest, "00200000") == 0x63C2
    wrong = "0020000008" + cac.WRONG_PIN.hex()
    for command in (wrong, "80" + wrong[2:], wrong, "A0" + wrong[2:], "01" + wrong[2:]):
        await send(guest, command)
    assert await send(guest, wrong) == 0x6983
    assert await memory.pin(0).tries_left() >= 1
    assert await send(guest, "0020000008" + cac.PIN.hex()) == 0x6983


async def test_a_question_keeps_a_key_ready_that_wants_its_pin_just_before() -> None:
    # The guard's question comes before the PIN, and never between it and the signature.
    received: list[int] = []

    class Watched(Card):
        def __init__(self, card: Card) -> None:
            self._card = card

        async def power_on(self) -> ATR:
            return await self._card.power_on()

        async def power_off(self) -> None:
            await self._card.power_off()

        async def transmit(self, command: bytes) -> bytes:
            received.append(command[1])
            return await self._card.transmit(command)

    guest = await guarded_by(Watched(piv_card({}, piv.new_memory())), PIV)
    received.clear()
    await send(guest, RIGHT)
    await send(guest, "0087119C087C06820081020102")
    assert received == [0x20, 0x20, 0x87]


@dataclass
class OpenPgpCard(Card):
    """The PINs of an OpenPGP card (version 3.4, 7.2.2 to 7.2.4): 6982 is a wrong one."""

    tells: bool = True
    left: dict[int, int] = field(default_factory=lambda: {0x81: 3, 0x82: 3, 0x83: 3})

    async def power_on(self) -> ATR:
        return ATR(b"OpenPGP")

    async def power_off(self) -> None:
        pass

    async def transmit(self, command: bytes) -> bytes:
        apdu = CommandAPDU.decode(command)
        sw, data = 0x9000, b""
        if apdu.ins == 0xCA and self.tells:
            data = bytes([0, 32, 32, 32, self.left[0x81], self.left[0x82], self.left[0x83]])
        elif apdu.ins == 0xCA:
            sw = 0x6A88
        elif apdu.ins in {0x20, 0x24, 0x2C}:
            counter = 0x82 if apdu.ins == 0x2C else {0x82: 0x81}.get(apdu.p2, apdu.p2)
            sw = self._compare(counter, apdu.data)
        return ResponseAPDU(data, sw).encode()

    def _compare(self, counter: int, data: bytes) -> int:
        if not data:
            return 0x6982 if not self.tells else 0x63C0 | self.left[counter]
        if not self.left[counter]:
            return 0x6983
        if data.startswith(b"right"):
            self.left[counter] = 3
            return 0x9000
        self.left[counter] -= 1
        return 0x6982


OPENPGP_TRIES = [
    ("0020008106" + b"wrong!".hex(), 0x81),
    ("0020008206" + b"wrong!".hex(), 0x81),
    ("0024008106" + b"wrong!".hex(), 0x81),
    ("0020008306" + b"wrong!".hex(), 0x83),
    ("0024008306" + b"wrong!".hex(), 0x83),
    ("002C008106" + b"wrong!".hex(), 0x82),
]


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize(("command", "counter"), OPENPGP_TRIES)
async def test_a_guest_cannot_block_the_pins_of_an_openpgp_card(
    command: str, counter: int, *, tells: bool
) -> None:
    card = OpenPgpCard(tells)
    guest = await guarded_by(card, OPENPGP)
    answers = [await send(guest, command) for _ in range(4)]
    assert answers == [0x6982, 0x6982, 0x6983, 0x6983]
    assert card.left[counter] == 1


async def test_the_two_names_of_an_openpgp_pin_have_one_counter() -> None:
    card = OpenPgpCard(tells=False)
    guest = await guarded_by(card, OPENPGP)
    wrong = [f"002000{name}06" + b"wrong!".hex() for name in ("81", "82", "81", "82")]
    assert [await send(guest, command) for command in wrong] == [0x6982, 0x6982, 0x6983, 0x6983]


async def test_an_openpgp_administrator_needs_no_resetting_code() -> None:
    card = OpenPgpCard()
    card.left[0x82] = 0
    guest = await guarded_by(card, OPENPGP)
    assert await send(guest, "002C028106" + b"right!".hex()) == 0x6983  # the card's own word
    assert await send(guest, "002C008106" + b"right!".hex()) == 0x6983


class Stubborn(Card):
    """Compares PINs and never says how many tries are left, whatever is asked."""

    def __init__(self, secure: int) -> None:
        self.compared = 0
        self._secure = secure

    async def power_on(self) -> ATR:
        return ATR(b"stubborn")

    async def power_off(self) -> None:
        pass

    async def transmit(self, command: bytes) -> bytes:
        if command[1] == 0xA4:
            return b"\x90\x00"
        if command[1] in {0x20, 0x24, 0x2C} and len(command) > 5:
            self.compared += 1
        return self._secure.to_bytes(2)


@pytest.mark.parametrize("sw", [0x6982, 0x6985, 0x6300, 0x6FFF])
@pytest.mark.parametrize("aid", [PIV, cac.CCC, OPENPGP, "A0000005272101"])
async def test_a_card_that_says_nothing_is_tried_as_often_as_is_safe(aid: str, sw: int) -> None:
    card = Stubborn(sw)
    guest = await guarded_by(card, aid)
    for _ in range(5):
        await send(guest, WRONG)
    assert card.compared == 2


@pytest.mark.parametrize("aid", [PIV, cac.CCC, OPENPGP])
async def test_a_card_that_says_it_is_blocked_is_left_alone(aid: str) -> None:
    class Blocked(Stubborn):
        async def transmit(self, command: bytes) -> bytes:
            response = await super().transmit(command)
            return b"\x6d\x00" if len(command) <= 5 else response

    card = Blocked(0x6983)
    guest = await guarded_by(card, aid)
    for _ in range(3):
        assert await send(guest, WRONG) == 0x6983
    assert card.compared == 1


async def test_a_command_without_data_that_over_t0_might_have_some_is_a_try() -> None:
    card = Stubborn(0x6982)
    guest = await guarded_by(card, PIV)
    for _ in range(5):
        await send(guest, "0020008008")
    assert await send(guest, WRONG) == 0x6983
    assert card.compared == 0


async def test_a_try_without_an_answer_counts_as_a_wrong_one(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Slow(Stubborn):
        async def transmit(self, command: bytes) -> bytes:
            answer = await super().transmit(command)
            if len(command) > 5 and command[1] == 0x20:
                await trio.sleep(10)
            return answer

    card = Slow(0x6982)
    guest = await guarded_by(card, PIV)
    for _ in range(5):
        with trio.move_on_after(1):
            await send(guest, WRONG)
    assert card.compared == 2


async def test_under_secure_messaging_the_guard_asks_nothing() -> None:
    received: list[str] = []

    class Secure(Stubborn):
        async def transmit(self, command: bytes) -> bytes:
            received.append(command.hex().upper())
            return await super().transmit(command)

    guest = await guarded_by(Secure(0x63C1), PIV)
    assert await send(guest, "0C" + WRONG[2:]) == 0x63C0
    assert await send(guest, "0C" + WRONG[2:]) == 0x6983
    assert received == [select(PIV), "0C" + WRONG[2:]]


async def test_t0_cards_are_asked_as_t0_needs_it() -> None:
    asked: list[str] = []

    class T0(OpenPgpCard):
        async def transmit(self, command: bytes) -> bytes:
            asked.append(command.hex().upper())
            response = await super().transmit(command)
            if command[1] == 0xC0:
                return bytes([0, 32, 32, 32, 1, 0, 3, 0x90, 0])
            if command[1] == 0xCA and command[4] != 7:
                return b"\x6c\x07"
            return b"\x61\x07" if command[1] == 0xCA else response

    guest = await guarded_by(T0(), OPENPGP)
    assert await send(guest, "0020008106" + b"wrong!".hex()) == 0x6983
    assert asked[1:] == ["00CA00C400", "00CA00C407", "00C0000007"]


def _guess() -> st.SearchStrategy[str]:
    headers = st.sampled_from(
        [
            "002000",
            "00200080",
            "00240080",
            "002C0080",
            "00240081",
            "0C200080",
            "01200080",
            "80200080",
        ]
    )
    lengths = st.sampled_from(
        ["", "08" + "30" * 8, "10" + "30" * 16, "0000083030303030303030", "08"]
    )
    return st.builds(lambda header, data: (header + "00")[:8] + data, headers, lengths)


@settings(max_examples=200, deadline=None)
@given(
    commands=st.lists(_guess() | st.sampled_from([WRONG, PUK_WRONG, STATUS]), max_size=20),
    extensions=st.booleans(),
    floor=st.integers(1, 2),
)
async def test_no_sequence_of_wrong_tries_goes_below_the_floor(
    commands: Sequence[str], *, extensions: bool, floor: int
) -> None:
    memory = piv.new_memory()
    guest = await guarded_by(piv_card({}, memory, vendor_extensions=extensions), PIV, floor)
    for command in commands:
        await guest.transmit(bytes.fromhex(command))
    for reference in (0x00, 0x80, 0x81):
        assert await memory.pin(reference).tries_left() >= floor
