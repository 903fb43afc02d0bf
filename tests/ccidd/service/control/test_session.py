# SPDX-License-Identifier: Apache-2.0
import json
import sqlite3
import time
from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from ccid_protocol.events import ConnectionClosed
from ccid_protocol.qmp import Error, Event, Greeting, Return
from ccidd import __version__
from ccidd.service.control.commands import REGISTRY, basics
from ccidd.service.control.context import Context
from ccidd.service.control.server import MAX_CLIENTS
from ccidd.service.service import Service
from ccidd.service.state import State
from control_client import CommandFailedError, controlled


async def test_the_server_greets_and_tells_its_version(
    service: Service, state: State, autojump_clock: MockClock
) -> None:
    async with controlled(service, state) as clients:
        client = clients.new()
        greeting = await client.begin()
        assert greeting.capabilities == ["agent"]
        assert greeting.version == await client.execute("query-version")
        assert greeting.version["package"] == f"ccidd {__version__}"


async def test_nothing_else_comes_before_the_negotiation(
    service: Service, state: State, autojump_clock: MockClock
) -> None:
    async with controlled(service, state) as clients:
        client = clients.new()
        assert isinstance(await client.receive(), Greeting)
        with pytest.raises(CommandFailedError, match="is to be qmp_capabilities") as refused:
            await client.execute("query-version")
        assert refused.value.error_class == "CommandNotFound"
        service.events.emit("STOPPING")
        with pytest.raises(CommandFailedError, match="does not have such a capability"):
            await client.execute("qmp_capabilities", enable=["oob"])
        with pytest.raises(CommandFailedError, match="is to be a list"):
            await client.execute("qmp_capabilities", enable="agent")
        assert await client.execute("qmp_capabilities", enable=["agent"]) == {}
        with pytest.raises(CommandFailedError, match="negotiated already") as again:
            await client.execute("qmp_capabilities")
        assert again.value.error_class == "CommandNotFound"
        await client.execute("query-version")
        assert not client.events


async def test_events_come_with_the_time_after_the_negotiation(
    service: Service, state: State, autojump_clock: MockClock
) -> None:
    async with controlled(service, state) as clients:
        client = await clients.begun()
        before = time.time()
        service.events.emit("CARD_INSERTED", reader="a", slot=1)
        event = await client.receive()
        assert isinstance(event, Event)
        assert (event.name, event.data) == ("CARD_INSERTED", {"reader": "a", "slot": 1})
        assert before - 1 < event.seconds + event.microseconds / 1e6 < time.time() + 1


async def test_commands_are_answered_in_their_order(
    service: Service, state: State, autojump_clock: MockClock
) -> None:
    async with controlled(service, state) as clients:
        client = await clients.begun()
        await client.stream.send_all(
            b"{'execute':'query-version','id':'a'}{'execute':'nonsense','id':null}{]"
            b"{'execute':'query-version'}{'exec-oob':'query-version','id':[1]}"
        )
        answers = [await client.receive() for _ in range(5)]
        kinds = [type(answer) for answer in answers]
        assert kinds == [Return, Error, Error, Return, Error]
        assert [json.dumps(getattr(answer, "id", None), default=str) for answer in answers] == [
            '"a"',
            "null",
            '"NoId.NO_ID"',
            '"NoId.NO_ID"',
            "[1]",
        ]


async def test_a_client_that_sends_a_byte_at_a_time_is_served(
    service: Service, state: State, autojump_clock: MockClock
) -> None:
    async with controlled(service, state) as clients:
        client = await clients.begun()
        for byte in b"{'execute': 'query-version'}":
            await client.stream.send_all(bytes([byte]))
            await wait_all_tasks_blocked()
        assert isinstance(await client.receive(), Return)


async def test_a_client_that_half_closes_gets_all_its_answers(
    service: Service, state: State, autojump_clock: MockClock
) -> None:
    async with controlled(service, state) as clients:
        client = await clients.begun()
        await client.stream.send_all(b"{'execute':'query-version'}" * 3)
        assert isinstance(client.stream, trio.StapledStream)
        await client.stream.send_eof()
        assert [type(await client.receive()) for _ in range(4)] == [
            *([Return] * 3),
            ConnectionClosed,
        ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{'execute':'" + b"x" * 70000, "a text of more than 65536 bytes"),
        (b"[" * 70, "more than 64 open brackets"),
    ],
)
async def test_what_is_too_much_ends_the_connection(
    service: Service, state: State, autojump_clock: MockClock, data: bytes, reason: str
) -> None:
    async with controlled(service, state) as clients:
        client = await clients.begun()
        with capture_logs() as logs:
            await client.stream.send_all(data)
            error = await client.receive()
            assert isinstance(error, Error)
            assert reason in error.description
            assert await client.receive() == ConnectionClosed()
        assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
            "control_protocol_error"
        ]
        await (await clients.begun()).execute("query-version")


@given(st.lists(st.binary(max_size=40)))
def test_arbitrary_bytes_harm_nobody(pieces: list[bytes]) -> None:
    async def main() -> None:
        service = Service(stays=True)
        async with controlled(service, None) as clients:  # type: ignore[arg-type]
            client = clients.new()
            for piece in pieces:
                if piece:
                    await client.stream.send_all(piece)
            await client.stream.aclose()
            await (await clients.begun()).execute("query-version")

    with capture_logs() as logs:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert not [entry for entry in logs if entry["log_level"] == "error"]


# Clients that do not read.


async def test_a_client_that_does_not_read_loses_the_oldest_events_and_is_told(
    service: Service, state: State, autojump_clock: MockClock
) -> None:
    async with controlled(service, state) as clients:
        slow, quick = clients.new(holds_back=True), await clients.begun()
        await slow.begin()
        service.events.emit("CARD_INSERTED", reader="a", slot=0)
        await wait_all_tasks_blocked()
        for number in range(1, 1000):
            service.events.emit("CARD_INSERTED", reader="a", slot=number)
            if number % 100 == 0:
                await wait_all_tasks_blocked()
        told = [await slow.event("CARD_INSERTED")]
        lost = await slow.event("EVENTS_LOST")
        told += [await slow.event("CARD_INSERTED") for _ in range(256)]
        assert [event["slot"] for event in told] == [0, *range(1000 - 256, 1000)]
        assert lost == {"count": 1000 - 256 - 1}
        everything = [await quick.event("CARD_INSERTED") for _ in range(1000)]
        assert [event["slot"] for event in everything] == list(range(1000))


async def test_a_client_that_does_not_read_has_one_command_executed_at_a_time(
    service: Service, state: State, autojump_clock: MockClock
) -> None:
    async with controlled(service, state) as clients:
        slow = clients.new(holds_back=True)
        await slow.begin()
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await slow.stream.send_all(b"{'execute':'query-version'}" * 100)
                sent += 100

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await wait_all_tasks_blocked()
            assert sent <= 1000
            await (await clients.begun()).execute("query-version")
            nursery.cancel_scope.cancel()


async def test_a_client_that_goes_while_it_is_told_something_harms_nobody(
    service: Service, state: State, autojump_clock: MockClock
) -> None:
    async with controlled(service, state) as clients:
        with capture_logs() as logs:
            for farewell in (b"", b"{'execute':'query-schema'}", b"[" * 100):
                client = clients.new(holds_back=True)
                await client.begin()
                service.events.emit("CARD_INSERTED", reader="a", slot=0)
                with trio.move_on_after(1):
                    await client.stream.send_all(farewell)
                await client.stream.aclose()
                await wait_all_tasks_blocked()
        assert not clients.socket.sessions
        assert not [entry for entry in logs if entry["log_level"] == "error"]


async def test_more_clients_than_a_socket_takes_are_told_so(
    service: Service, state: State, autojump_clock: MockClock
) -> None:
    async with controlled(service, state) as clients:
        taken = [await clients.begun() for _ in range(MAX_CLIENTS)]
        refused = clients.new()
        error = await refused.receive()
        assert isinstance(error, Error)
        assert "16 clients are connected" in error.description
        assert await refused.receive() == ConnectionClosed()
        await taken[3].stream.aclose()
        await wait_all_tasks_blocked()
        await (await clients.begun()).execute("query-version")


async def test_those_who_do_nothing_make_room_for_those_who_do(
    service: Service, state: State, autojump_clock: MockClock
) -> None:
    async with controlled(service, state) as clients:
        idle = [clients.new() for _ in range(MAX_CLIENTS)]
        await trio.sleep(9)
        assert isinstance(await clients.new().receive(), Error)
        await trio.sleep(2)
        busy = [await clients.begun() for _ in range(MAX_CLIENTS)]
        for client in idle:
            assert isinstance(await client.receive(), Greeting)
            assert await client.receive() == ConnectionClosed()
        for client in busy:
            await client.execute("query-version")
        assert isinstance(await clients.new().receive(), Error)
        assert len(clients.socket.sessions) == MAX_CLIENTS


# Faults and the end.


@pytest.mark.parametrize("error", [OSError(28, "disk full"), sqlite3.OperationalError("disk full")])
async def test_what_a_disk_does_not_allow_is_told(
    service: Service,
    state: State,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    async def handler(_context: Context) -> None:
        raise error

    monkeypatch.setitem(
        REGISTRY.commands, "query-version", replace(basics.query_version, handler=handler)
    )
    async with controlled(service, state) as clients:
        client = await clients.begun()
        with (
            capture_logs() as logs,
            pytest.raises(CommandFailedError, match=r"this cannot be done: .*disk full"),
        ):
            await client.execute("query-version")
        assert [entry["event"] for entry in logs] == ["control_command_failed"]


async def test_a_fault_of_ours_costs_one_command_its_result(
    service: Service, state: State, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(_context: Context) -> None:
        raise ZeroDivisionError("12345")

    faulty = replace(basics.query_version, handler=handler)
    monkeypatch.setitem(REGISTRY.commands, "query-version", faulty)
    async with controlled(service, state) as clients:
        client = await clients.begun()
        with capture_logs() as logs:
            with pytest.raises(CommandFailedError, match="ccidd has failed at this") as failed:
                await client.execute("query-version")
            assert "12345" not in str(failed.value)
        assert logs[0]["event"] == "control_command_fault"
        await client.execute("query-status")


async def test_what_happens_at_the_end_is_told_before_it(
    service: Service, state: State, autojump_clock: MockClock
) -> None:
    async with controlled(service, state) as clients:
        client, watcher, deaf = (
            await clients.begun(),
            await clients.begun(),
            clients.new(holds_back=True),
        )
        await deaf.begin()
        assert await client.execute("quit") == {}
        await service.wait_until_over()
        await wait_all_tasks_blocked()
        start = trio.current_time()
        await clients.server.settle()
        assert trio.current_time() - start <= 1
        assert await watcher.event("STOPPING") == {}
