# SPDX-License-Identifier: Apache-2.0
import pytest
import trio

from cards import ScriptedCard
from ccid_protocol.apdu import ResponseAPDU
from ccidd.card.guard.guard import Guard, Rules
from ccidd.card.guard.operations import MANAGE, NOTHING, USE
from recording_card import OPENPGP, PIV, RecordingCard, select


async def send(card: Guard, command: str) -> int:
    return ResponseAPDU.decode(await card.transmit(bytes.fromhex(command))).sw


async def selected(aid: str = PIV) -> tuple[Guard, RecordingCard]:
    card = RecordingCard()
    guarded = Guard(card, Rules(USE, 0, NOTHING))
    await guarded.power_on()
    await send(guarded, select(aid))
    card.received.clear()
    return guarded, card


SIGNATURE = ["1087079A047C0A8106", "1087079A0411223344", "0087079A045566820000"]


async def test_a_chain_reaches_the_card_whole_and_in_its_parts() -> None:
    guarded, card = await selected()
    for part in SIGNATURE[:-1]:
        assert await send(guarded, part) == 0x9000
        assert not card.received
    assert await send(guarded, SIGNATURE[-1]) == 0x9000
    assert card.commands == SIGNATURE


async def test_what_is_forbidden_is_refused_at_its_first_part() -> None:
    guarded, card = await selected()
    for part in ("10DB3FFF055C035FC105", "1087089B047C0A8106", "1047009A02AC03", "10E6000000"):
        assert await send(guarded, part) in {0x6985, 0x6D00}
    assert not card.received


async def test_a_template_that_turns_out_to_be_none_is_refused_as_a_whole() -> None:
    guarded, card = await selected()
    assert await send(guarded, "1087079A047C0A8106") == 0x9000
    assert await send(guarded, "0087079A0411223344") == 0x6A86
    # Its parts are forgotten.
    assert await send(guarded, "0087079A087C06810411223344") == 0x9000
    assert card.commands == ["0087079A087C06810411223344"]


@pytest.mark.parametrize(
    "between",
    [
        # Another key, another instruction, another class; what is broken, and what is refused.
        *("1087079C0411223344", "00CB3FFF055C035FC105", "00C0000000", "0087"),
        *("00DB3FFF055C035FC105", "1187079A0411223344", "0087079D0411223344"),
    ],
)
async def test_a_chain_that_is_interrupted_is_gone(between: str) -> None:
    guarded, card = await selected()
    await send(guarded, SIGNATURE[0])
    await send(guarded, SIGNATURE[1])
    await send(guarded, between)
    card.received.clear()
    assert await send(guarded, SIGNATURE[2]) == 0x6A86
    assert not card.received


async def test_chains_do_not_mix() -> None:
    guarded, card = await selected()
    # Each of them is dropped by the next, and only the last one ends.
    await send(guarded, "10CB3FFF025C03")
    await send(guarded, "1087079A047C0A8106")
    await send(guarded, "10CB3FFF035C035F")
    assert await send(guarded, "00CB3FFF02C105") == 0x9000
    assert card.commands == ["10CB3FFF035C035F", "00CB3FFF02C105"]


async def test_extended_parts_are_parts_as_well() -> None:
    guarded, card = await selected()
    parts = ["1087079A0000047C0A8106", "0087079A000008112233445566" + "8200" + "0000"]
    for part in parts:
        assert await send(guarded, part) == 0x9000
    assert card.commands == parts


@pytest.mark.parametrize("part", ["10200080083132333435363738", "10A40400023F00", "10C00000"])
async def test_what_is_never_long_is_never_chained(part: str) -> None:
    card = RecordingCard()
    guarded = Guard(card, Rules(MANAGE, 0, NOTHING))
    await guarded.power_on()
    await send(guarded, select(PIV))
    assert await send(guarded, part) == 0x6884
    assert card.commands == [select(PIV)]


async def test_a_guest_that_never_ends_a_chain_fills_no_memory() -> None:
    guarded, card = await selected()
    part = "1087079A00FFFF" + "00" * 65535
    assert await send(guarded, part) == 0x9000
    assert await send(guarded, "1087079A0100") == 0x6700
    assert guarded._chain._parts == []
    assert not card.received


async def test_a_chain_ends_where_the_card_refuses_a_part() -> None:
    guarded, card = await selected(OPENPGP)
    card._answers = {"102A8086": lambda: ResponseAPDU(sw=0x6884)}
    assert await send(guarded, "102A8086021122") == 0x9000
    assert await send(guarded, "002A8086021122") == 0x6884
    assert card.commands == ["102A8086021122"]


async def test_after_a_chain_that_was_cut_off_the_guest_selects_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def answer(command: bytes) -> bytes:
        if command[0] == 0x00 and command[1] == 0x87:
            await trio.sleep(60)
        return b"\x90\x00"

    guarded = Guard(ScriptedCard(answer), Rules(USE, 0, NOTHING))
    await guarded.power_on()
    await send(guarded, select(PIV))
    await send(guarded, SIGNATURE[0])
    await send(guarded, SIGNATURE[1])
    with trio.move_on_after(1):
        await send(guarded, SIGNATURE[2])
    # What is on the card of it might be joined to this.
    assert await send(guarded, "0087079A087C06810411223344") == 0x6D00
    assert await send(guarded, select(PIV)) == 0x9000
    assert await send(guarded, "00CB3FFF055C035FC105") == 0x9000
