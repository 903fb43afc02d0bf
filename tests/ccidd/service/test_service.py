# SPDX-License-Identifier: Apache-2.0
"""A service whose readers are traced and counted while they are served."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ccidd.errors import UserError
from ccidd.service.configuration import Configuration, ReaderConfiguration
from ccidd.service.events import Events
from ccidd.service.opening import ReaderOpener
from ccidd.service.requests import Requests
from ccidd.service.service import Service
from ccidd.service.state import State
from qemu_peer import QemuPeer

GET_DISCOVERY = bytes.fromhex("00CB3FFF035C017E")


@asynccontextmanager
async def running(service: Service) -> AsyncGenerator[None]:
    service.listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        with trio.fail_after(30):
            yield
        service.quit()


@pytest.fixture
def service(state: State, tmp_path: Path) -> Service:
    service = Service(ReaderOpener(state, Requests(Events())).open)
    reader = ReaderConfiguration(
        name="alice", transport="vscard", socket_path=tmp_path / "socket", trace=tmp_path / "first"
    )
    service.open(Configuration((reader,)))
    return service


@asynccontextmanager
async def guest(socket: Path) -> AsyncGenerator[QemuPeer]:
    stream = await trio.open_unix_socket(f"{socket}")
    async with stream, trio.open_nursery() as nursery:
        peer = QemuPeer(stream)
        nursery.start_soon(peer.run)
        await peer.until(lambda: peer.atr)
        yield peer
        nursery.cancel_scope.cancel()


async def test_a_trace_begins_and_ends_while_a_guest_is_connected(
    service: Service, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    async with running(service), guest(tmp_path / "socket") as peer:
        alice = service.readers["alice"]
        with service.events.subscribe() as subscription:
            with pytest.raises(UserError, match="there is a trace already"):
                await alice.start_trace(second)
            await alice.stop_trace()
            await alice.start_trace(second)
            await peer.transmit(GET_DISCOVERY)
            await alice.stop_trace()
            events = [await subscription.next() for _ in range(3)]
    assert [event.name for event in events] == ["TRACE_STOPPED", "TRACE_STARTED", "TRACE_STOPPED"]
    assert events[1].data == {"reader": "alice", "file": str(second)}
    assert GET_DISCOVERY in second.read_bytes()
    assert GET_DISCOVERY not in (tmp_path / "first").read_bytes()


async def test_a_trace_ends_with_its_reader_and_is_whole(service: Service, tmp_path: Path) -> None:
    async with running(service):
        async with guest(tmp_path / "socket") as peer:
            await peer.transmit(GET_DISCOVERY)
        with service.events.subscribe() as subscription:
            await service.remove("alice")
            names = [(await subscription.next()).name for _ in range(4)]
    assert names[-2:] == ["TRACE_STOPPED", "READER_REMOVED"]
    assert GET_DISCOVERY in (tmp_path / "first").read_bytes()


async def test_counts_go_with_a_reader_that_is_removed(service: Service, tmp_path: Path) -> None:
    async with running(service):
        async with guest(tmp_path / "socket"):
            assert service.statistics.readers["alice"].connections == 1
        await service.remove("alice")
        assert not service.statistics.readers


async def test_counts_stay_when_the_service_ends(service: Service, tmp_path: Path) -> None:
    async with running(service), guest(tmp_path / "socket"):
        pass
    assert service.statistics.readers["alice"].connections == 1


async def test_readers_that_come_and_go_are_told_of(service: Service, tmp_path: Path) -> None:
    counts = []
    async with running(service):
        service.changed = lambda: counts.append(len(service.readers))
        bob = ReaderConfiguration(name="bob", transport="vscard", socket_path=tmp_path / "bob")
        await service.add(bob)
        await service.remove("bob")
        assert counts == [2, 1]
