# SPDX-License-Identifier: Apache-2.0
"""The guest of a usbredir session is migrated: another connection goes on with the session."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import trio
import trio.testing
from structlog.typing import EventDict

from cards import echo_card
from ccid_protocol import ccid
from ccid_protocol.ccid import GetSlotStatus, IccPowerOn, IccStatus, XfrBlock
from ccid_protocol.events import NeedData
from ccid_protocol.usbredir import (
    BulkPacket,
    ConfigurationStatus,
    Connection,
    DeviceConnect,
    GetConfiguration,
    InterruptPacket,
    Packet,
    Role,
    Session,
    SetConfiguration,
    StartInterruptReceiving,
)
from ccidd.transport import usbredir
from ccidd.transport.usbredir import RESUME_TIMEOUT
from usbredir_bench import Bench, Plug, ask, held_card
from usbredir_peer import BULK_IN, INTERRUPT_IN, UsbredirPeer


async def test_a_migrated_guest_gets_the_answer_that_it_waited_for(
    plug: Plug, held: trio.Event, autojump_clock: trio.testing.MockClock
) -> None:
    bench = await plug(held_card(held))
    before = await bench.configured()
    await before.listen()
    await ask(before, IccPowerOn(0, 1))
    await before.bulk_out(ccid.encode(XfrBlock(0, 2, bytes(4))))
    number = await before.read()
    await trio.testing.wait_all_tasks_blocked()
    await before.close()
    await trio.testing.wait_all_tasks_blocked()
    after = bench.connect(resumes=before.connection.session)
    await after.send(GetConfiguration(77))
    assert (await after.expect(ConfigurationStatus)).configuration == 1
    held.set()
    answer = await after.expect(BulkPacket)
    assert answer.id == number
    response = ccid.decode_response(answer.data)
    assert (response.seq, response.icc_status) == (2, IccStatus.ACTIVE)
    bench.slots[0].remove()
    assert await after.notification() == b"\x50\x02"


async def test_a_guest_that_comes_from_another_host_finds_its_cards_off(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    there, here = await plug(echo_card()), await plug(echo_card())
    before = await there.configured()
    await before.listen()
    await before.notification()
    await ask(before, IccPowerOn(0, 1))
    await before.close()
    after = here.connect(resumes=before.connection.session)
    await after.send(GetConfiguration(77))
    assert (await after.expect(ConfigurationStatus)).configuration == 1
    assert await after.notification() == b"\x50\x03"
    assert (await ask(after, GetSlotStatus(0, 2))).icc_status is IccStatus.INACTIVE


async def test_a_session_that_nobody_resumes_is_over(
    plug: Plug, logs: list[EventDict], autojump_clock: trio.testing.MockClock
) -> None:
    card = echo_card()
    bench = await plug(card)
    peer = await bench.configured()
    await ask(peer, IccPowerOn(0, 1))
    await trio.sleep(2 * RESUME_TIMEOUT)
    assert card.history == ["on"]
    await peer.close()
    await trio.sleep(RESUME_TIMEOUT - 1)
    assert card.history == ["on"]
    await trio.sleep(2)
    assert card.history == ["on", "off"]
    assert "session_over" in [entry["event"] for entry in logs]


async def waiting_for_a_card(bench: Bench) -> tuple[UsbredirPeer, int]:
    """Connects a guest that reads what a card is at work on; gives the id of its request."""
    peer = await bench.configured()
    await ask(peer, IccPowerOn(0, 1))
    await peer.bulk_out(ccid.encode(XfrBlock(0, 2, bytes(4))))
    number = await peer.read()
    await trio.testing.wait_all_tasks_blocked()
    return peer, number


@pytest.mark.parametrize("said", [b"", b"\0\0\0", b"VSCD" + bytes(60)])
async def test_a_stranger_between_two_connections_takes_nothing_from_the_session(
    plug: Plug, held: trio.Event, said: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    bench = await plug(held_card(held))
    before, number = await waiting_for_a_card(bench)
    await before.close()
    await trio.testing.wait_all_tasks_blocked()
    async with await bench.connect_raw() as stranger:
        await stranger.send_all(said)
        await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()
    after = bench.connect(resumes=before.connection.session)
    await after.send(GetConfiguration(77))
    held.set()
    answer = await after.expect(BulkPacket)
    assert (answer.id, ccid.decode_response(answer.data).seq) == (number, 2)


async def test_strangers_do_not_keep_a_session_that_nobody_resumes(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    card = echo_card()
    bench = await plug(card)
    peer = await bench.configured()
    await ask(peer, IccPowerOn(0, 1))
    await peer.close()
    for _ in range(4):
        await trio.sleep(RESUME_TIMEOUT / 3)
        async with await bench.connect_raw():
            await trio.testing.wait_all_tasks_blocked()
    assert card.history == ["on", "off"]


@pytest.mark.parametrize("is_broken", [False, True])
async def test_what_a_lost_guest_waited_for_is_not_given_to_another(
    plug: Plug, held: trio.Event, autojump_clock: trio.testing.MockClock, *, is_broken: bool
) -> None:
    bench = await plug(held_card(held))
    lost, _number = await waiting_for_a_card(bench)
    session = lost.connection.session
    if is_broken:
        await lost.write(b"\xff" * 16)
        await lost.until(lambda: lost.closed)
    else:
        await lost.close()
        await trio.sleep(2 * RESUME_TIMEOUT)
    # One that is migrated from another host.
    other = bench.connect(
        resumes=replace(session, requests=(), receiving=frozenset({INTERRUPT_IN}))
    )
    await other.send(GetConfiguration(77))
    assert (await ask(other, GetSlotStatus(0, 9))).seq == 9


async def test_another_guest_finds_a_card_without_power(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    card = echo_card()
    bench = await plug(card)
    peer = await bench.configured()
    await ask(peer, IccPowerOn(0, 1))
    await peer.bulk_out(ccid.encode(GetSlotStatus(0, 2)))
    await peer.close()
    other = bench.connect()
    await other.expect(DeviceConnect)
    await trio.testing.wait_all_tasks_blocked()
    assert card.history == ["on", "off"]
    await other.send(SetConfiguration(1, 1))
    # Nothing is left of what the first did not read.
    assert (await ask(other, GetSlotStatus(0, 9))).seq == 9


# Over a Unix socket, as QEMU has it, and in real time.


class Qemu:
    """What QEMU's parser makes of what it reads."""

    def __init__(self, stream: trio.SocketStream, session: Session | None = None) -> None:
        self.stream = stream
        self.connection = Connection(Role.GUEST, previous=session)
        self._to_ignore = 0
        if session is not None:
            self.connection.resume()
            self._to_ignore = 84

    async def say(self, packet: Packet) -> None:
        await self.stream.send_all(self.connection.send(packet))

    async def hears(self, kind: type[Packet]) -> Packet:
        with trio.fail_after(10):
            while True:
                event = self.connection.next_event()
                if isinstance(event, kind):
                    return event
                if isinstance(event, NeedData):
                    data = bytes(await self.stream.receive_some(4096))
                    assert data
                    ignored = min(self._to_ignore, len(data))
                    self._to_ignore -= ignored
                    if data[ignored:]:
                        self.connection.receive_data(data[ignored:])

    async def close(self) -> None:
        await self.stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)

    async def plug_in(self) -> None:
        await self.say(self.connection.hello)
        await self.hears(DeviceConnect)
        await self.say(SetConfiguration(1, 1))
        await self.hears(ConfigurationStatus)


ConnectQemu = Callable[..., Qemu]


@pytest.fixture
async def connect_qemu(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ConnectQemu]:
    """Connects QEMUs, each told from the others by its command line, before it is read."""
    async with AsyncExitStack() as stack:

        def connect(
            bench: Bench, session: Session | None = None, *, incoming: bool | None = None
        ) -> Qemu:
            is_incoming = session is not None if incoming is None else incoming
            arguments = ["qemu-system-x86_64", *(["-incoming"] if is_incoming else []), "defer"]
            monkeypatch.setattr(usbredir, "peer_arguments", lambda _socket: arguments)
            ours, theirs = trio.socket.socketpair()
            nursery.start_soon(bench._serve, trio.SocketStream(ours))
            stream = trio.SocketStream(theirs)
            stack.push_async_callback(stream.aclose)
            return Qemu(stream, session)

        yield connect


async def test_a_guest_that_goes_on_is_told_of_its_cards_before_it_says_a_word(
    plug: Plug, connect_qemu: ConnectQemu
) -> None:
    bench = await plug(echo_card())
    before = connect_qemu(bench)
    await before.plug_in()
    await before.say(StartInterruptReceiving(0, INTERRUPT_IN))
    await before.hears(InterruptPacket)
    await before.close()
    bench.slots[0].remove()
    after = connect_qemu(bench, before.connection.session)
    news = await after.hears(InterruptPacket)
    assert isinstance(news, InterruptPacket)
    assert news.data == b"\x50\x02"


@pytest.mark.parametrize("strangers", [0, 1])
async def test_an_answer_that_a_stopped_guest_has_not_read_comes_again(
    plug: Plug, connect_qemu: ConnectQemu, strangers: int
) -> None:
    bench = await plug(None)
    before = connect_qemu(bench)
    await before.plug_in()
    await before.say(BulkPacket(2, 0x01, data=ccid.encode(GetSlotStatus(0, 7))))
    await before.hears(BulkPacket)
    await before.say(BulkPacket(3, BULK_IN, 100))
    # It is stopped, and reads no more; its machine goes on elsewhere.
    await trio.testing.wait_all_tasks_blocked(0.05)
    session = before.connection.session
    await before.close()
    for _ in range(strangers):
        await connect_qemu(bench).close()
    after = connect_qemu(bench, session)
    answer = await after.hears(BulkPacket)
    assert isinstance(answer, BulkPacket)
    assert answer.id == 3
    assert ccid.decode_response(answer.data).seq == 7


@pytest.mark.parametrize("strangers", [0, 1])
async def test_a_guest_that_was_stopped_amid_a_long_answer_cannot_go_on(
    plug: Plug, logs: list[EventDict], connect_qemu: ConnectQemu, strangers: int
) -> None:
    bench = await plug(echo_card())
    before = connect_qemu(bench)
    await before.plug_in()
    for command in (IccPowerOn(0, 1), XfrBlock(0, 2, bytes([0, 0x10, 0x40, 0]))):
        await before.say(BulkPacket(2, 0x01, data=ccid.encode(command)))
        await before.hears(BulkPacket)
        await before.say(BulkPacket(3, BULK_IN, 65556))
        if isinstance(command, IccPowerOn):
            await before.hears(BulkPacket)
    await trio.testing.wait_all_tasks_blocked(0.05)
    await before.stream.receive_some(1000)
    session = before.connection.session
    await before.close()
    for _ in range(strangers):
        await connect_qemu(bench).close()
    after = connect_qemu(bench, session)
    with trio.fail_after(10):
        assert len(await after.stream.receive_some(1000)) == 80
        assert await after.stream.receive_some(1000) == b""
    assert "connection_failed" in [entry["event"] for entry in logs]


@pytest.mark.parametrize("incoming", [True, False])
async def test_a_fresh_guest_that_is_paused_at_first_is_plugged_in(
    plug: Plug, connect_qemu: ConnectQemu, *, incoming: bool
) -> None:
    bench = await plug(echo_card())
    qemu = connect_qemu(bench, incoming=incoming)
    await trio.sleep(0.3)
    await qemu.plug_in()
    assert bench.device.configuration == 1
