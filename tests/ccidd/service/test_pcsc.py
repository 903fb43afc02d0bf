# SPDX-License-Identifier: Apache-2.0
"""A slot follows a reader of a real pcscd, through all that befalls a reader."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from cards import echo_card, response_of_length
from ccidd.card.card import Card, CardGoneError
from ccidd.card.passthrough.card import Sharing
from ccidd.errors import UserError
from ccidd.service.options import parse_card
from ccidd.service.pcsc import pcsc_supply
from ccidd.service.supply import UNPROTECTED
from passthrough import (
    bench,
    following,
    inserted,
    new_piv_card,
    powered,
    removed,
    scripted_card,
)
from pcscd import pcscd_with, use_from_here
from piv import selected
from programs import run_ccidd
from vpcd import virtual_reader


async def test_a_card_appears_with_its_own_atr_and_goes(tmp_path: Path) -> None:
    card = new_piv_card()
    async with bench(tmp_path) as host, following() as slot:
        for _ in range(2):
            assert slot.insertion is None
            host.reader.insert(card)
            insertion = await inserted(slot)
            assert await insertion.power_on() == await card.power_on()
            await selected(insertion)
            host.reader.remove()
            await removed(slot)
            with pytest.raises(CardGoneError):
                await insertion.transmit(bytes(4))


async def test_apdus_of_all_lengths_go_to_and_fro(tmp_path: Path) -> None:
    async def answer(command: bytes) -> bytes:
        # It says how much it was told, and more.
        return (await response_of_length(command))[:-2] + len(command).to_bytes(4) + b"\x90\0"

    async with bench(tmp_path, scripted_card(answer)), following() as slot:
        card = await powered(slot)
        for size in (2, 256, 258, 5000, 65000):
            header = b"\0\x10" + size.to_bytes(2)
            long = b"\0" + (60000).to_bytes(2) + bytes(60000) + b"\0\0"
            for command in (header, header + b"\0", header + b"\3abc", header + long):
                response = await card.transmit(command)
                assert len(response) == size + 4
                assert int.from_bytes(response[-6:-2]) == len(command)


async def test_a_card_that_goes_at_work_leaves_its_command_without_answer(tmp_path: Path) -> None:
    at_work = trio.Event()

    async def answer(command: bytes) -> bytes:
        at_work.set()
        await trio.sleep(math.inf)
        return command

    async with bench(tmp_path, scripted_card(answer)) as host, following() as slot:
        card = await powered(slot)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails, card)
            await at_work.wait()
            host.reader.remove()
            await removed(slot)


async def fails(card: Card) -> None:
    with pytest.raises(CardGoneError):
        await card.transmit(bytes(5))


# The service.


def told(log: Sequence[Mapping[str, object]]) -> list[object]:
    return [entry["event"] for entry in log if entry["log_level"] != "debug"]


async def test_the_service_may_be_missing_stop_and_come_back(tmp_path: Path) -> None:
    async with virtual_reader() as reader:
        reader.insert(new_piv_card())
        with capture_logs() as log:
            async with following() as slot:
                await trio.sleep(1.5)
                assert told(log) == ["pcsc_unavailable"]
                for _ in range(2):
                    log.clear()
                    async with pcscd_with(tmp_path, reader.configuration) as host:
                        use_from_here(host)
                        await selected(await inserted(slot))
                    await removed(slot)
                    await trio.sleep(1.5)
                    assert told(log) == ["card_found", "card_removed", "pcsc_unavailable"]


async def test_the_service_may_be_killed_while_the_card_is_at_work(tmp_path: Path) -> None:
    at_work = trio.Event()

    async def answer(command: bytes) -> bytes:
        at_work.set()
        await trio.sleep(math.inf)
        return command

    async with virtual_reader() as reader, following() as slot:
        reader.insert(scripted_card(answer))
        async with pcscd_with(tmp_path, reader.configuration) as host:
            use_from_here(host)
            card = await powered(slot)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails, card)
                await at_work.wait()
                host.kill()
                await removed(slot)
        reader.remove()
        reader.insert(new_piv_card())
        async with pcscd_with(tmp_path, reader.configuration) as host:
            use_from_here(host)
            await selected(await inserted(slot))


@pytest.mark.parametrize("then", ["at rest", "at work"])
async def test_a_service_that_hangs_is_one_that_is_missing(
    then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccidd.service.pcsc.HANG_TIMEOUT", 0.5)
    monkeypatch.setattr("ccidd.service.pcsc.LONGEST_RETRY_DELAY", 0.05)
    monkeypatch.setattr("ccidd.service.pcsc.RETRY_DELAY", 0.05)
    async with bench(tmp_path, new_piv_card()) as host, following() as slot:
        card = await selected(await powered(slot))
        async with trio.open_nursery() as nursery:
            host.host.pause()
            if then == "at work":
                nursery.start_soon(fails, card)
            await removed(slot)
            # As many tries as would use up all threads, were they not counted.
            await trio.sleep(3)
            host.host.resume()
            await selected(await powered(slot))


async def test_a_reader_may_be_unplugged_and_plugged_in_again(tmp_path: Path) -> None:
    async with (
        virtual_reader() as reader,
        virtual_reader("Another") as another,
        following() as slot,
    ):
        reader.insert(new_piv_card())
        for plugged_in in (reader, another, reader):
            async with pcscd_with(tmp_path, plugged_in.configuration) as host:
                use_from_here(host)
                if plugged_in is reader:
                    await selected(await inserted(slot))
                else:
                    await trio.sleep(2)
                    assert slot.insertion is None
            await removed(slot)


async def test_of_several_readers_the_first_with_a_card_is_taken(tmp_path: Path) -> None:
    async with bench(tmp_path) as host, following("Virt*0?") as slot:
        host.reader.insert(new_piv_card(), slot=1)
        second = await inserted(slot)
        await selected(second)
        host.reader.insert(echo_card(), slot=0)
        await trio.sleep(1)
        # It stays until it goes.
        assert slot.insertion is second
        host.reader.remove(slot=1)
        first = await inserted(slot, after=second)
        await first.power_on()
        assert len(await first.transmit(bytes.fromhex("0010000a08"))) == 10


async def test_a_name_is_first_of_all_a_name(tmp_path: Path) -> None:
    async with virtual_reader("A [B] C") as reader:
        reader.insert(new_piv_card())
        async with pcscd_with(tmp_path, reader.configuration) as host:
            use_from_here(host)
            async with following("A [B] C 00 00") as slot:
                await selected(await inserted(slot))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("pcsc", "reader=NAME is missing"),
        ("pcsc,reader=X,exclusive=yes", "exclusive: this is on or off"),
        ("pcsc,reader=X,idle-release=0", "idle-release: this is a number of seconds, 1 to 86400"),
        ("pcsc,reader=X,max-hold=1.5", "max-hold: this is a number of seconds, 1 to 86400"),
        ("pcsc,reader=X,pin-file=Y", "there is no option 'pin-file'"),
    ],
)
def test_bad_options_are_told(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        parse_card(text)


def test_options_are_what_the_supply_goes_by() -> None:
    options = parse_card("pcsc,reader=A,,B*,exclusive=on,idle-release=3,max-hold=7")
    supply = pcsc_supply(options, UNPROTECTED)
    assert supply._pattern == "A,B*"
    assert supply._sharing == Sharing(exclusive=True, idle_release=3, max_hold=7)
    assert pcsc_supply(parse_card("pcsc,reader=A"), UNPROTECTED)._sharing == Sharing()


def test_without_pyscard_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "smartcard.py").write_text("raise ImportError")
    options = ("--card=pcsc,reader=X", f"--socket-path={tmp_path / 's'}", f"--state-dir={tmp_path}")
    result = run_ccidd(*options, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.endswith(
        "ccidd: --card=pcsc: this needs pyscard: pip install ccidd[pcsc]\n"
    )
