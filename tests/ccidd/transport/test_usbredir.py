# SPDX-License-Identifier: Apache-2.0
"""Connections with QEMU's usb-redir, played by an emulated one on the other end of a stream."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
import structlog
import trio
import trio.testing
from structlog.typing import EventDict

from cards import ScriptedCard, echo_card
from ccid_protocol import ccid
from ccid_protocol.ccid import GetSlotStatus, IccPowerOn, IccStatus, XfrBlock
from ccid_protocol.events import NeedData
from ccid_protocol.usb import SetupPacket
from ccid_protocol.usbredir import (
    DEVICE_CAPABILITIES,
    AltSettingStatus,
    BulkPacket,
    CancelDataPacket,
    ConfigurationStatus,
    Connection,
    DeviceConnect,
    DeviceDisconnect,
    EpInfo,
    FilterReject,
    GetAltSetting,
    GetConfiguration,
    InterfaceInfo,
    InterruptPacket,
    InterruptReceivingStatus,
    IsoStreamStatus,
    Packet,
    Reset,
    Role,
    Session,
    SetAltSetting,
    SetConfiguration,
    Speed,
    StartInterruptReceiving,
    StartIsoStream,
    Status,
    StopInterruptReceiving,
    StopIsoStream,
)
from ccidd.card.card import Card
from ccidd.reader.profile import default_profile
from ccidd.reader.slot import Slot
from ccidd.reader.usb_reader import UsbReader
from ccidd.transport import usbredir
from ccidd.transport.usbredir import RESUME_TIMEOUT, UsbredirPort
from usbredir_peer import BULK_IN, INTERRUPT_IN, UsbredirPeer

OK = b"\x90\x00"
SET_HALT, CLEAR_HALT = 3, 1


class Bench:
    """A reader at a port, and the connections that emulated QEMUs have to it."""

    def __init__(self, nursery: trio.Nursery, slots: list[Slot]) -> None:
        self._nursery = nursery
        self.slots = slots
        self.device = UsbReader(slots, default_profile(len(slots), "1"))
        self.port = UsbredirPort(self.device, slots)
        self.spoke: list[bool] = []
        nursery.start_soon(self.port.run)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            self.spoke.append(await self.port.serve(stream))

    def connect(self, *, resumes: Session | None = None) -> UsbredirPeer:
        ours, theirs = trio.testing.memory_stream_pair()
        peer = UsbredirPeer(theirs, resumes)
        self._nursery.start_soon(self._serve, ours)
        self._nursery.start_soon(peer.run)
        return peer

    async def configured(self) -> UsbredirPeer:
        return await self.connect().configure()

    async def connect_raw(self) -> trio.abc.Stream:
        """Connects, for a test that writes bytes itself."""
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, ours)
        return theirs


Plug = Callable[..., Awaitable[Bench]]


@pytest.fixture
def plug(nursery: trio.Nursery) -> Plug:
    async def plug(*cards: Card | None) -> Bench:
        bench = Bench(nursery, [Slot(card) for card in cards])
        await trio.testing.wait_all_tasks_blocked()
        return bench

    return plug


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def held() -> trio.Event:
    """What a `held_card` waits for."""
    return trio.Event()


def held_card(event: trio.Event) -> ScriptedCard:
    async def answer(command: bytes) -> bytes:
        await event.wait()
        return OK

    return ScriptedCard(answer)


async def ask(peer: UsbredirPeer, command: ccid.Command) -> ccid.Response:
    assert await peer.bulk_out(ccid.encode(command)) == Status.SUCCESS
    return ccid.decode_response(await peer.bulk_in())


def halt(request: int, endpoint: int) -> SetupPacket:
    return SetupPacket(0x02, request, 0, endpoint)


# The session.


async def test_the_device_comes_with_its_tables_at_full_speed(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    peer = (await plug(echo_card())).connect()
    interfaces = await peer.expect(InterfaceInfo)
    endpoints = await peer.expect(EpInfo)
    device = await peer.expect(DeviceConnect)
    assert peer.connection.capabilities == DEVICE_CAPABILITIES
    assert [i.interface_class for i in interfaces.interfaces] == [0x0B]
    assert set(endpoints.endpoints) == {0x00, 0x80, 0x01, 0x82, 0x83}
    assert (device.speed, device.vendor_id, device.product_id) == (Speed.FULL, 0x0E0F, 0x0004)


async def test_a_card_is_used_over_the_wire(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    peer = await (await plug(echo_card())).configured()
    assert (await ask(peer, IccPowerOn(0, 1))).icc_status is IccStatus.ACTIVE
    answer = await ask(peer, XfrBlock(0, 2, bytes([0, 0x10, 0x10, 0])))
    assert isinstance(answer, ccid.DataBlock)
    assert len(answer.data) == 0x1000


async def test_nothing_is_said_before_the_guest_says_hello(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    stream = await (await plug(echo_card())).connect_raw()
    with trio.move_on_after(1000) as waiting:
        await stream.receive_some(1)
    assert waiting.cancelled_caught


async def test_a_peer_that_speaks_something_else_is_let_go(
    plug: Plug, logs: list[EventDict], autojump_clock: trio.testing.MockClock
) -> None:
    bench = await plug(echo_card())
    stream = await bench.connect_raw()
    await stream.send_all(b"VSCD" + bytes(60))
    assert await stream.receive_some(1) == b""
    failed = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["event"] for entry in failed] == ["connection_failed"]
    assert (await bench.configured()) is not None


async def test_a_device_that_the_guest_rejects_is_logged(
    plug: Plug, logs: list[EventDict], autojump_clock: trio.testing.MockClock
) -> None:
    peer = await (await plug(echo_card())).configured()
    await peer.send(FilterReject())
    await trio.testing.wait_all_tasks_blocked()
    assert "device_rejected" in [entry["event"] for entry in logs]


async def test_unplugging_disconnects_the_device_and_ends_the_connection(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    bench = await plug(echo_card())
    peer = await bench.configured()
    bench.slots[0].unplug()
    await peer.expect(DeviceDisconnect)
    await peer.until(lambda: peer.closed)
    assert bench.spoke == [True]


async def test_a_read_that_waits_is_not_answered_when_the_reader_has_gone(
    plug: Plug, held: trio.Event, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    bench = await plug(held_card(held))
    ours, theirs = trio.testing.memory_stream_pair()
    peer = UsbredirPeer(theirs)
    nursery.start_soon(bench._serve, ours)
    nursery.start_soon(peer.run)
    await peer.configure()
    await ask(peer, IccPowerOn(0, 1))
    await peer.bulk_out(ccid.encode(XfrBlock(0, 2, bytes(4))))
    await peer.read()
    await trio.testing.wait_all_tasks_blocked()
    arrive = ours.send_stream.send_all_hook
    assert arrive is not None

    async def arrive_late() -> None:
        await trio.sleep(0.5)
        await arrive()

    ours.send_stream.send_all_hook = arrive_late
    bench.slots[0].unplug()
    # While that is on its way, the card answers.
    held.set()
    await peer.expect(DeviceDisconnect)
    await peer.until(lambda: peer.closed)
    assert peer.nothing_came()
    assert bench.spoke == [True]


# Configurations and settings.


async def test_configurations_and_settings_are_chosen_and_told(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    peer = (await plug(echo_card())).connect()
    await peer.expect(DeviceConnect)
    requests: list[tuple[Packet, Packet]] = [
        (GetConfiguration(1), ConfigurationStatus(1, Status.SUCCESS, 0)),
        (GetAltSetting(2, 0), AltSettingStatus(2, Status.STALL, 0, 0)),
        (SetAltSetting(3, 0, 0), AltSettingStatus(3, Status.STALL, 0, 0)),
        (SetConfiguration(4, 2), ConfigurationStatus(4, Status.STALL, 0)),
        (SetConfiguration(5, 1), ConfigurationStatus(5, Status.SUCCESS, 1)),
        (GetConfiguration(6), ConfigurationStatus(6, Status.SUCCESS, 1)),
        (GetAltSetting(7, 0), AltSettingStatus(7, Status.SUCCESS, 0, 0)),
        (GetAltSetting(8, 1), AltSettingStatus(8, Status.STALL, 1, 0)),
        (SetAltSetting(9, 0, 0), AltSettingStatus(9, Status.SUCCESS, 0, 0)),
        (SetAltSetting(10, 0, 1), AltSettingStatus(10, Status.STALL, 0, 0)),
        (SetConfiguration(11, 0), ConfigurationStatus(11, Status.SUCCESS, 0)),
    ]
    for request, answer in requests:
        await peer.send(request)
        assert await peer.expect(type(answer)) == answer


async def test_a_reset_takes_the_configuration_and_the_power(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    card = echo_card()
    peer = await (await plug(card)).configured()
    await ask(peer, IccPowerOn(0, 1))
    await peer.send(Reset())
    await peer.send(GetConfiguration(1))
    assert (await peer.expect(ConfigurationStatus)).configuration == 0
    await trio.testing.wait_all_tasks_blocked()
    assert card.history == ["on", "off"]


# Bulk transfers.


async def test_reads_wait_and_are_answered_in_their_order(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    peer = await (await plug(None)).configured()
    numbers = [await peer.read() for _ in range(3)]
    for seq in range(3):
        await peer.send(BulkPacket(seq, 0x01, data=ccid.encode(GetSlotStatus(0, seq))))
    answers = [p for _ in range(6) if (p := await peer.expect(BulkPacket)).endpoint == BULK_IN]
    assert [answer.id for answer in answers] == numbers
    assert [answer.data[6] for answer in answers] == [0, 1, 2]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_what_a_cancelled_read_got_is_read_again_in_its_order(
    plug: Plug, order: tuple[int, ...], autojump_clock: trio.testing.MockClock
) -> None:
    peer = await (await plug(echo_card())).configured()
    await ask(peer, IccPowerOn(0, 1))
    await peer.bulk_out(ccid.encode(XfrBlock(0, 2, bytes([0, 0x10, 0, 150]))))
    await peer.bulk_out(ccid.encode(GetSlotStatus(0, 3)))
    message = await peer.bulk_in(64)
    numbers = [await peer.read(64) for _ in range(3)]
    await trio.testing.wait_all_tasks_blocked()
    # The guest's cancels cross the answers.
    codec = Connection(Role.GUEST, previous=peer.connection.session)
    codec.resume()
    for number in numbers:
        codec.send(BulkPacket(number, BULK_IN, 64))
    await peer.write(b"".join(codec.send(CancelDataPacket(numbers[i])) for i in order))
    await trio.testing.wait_all_tasks_blocked()
    for _ in numbers:
        await peer.expect(BulkPacket)
    rest, second = await peer.bulk_in(), await peer.bulk_in()
    answer = ccid.decode_response(message + rest)
    assert isinstance(answer, ccid.DataBlock)
    assert len(answer.data) == 150
    assert ccid.decode_response(second).seq == 3


async def test_a_read_that_waits_is_cancelled_and_loses_nothing(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    peer = await (await plug(None)).configured()
    number = await peer.read()
    await peer.send(CancelDataPacket(number))
    answer = await peer.expect(BulkPacket)
    assert (answer.id, answer.status, answer.data) == (number, Status.CANCELLED, b"")
    assert (await ask(peer, GetSlotStatus(0, 1))).seq == 1


async def test_a_read_of_an_endpoint_that_is_not_there_does_not_wait(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    peer = await (await plug(None)).configured()
    await peer.read()
    number = await peer.read(endpoint=0x84)
    answer = await peer.expect(BulkPacket)
    assert (answer.id, answer.status) == (number, Status.STALL)


async def test_a_halted_endpoint_stalls_until_it_is_cleared(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    peer = await (await plug(None)).configured()
    await peer.bulk_out(ccid.encode(GetSlotStatus(0, 1)))
    await peer.control(halt(SET_HALT, BULK_IN))
    await peer.read()
    assert (await peer.expect(BulkPacket)).status == Status.STALL
    await peer.control(halt(CLEAR_HALT, BULK_IN))
    assert ccid.decode_response(await peer.bulk_in()).seq == 1


# Interrupts.


async def test_notifications_wait_until_somebody_listens(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    bench = await plug(None, echo_card())
    peer = await bench.configured()
    await trio.testing.wait_all_tasks_blocked()
    assert peer.nothing_came()
    await peer.listen()
    assert await peer.notification() == b"\x50\x0c"
    bench.slots[0].insert(echo_card())
    assert await peer.notification() == b"\x50\x07"


async def test_what_is_lost_in_a_stop_is_told_again_and_once(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    peer = await (await plug(echo_card())).configured()
    await peer.listen()
    assert await peer.notification() == b"\x50\x03"
    await peer.send(StopInterruptReceiving(0, INTERRUPT_IN))
    await peer.listen()
    assert await peer.notification() == b"\x50\x03"
    await ask(peer, GetSlotStatus(0, 1))
    await peer.send(StopInterruptReceiving(0, INTERRUPT_IN))
    await peer.listen()
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(2):
        await peer.expect(InterruptReceivingStatus)
    assert peer.nothing_came()


async def test_a_halted_interrupt_endpoint_stops_and_goes_on_where_it_was(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    bench = await plug(echo_card())
    peer = await bench.configured()
    await peer.listen()
    await peer.notification()
    await ask(peer, GetSlotStatus(0, 1))
    await peer.control(halt(SET_HALT, INTERRUPT_IN))
    news = await peer.expect(InterruptReceivingStatus)
    assert (news.id, news.status) == (0, Status.STALL)
    bench.slots[0].remove()
    await peer.listen()
    assert (await peer.expect(InterruptReceivingStatus)).status == Status.STALL
    await peer.control(halt(CLEAR_HALT, INTERRUPT_IN))
    await peer.listen()
    assert await peer.notification() == b"\x50\x02"


# What the device does not have.


async def test_what_the_device_does_not_have_is_refused(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    peer = await (await plug(None)).configured()
    refused: list[tuple[Packet, Packet]] = [
        (StartIsoStream(1, 0x84, 8, 4), IsoStreamStatus(1, Status.STALL, 0x84)),
        (StopIsoStream(2, 0x84), IsoStreamStatus(2, Status.SUCCESS, 0x84)),
        (InterruptPacket(0x05, b"x", 3), InterruptPacket(0x05, b"", 3, 0, Status.STALL)),
        (StartInterruptReceiving(4, 0x85), InterruptReceivingStatus(4, Status.STALL, 0x85)),
    ]
    for request, answer in refused:
        await peer.send(request)
        assert await peer.expect(type(answer)) == answer


async def test_control_transfers_have_endpoint_zero_alone(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    peer = await (await plug(None)).configured()
    packet = peer.control_packet(SetupPacket(0x80, 8, 0, 0, 1))
    assert await peer.control(SetupPacket(0x80, 8, 0, 0, 1)) == b"\x01"
    await peer.send(type(packet)(packet.id, 0x81, 8, 0x80, 0, 0, 1))
    answer = await peer.expect(type(packet))
    assert answer.status == Status.STALL


# Migration: another connection goes on with the session.


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


async def test_an_answer_that_a_stopped_guest_has_not_read_comes_again(
    plug: Plug, connect_qemu: ConnectQemu
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
    after = connect_qemu(bench, session)
    answer = await after.hears(BulkPacket)
    assert isinstance(answer, BulkPacket)
    assert answer.id == 3
    assert ccid.decode_response(answer.data).seq == 7


async def test_a_guest_that_was_stopped_amid_a_long_answer_cannot_go_on(
    plug: Plug, logs: list[EventDict], connect_qemu: ConnectQemu
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
