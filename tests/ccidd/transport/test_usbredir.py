# SPDX-License-Identifier: Apache-2.0
"""Connections with QEMU's usb-redir, played by an emulated one on the other end of a stream."""

import pytest
import trio
import trio.testing
from structlog.typing import EventDict

from cards import ScriptedCard, echo_card
from ccid_protocol import ccid
from ccid_protocol.ccid import GetSlotStatus, IccPowerOn, IccStatus, XfrBlock
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
    SetAltSetting,
    SetConfiguration,
    Speed,
    StartInterruptReceiving,
    StartIsoStream,
    Status,
    StopInterruptReceiving,
    StopIsoStream,
)
from usbredir_bench import OK, Plug, ask, held_card
from usbredir_peer import BULK_IN, INTERRUPT_IN, UsbredirPeer

SET_HALT, CLEAR_HALT = 3, 1


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


async def test_what_is_in_flight_is_answered_before_the_reader_goes(
    plug: Plug, autojump_clock: trio.testing.MockClock
) -> None:
    async def slow(command: bytes) -> bytes:
        await trio.sleep(0.5)
        return OK

    bench = await plug(ScriptedCard(slow))
    peer = await bench.configured()
    await ask(peer, IccPowerOn(0, 1))
    await peer.bulk_out(ccid.encode(XfrBlock(0, 2, bytes(4))))
    await peer.read()
    bench.slots[0].unplug()
    answer = ccid.decode_response((await peer.expect(BulkPacket)).data)
    assert isinstance(answer, ccid.DataBlock)
    assert answer.data == OK
    await peer.expect(DeviceDisconnect)


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
