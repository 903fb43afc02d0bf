# SPDX-License-Identifier: Apache-2.0
"""Commands that have to do with readers and what is in them, with real cards and a guest."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing
from structlog.testing import capture_logs

from ccid_protocol import vscard
from ccid_protocol.qmp import JSON, Error, Event, Return
from ccidd.service.configuration import Configuration
from ccidd.service.options import parse_card
from ccidd.service.service import Service
from ccidd.service.state import State
from ccidd.service.supply import FixedCard
from control_client import Clients, CommandFailedError, ControlClient, controlled
from kept_cards import PIN, PUK, keep_card, reader, service_of
from qemu_peer import QemuPeer

SELECT_PIV = bytes.fromhex("00A4040009A0000003080000100000")


def verify(pin: str) -> bytes:
    return b"\x00\x20\x00\x80\x08" + pin.encode().ljust(8, b"\xff")


@pytest.fixture
def guids(state: State) -> dict[str, str]:
    return {name: keep_card(state, name) for name in ("one", "two")}


@asynccontextmanager
async def running(service: Service, state: State) -> AsyncGenerator[tuple[Clients, ControlClient]]:
    service.listen()
    with trio.fail_after(60):
        async with controlled(service, state) as clients:
            yield clients, await clients.begun()


@asynccontextmanager
async def guest(directory: Path, name: str) -> AsyncGenerator[QemuPeer]:
    stream = await trio.open_unix_socket(f"{directory}/{name}.sock")
    async with stream, trio.open_nursery() as nursery:
        peer = QemuPeer(stream)
        nursery.start_soon(peer.run)
        yield peer
        nursery.cancel_scope.cancel()


async def test_readers_slots_and_connections_are_told(
    state: State, guids: dict[str, str], tmp_path: Path
) -> None:
    service = service_of(
        state, reader(tmp_path, "a", "piv,card=one"), reader(tmp_path, "b", "piv,card=two", slots=2)
    )
    async with running(service, state) as (_, client):
        first: dict[str, JSON] = {
            "name": "a",
            "transport": "vscard",
            "socket-path": f"{tmp_path}/a.sock",
            "slots": 1,
            "cards": 1,
            "connected": False,
        }
        second = first | {
            "name": "b",
            "transport": "usbredir",
            "socket-path": f"{tmp_path}/b.sock",
            "slots": 2,
        }
        assert await client.execute("query-readers") == [first, second]
        slots: list[JSON] = [
            {"reader": "b", "slot": 0, "present": True, "card": "piv,card=two"},
            {"reader": "b", "slot": 1, "present": False},
        ]
        assert await client.execute("query-slots", reader="b") == slots
        assert await client.execute("query-slots") == [
            {"reader": "a", "slot": 0, "present": True, "card": "piv,card=one"},
            *slots,
        ]
        assert await client.execute("query-connections") == []
        async with guest(tmp_path, "a") as peer:
            await peer.until(lambda: peer.atr)
            opened = await client.event("CONNECTION_OPENED")
            assert opened["reader"] == "a"
            assert await client.execute("query-connections") == [opened]
            readers = await client.execute("query-readers")
            assert readers == [first | {"connected": True, "guest": opened["guest"]}, second]
        assert await client.event("CONNECTION_CLOSED") == opened
        with pytest.raises(CommandFailedError, match="no reader of this name") as unknown:
            await client.execute("query-slots", reader="c" * 50)
        assert unknown.value.error_class == "DeviceNotFound"


async def test_cards_are_told_with_their_tries_and_places(
    state: State, guids: dict[str, str], tmp_path: Path
) -> None:
    service = service_of(state, reader(tmp_path, "a", "piv,card=one"))
    async with running(service, state) as (_, client):
        cards = await client.query("query-cards")
        one, two = cards
        assert (one["guid"], one["name"], one["type"]) == (guids["one"], "one", "piv")
        assert (one["reader"], one["slot"]) == ("a", 0)
        assert "served-by" in one
        assert "reader" not in two
        assert "served-by" not in two
        pins, keys = one["pins"], one["keys"]
        assert isinstance(pins, list)
        assert isinstance(keys, list)
        assert {"reference": "80", "name": "PIN", "tries-left": 3, "max-tries": 3} in pins
        assert ("9A", "P-256") in [(key["reference"], key["algorithm"]) for key in keys]
        assert PIN not in str(cards)


async def test_cards_come_go_and_change_places_before_a_guest(
    state: State, guids: dict[str, str], tmp_path: Path
) -> None:
    service = service_of(state, reader(tmp_path, "a", "piv,card=one"))
    async with running(service, state) as (_, client), guest(tmp_path, "a") as peer:
        await peer.until(lambda: peer.atr)
        assert await client.execute("card-remove") == {}
        assert await client.event("CARD_REMOVED") == {"reader": "a", "slot": 0}
        await peer.until(lambda: vscard.CardRemove(0) in peer.seen)
        # Nobody serves it any more, and so it can be served again, in either form.
        await client.execute("card-insert", reader="a", slot=0, card="piv,card=one,policy=use")
        assert await client.event("CARD_INSERTED") == {"reader": "a", "slot": 0}
        await peer.until(lambda: peer.atr)
        peer.seen.clear()
        await client.execute("card-swap", card={"type": "piv", "card": "two", "policy": "use"})
        await peer.until(lambda: vscard.CardRemove(0) in peer.seen and peer.atr)
        (slot,) = await client.query("query-slots")
        assert slot["card"] == "piv,card=two,policy=use"


@pytest.mark.parametrize(
    ("command", "arguments", "error_class", "message"),
    [
        ("card-insert", {"card": "piv,card=two"}, "GenericError", "slot 0 has a card; remove it"),
        ("card-insert", {"card": "piv,card=two", "slot": 1}, "DeviceNotFound", "no slot 1; it has"),
        ("card-insert", {"card": "piv,card=two", "slot": -1}, "DeviceNotFound", "no slot -1"),
        ("card-insert", {"card": "piv,crad=two"}, "GenericError", "no option 'crad'; did you mean"),
        ("card-insert", {"card": ""}, "GenericError", "there is no such type of card"),
        ("card-insert", {"card": {"card": "two"}}, "GenericError", "card: type: this is to be"),
        (
            "card-insert",
            {"card": {"type": 3}},
            "GenericError",
            "card: type: this is to be a string",
        ),
        ("card-insert", {"card": 3}, "GenericError", "is to be a string or an object"),
        ("card-insert", {}, "GenericError", "needs the argument card"),
        ("card-insert", {"card": "piv,card=two", "reader": "b"}, "DeviceNotFound", "no reader"),
        ("card-swap", {"card": "piv,card=nobody"}, "GenericError", "there is no card nobody in"),
        ("card-swap", {"card": "cac,card=two"}, "GenericError", "the card two is piv"),
        ("card-swap", {"card": "piv,token=any"}, "GenericError", "has one slot"),
        ("card-swap", {"card": "piv,card=two,policy=x"}, "GenericError", "policy"),
        ("card-remove", {"slot": 1}, "DeviceNotFound", "no slot 1"),
        ("reader-remove", {"reader": "b"}, "DeviceNotFound", "no reader of this name; query-re"),
        ("reader-add", {"reader": "b", "configuration": {"fd": 3}}, "GenericError", "(fd)"),
        ("reader-add", {"reader": "../b", "configuration": {}}, "GenericError", "the name of a"),
        ("reader-add", {"reader": "b", "configuration": {"x": 1}}, "GenericError", "no key 'x'"),
        (
            "reader-add",
            {"reader": "b", "configuration": {}},
            "GenericError",
            "the reader b: one of",
        ),
        ("reload", {}, "GenericError", "there is no configuration file"),
    ],
)
async def test_what_cannot_be_done_is_told_and_changes_nothing(  # noqa: PLR0917 (fixtures)
    state: State,
    guids: dict[str, str],
    tmp_path: Path,
    command: str,
    arguments: dict[str, JSON],
    error_class: str,
    message: str,
) -> None:
    service = service_of(state, reader(tmp_path, "a", "piv,card=one"))
    async with running(service, state) as (_, client):
        before = await client.execute("query-slots")
        with capture_logs() as logs, pytest.raises(CommandFailedError) as refused:
            await client.execute_with(command, arguments)
        assert message in str(refused.value)
        assert refused.value.error_class == error_class
        assert not [entry for entry in logs if entry["log_level"] == "error"]
        assert await client.execute("query-slots") == before


async def test_a_slot_that_is_empty_has_nothing_to_remove_or_swap(
    state: State, guids: dict[str, str], tmp_path: Path
) -> None:
    service = service_of(state, reader(tmp_path, "a", "piv,card=one", slots=2))
    async with running(service, state) as (_, client):
        for command in ("card-remove", "card-swap"):
            card: dict[str, JSON] = {"card": "piv,card=two"} if command == "card-swap" else {}
            with pytest.raises(CommandFailedError, match="slot 1 of the reader a is empty") as no:
                await client.execute_with(command, {"slot": 1, **card})
            assert no.value.error_class == "DeviceNotFound"


async def test_readers_are_added_and_removed(
    state: State, guids: dict[str, str], tmp_path: Path
) -> None:
    service = service_of(state, reader(tmp_path, "a", "piv,card=one"))
    table: JSON = {
        "transport": "vscard",
        "socket-path": f"{tmp_path}/b.sock",
        "cards": [{"type": "piv", "card": "two"}],
    }
    async with running(service, state) as (_, client):
        added = await client.execute("reader-add", reader="b", configuration=table)
        assert isinstance(added, dict)
        assert (added["name"], added["cards"]) == ("b", 1)
        assert await client.event("READER_ADDED") == {"reader": "b"}
        with pytest.raises(CommandFailedError, match="there is a reader b already"):
            await client.execute("reader-add", reader="b", configuration=table)
        with pytest.raises(CommandFailedError, match="say which reader: a, b"):
            await client.execute("card-remove")
        async with guest(tmp_path, "b") as peer:
            await peer.until(lambda: peer.atr)
            await client.execute("reader-remove", reader="b")
            await peer.until(lambda: vscard.ReaderRemove(0) in peer.seen)
        assert await client.event("READER_REMOVED") == {"reader": "b"}
        assert not (tmp_path / "b.sock").exists()
        # The last one goes, and ccidd stays.
        await client.execute("reader-remove", reader="a")
        assert await client.execute("query-readers") == []
        await client.execute("reader-add", reader="b", configuration=table)


async def test_the_log_tells_of_a_card_with_its_reader_and_not_with_who_put_it_in(
    state: State, guids: dict[str, str], tmp_path: Path
) -> None:
    service = service_of(state, reader(tmp_path, "a", "piv,card=one", slots=2))
    seen = []

    async def run_and_note(self: FixedCard, slots: object) -> None:
        seen.append(structlog.contextvars.get_contextvars())
        await trio.sleep_forever()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FixedCard, "run", run_and_note)
        async with running(service, state) as (_, client):
            with structlog.contextvars.bound_contextvars(client="somebody"):
                await client.execute("card-insert", slot=1, card="piv,card=two")
                await service.readers["a"].remove_card(1)
                await service.readers["a"].insert_card(1, parse_card("piv,card=two"))
            await trio.testing.wait_all_tasks_blocked()
    assert seen == [{"reader": "a"}] * 3


# PINs.


async def test_a_running_card_has_its_new_pin_at_once(
    state: State, guids: dict[str, str], tmp_path: Path
) -> None:
    service = service_of(state, reader(tmp_path, "a", "piv,card=one"))
    async with running(service, state) as (_, client), guest(tmp_path, "a") as peer:
        await peer.until(lambda: peer.atr)
        await peer.transmit(SELECT_PIV)
        assert await peer.transmit(verify(PIN)) == b"\x90\0"
        with capture_logs() as logs:
            changed = await client.execute("card-change-pin", pin=PIN, new_pin="161803")
        assert changed == {"guid": guids["one"], "tries-left": 3, "max-tries": 3}
        assert await peer.transmit(verify(PIN)) == b"\x63\xc2"
        assert await peer.transmit(verify("161803")) == b"\x90\0"
        assert "161803" not in str(logs)
        assert {"event": "control_command", "log_level": "info", "command": "card-change-pin"} in [
            {name: entry.get(name) for name in ("event", "log_level", "command")} for entry in logs
        ]


async def test_a_wrong_pin_costs_a_try_and_a_blocked_one_is_freed(
    state: State, guids: dict[str, str], tmp_path: Path
) -> None:
    service = service_of(state, reader(tmp_path, "a", "piv,card=one"))
    async with running(service, state) as (_, client), guest(tmp_path, "a") as peer:
        await peer.until(lambda: peer.atr)
        await peer.transmit(SELECT_PIV)
        with capture_logs() as logs:
            for left in ("2 tries are left", "1 tries are left", "the PIN is blocked"):
                with pytest.raises(CommandFailedError, match=left) as refused:
                    await client.execute("card-change-pin", pin="999999", new_pin="161803")
                assert not {"999999", "161803"} & set(str(refused.value).split())
        assert "999999" not in str(logs)
        assert "161803" not in str(logs)
        assert await peer.transmit(verify(PIN)) == b"\x69\x83"
        with pytest.raises(CommandFailedError, match="this is not the PUK; 2 tries are left"):
            await client.execute("card-unblock", puk="99999999", new_pin="161803")
        unblocked = await client.execute("card-unblock", puk=PUK, new_pin="161803")
        assert unblocked == {"guid": guids["one"], "tries-left": 3, "max-tries": 3}
        assert await peer.transmit(verify("161803")) == b"\x90\0"
        for _ in range(3):
            await peer.transmit(verify(PIN))
        await client.execute("card-unblock", reader="a", slot=0)
        assert await peer.transmit(verify("161803")) == b"\x90\0"


async def test_a_card_that_nobody_serves_is_named(
    state: State, guids: dict[str, str], tmp_path: Path
) -> None:
    async with running(service_of(state), state) as (_, client):
        await client.execute("card-change-pin", card="two", pin=PIN, new_pin="161803")
        await client.execute("card-change-pin", card=guids["two"], pin="161803", new_pin=PIN)
        await client.execute(
            "card-change-pin", card="two", which="puk", pin=PUK, new_pin="31415926"
        )
        await client.execute("card-unblock", card="two", which="puk")


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("card-change-pin", {"pin": PIN}, "needs the argument new-pin"),
        ("card-change-pin", {"pin": PIN, "new-pin": "12345"}, "a PIN has 6 to 8 digits"),
        ("card-change-pin", {"pin": "abcdef", "new-pin": "161803"}, "a PIN has 6 to 8 digits"),
        ("card-change-pin", {"pin": PIN, "new-pin": 161803}, "new-pin of card-change-pin is to be"),
        ("card-change-pin", {"pin": PIN, "new-pin": "161803", "card": "three"}, "there is no card"),
        ("card-change-pin", {"pin": PIN, "new-pin": "161803", "slot": 7}, "no slot 7"),
        (
            "card-change-pin",
            {"pin": PIN, "new-pin": "161803", "which": "global"},
            "the card has no global PIN",
        ),
        ("card-unblock", {"puk": PUK}, "takes puk and new-pin together, or neither"),
        ("card-unblock", {"puk": PUK, "new-pin": PIN, "which": "puk"}, "does not unblock the PUK"),
        ("card-unblock", {"which": "pni"}, "is to be one of pin, puk, global; did you mean pin?"),
    ],
)
async def test_what_cannot_be_a_pin_costs_no_try(  # noqa: PLR0917 (fixtures)
    state: State,
    guids: dict[str, str],
    tmp_path: Path,
    command: str,
    arguments: dict[str, JSON],
    message: str,
) -> None:
    service = service_of(state, reader(tmp_path, "a", "piv,card=one"))
    async with running(service, state) as (_, client):
        with capture_logs() as logs, pytest.raises(CommandFailedError) as refused:
            await client.execute_with(command, arguments)
        assert message in str(refused.value)
        for secret in (PIN, PUK, "161803", "abcdef"):
            assert secret not in str(refused.value)
            assert secret not in str(logs)
        for reference in state.pins(guids["one"]):
            record = state.pin(guids["one"], reference)
            assert record is not None
            assert record.tries_left == record.max_tries


# The end.


async def test_nothing_is_changed_while_ccidd_ends(
    state: State, guids: dict[str, str], tmp_path: Path
) -> None:
    service = service_of(state, reader(tmp_path, "a", "piv,card=one"))
    async with running(service, state) as (_, client):
        await client.stream.send_all(b"{'execute':'quit','id':1}{'execute':'card-remove','id':2}")
        answers: list[object] = []
        while len(answers) < 2:
            message = await client.receive()
            if not isinstance(message, Event):
                answers.append(message)
        done, refused = answers
        assert isinstance(done, Return)
        assert isinstance(refused, Error)
        assert refused.description == "ccidd is about to end"


async def test_a_reload_leaves_readers_alone_that_the_file_does_not_know(
    state: State, guids: dict[str, str], tmp_path: Path
) -> None:
    first, second = reader(tmp_path, "a", "piv,card=one"), reader(tmp_path, "b", "piv,card=two")
    file = [first]
    service = service_of(state, load=lambda: Configuration(tuple(file)))
    service.open(Configuration((first,)))
    table: JSON = {"transport": "vscard", "socket-path": f"{tmp_path}/c.sock"}
    keep_card(state, "c")
    nothing: dict[str, JSON] = {"added": [], "removed": [], "changed": []}
    async with running(service, state) as (_, client):
        await client.execute("reader-add", reader="c", configuration=table)
        assert await client.execute("reload") == nothing
        file = [first, second]
        assert await client.execute("reload") == nothing | {"added": ["b"]}
        file = [second]
        assert await client.execute("reload") == nothing | {"removed": ["a"]}
        assert await client.event("RELOADED") == nothing
        await client.execute("reader-remove", reader="b")
        assert await client.execute("reload") == nothing | {"added": ["b"]}
        assert [each["name"] for each in await client.query("query-readers")] == ["c", "b"]
