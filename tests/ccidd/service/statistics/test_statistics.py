# SPDX-License-Identifier: Apache-2.0
"""What is counted, and the text of it as those read it who collect metrics."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import piv
from cards import ScriptedCard
from ccid_protocol.apdu import ResponseAPDU
from ccidd import __version__
from ccidd.card.card import Card
from ccidd.card.guard.guard import Guard, Rules
from ccidd.card.guard.operations import NOTHING, USE
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import KeyReference
from ccidd.keys.key import KeyAlgorithm
from ccidd.reader.slot import Slot
from ccidd.service.exchanges import Exchanges
from ccidd.service.statistics import MetricsFile, Statistics, metricsfile
from ccidd.service.statistics.histogram import BOUNDS, Histogram
from ccidd.service.statistics.openmetrics import openmetrics
from credentials import credential

SELECT = "00A4040009A0000003080000100000"
WRONG = "0020008008303030303030FFFF"
RIGHT = "0020008008313233343536FFFF"
SIGN = "0087119A267C2482008120" + "5A" * 32 + "00"
HOSTILE = 'a"b\\c\nd{}'


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Gives what the text says, by names and labels, as another program understands it."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


async def used(statistics: Statistics, card: Card, *commands: str, reader: str = "alice") -> Slot:
    """Has a card in the second slot of a reader used."""
    slot = Slot(card, 1)
    slot.observe(Exchanges(statistics.add(reader, 2)))
    statistics.connected(reader)
    insertion = slot.insertion
    assert insertion is not None
    await insertion.power_on()
    for command in commands:
        ResponseAPDU.decode(await insertion.transmit(bytes.fromhex(command)))
    return slot


def signing_card() -> Card:
    keys = {KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256)}
    return piv_card(keys, piv.new_memory())


async def test_what_a_guest_does_is_counted() -> None:
    statistics = Statistics()
    commands = [SELECT, SIGN, WRONG, RIGHT, SIGN, SIGN, "00CB3FFF035C017E00", "00E10000", "00"]
    slot = await used(statistics, signing_card(), *commands)
    slot.remove()
    (reader,) = json.loads(json.dumps(statistics.snapshot()))["readers"]
    assert (reader["reader"], reader["connections"]) == ("alice", 1)
    unused, counts = reader["slots"]
    assert (unused["slot"], unused["insertions"], unused["commands"]) == (0, 0, {})
    assert counts.pop("slot") == 1
    seconds = counts.pop("command-seconds")
    assert seconds["count"] == len(commands)
    assert seconds["buckets"][-1] == {"up-to": None, "count": len(commands)}
    operations = counts.pop("key-operations")
    assert {kind: operation["count"] for kind, operation in operations.items()} == {"sign": 2}
    assert counts == {
        "insertions": 1,
        "removals": 1,
        "power-ons": 1,
        "faults": 0,
        "commands": {"select": 1, "use-key": 3, "verify": 2, "read": 1, "other": 2},
        "responses": {"90": 5, "69": 1, "63": 1, "6D": 1, "67": 1},
        "key-failures": {"sign": 1},
        "pin-failures": 1,
        "guard-refusals": {},
    }


async def test_what_a_guard_refuses_is_no_failure_of_the_card() -> None:
    statistics = Statistics()
    guarded = Guard(signing_card(), Rules(USE, 1, NOTHING))
    await used(statistics, guarded, SELECT, *[WRONG] * 3, "0047009A05AC0380011100")
    (slot,) = statistics.readers["alice"].slots[1:]
    assert slot.guard_refusals == {"retry-floor": 1, "policy": 1}
    assert slot.pin_failures == 2
    assert not slot.key_failures


async def test_a_chain_is_one_use_of_a_key() -> None:
    statistics = Statistics()
    first, last = "1087119A10" + SIGN[10:42], "0087119A16" + SIGN[42:]
    await used(statistics, signing_card(), SELECT, RIGHT, first, last)
    assert statistics.readers["alice"].slots[1].key_operations["sign"].count == 1


async def test_a_card_that_does_not_answer_is_counted() -> None:
    async def answer(_command: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    statistics = Statistics()
    with pytest.raises(ZeroDivisionError):
        await used(statistics, ScriptedCard(answer), SELECT)
    assert statistics.readers["alice"].slots[1].faults == 1


def test_durations_are_counted_by_their_length() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.001, 0.0011, 5.0, 3600.0):
        histogram.add(seconds)
    assert histogram.count == 5
    assert histogram.sum == pytest.approx(3605.0021)
    counts = dict(histogram.cumulative())
    assert [counts[bound] for bound in (0.001, 0.0025, 2.5, 5.0, BOUNDS[-1])] == [2, 3, 3, 4, 5]


async def test_the_text_is_open_metrics() -> None:
    statistics = Statistics()
    await used(statistics, signing_card(), SELECT, RIGHT, SIGN, WRONG)
    await used(statistics, signing_card(), SELECT, reader=HOSTILE)
    text = openmetrics(statistics)
    assert text.endswith("\n# EOF\n")
    said = samples(text)
    assert said["ccidd_build_info", __version__] == 1
    assert said["ccidd_connections_total", HOSTILE] == 1
    assert said["ccidd_commands_total", "alice", "1", "use-key"] == 1
    assert said["ccidd_responses_total", "alice", "1", "90"] == 3
    assert said["ccidd_pin_failures_total", "alice", "1"] == 1
    assert said["ccidd_pin_failures_total", "alice", "0"] == 0
    assert said["ccidd_key_operation_seconds_count", "alice", "1", "sign"] == 1
    assert said["ccidd_key_operation_seconds_bucket", "alice", "1", "sign", "+Inf"] == 1
    assert said["ccidd_command_seconds_count", HOSTILE, "1"] == 1


def test_a_service_without_readers_has_metrics_too() -> None:
    assert samples(openmetrics(Statistics())) == {("ccidd_build_info", __version__): 1}


# The file.


@pytest.fixture(autouse=True)
def interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metricsfile, "INTERVAL", 0.01)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while True:
            if condition():
                return
            await trio.sleep(0.005)


async def test_the_file_is_kept_up_to_date(tmp_path: Path, nursery: trio.Nursery) -> None:
    file = tmp_path / "ccidd.prom"
    statistics = Statistics()
    statistics.add("alice", 1)
    metrics = MetricsFile(file, statistics)

    def connections() -> float:
        return samples(file.read_text())["ccidd_connections_total", "alice"]

    nursery.start_soon(metrics.run)
    await until(file.exists)
    assert connections() == 0
    statistics.connected("alice")
    await until(lambda: connections() == 1)
    statistics.connected("alice")
    await until(lambda: connections() == 2)
    nursery.cancel_scope.cancel()
    statistics.connected("alice")
    with trio.CancelScope(shield=True):
        await metrics.finish()
    assert connections() == 3
    assert file.stat().st_mode & 0o777 == 0o644


async def test_others_find_the_file_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "ccidd.prom"
    file.write_text("old")
    with file.open() as reader:
        await MetricsFile(file, Statistics()).finish()
        assert reader.read() == "old"
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


async def test_a_place_that_takes_nothing_is_told_of_once(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    file = tmp_path / "none" / "ccidd.prom"
    metrics = MetricsFile(file, Statistics())
    with structlog.testing.capture_logs() as logs:
        nursery.start_soon(metrics.run)
        await until(lambda: len(logs) == 1)
        await trio.sleep(0.1)
        file.parent.mkdir()
        await until(file.exists)
        assert len(logs) == 1
        file.parent.rename(tmp_path / "away")
        await until(lambda: len(logs) == 2)
    nursery.cancel_scope.cancel()
    assert {(entry["event"], entry["reason"]) for entry in logs} == {
        ("metrics_not_written", "No such file or directory")
    }
