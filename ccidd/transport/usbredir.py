# SPDX-License-Identifier: Apache-2.0
"""The front door `usbredir`: the reader as a USB device for QEMU's usb-redir.

One connection carries the whole device, as `ccid_protocol.usbredir` describes. The reader outlives
it: a virtual machine that was migrated here goes on where it was.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio

from ccid_protocol import usbredir
from ccid_protocol.errors import RemoteProtocolError
from ccid_protocol.events import ConnectionClosed, NeedData
from ccid_protocol.usb import SetupPacket
from ccid_protocol.usbredir import (
    AltSettingStatus,
    BulkPacket,
    Cancelled,
    ConfigurationStatus,
    ControlPacket,
    DeviceConnect,
    DeviceDisconnect,
    Endpoint,
    EndpointType,
    EpInfo,
    FilterReject,
    GetAltSetting,
    GetConfiguration,
    Hello,
    Interface,
    InterfaceInfo,
    InterruptPacket,
    InterruptReceivingStatus,
    Reset,
    Resumed,
    SetAltSetting,
    SetConfiguration,
    Speed,
    StartInterruptReceiving,
    Status,
    StopInterruptReceiving,
    is_in,
)
from ccidd.reader.slot import Slot
from ccidd.reader.usb_reader import BULK_IN, BULK_OUT, INTERFACE, INTERRUPT_IN, UsbReader

log: structlog.stdlib.BoundLogger = structlog.get_logger()

DISCONNECT_TIMEOUT: Final = 1.0
"""Seconds that QEMU has to acknowledge that the device is gone."""

MAX_UNSENT: Final = 1 << 20
"""Bytes that may wait to be written before no more are read from the peer."""

_RECEIVE_SIZE: Final = 65536


async def serve_usbredir(stream: trio.abc.Stream, device: UsbReader, slots: Sequence[Slot]) -> bool:
    """Serves a connection until QEMU closes it, breaks it, or the reader is unplugged.

    Args:
        stream: the connection, which the caller closes.
        device: the reader, whose `run` the caller has started.
        slots: its slots.

    Returns:
        Whether the peer spoke usbredir at all.
    """
    session = _Session(stream, device)
    try:
        await session.run(slots)
    except* RemoteProtocolError as errors:
        log.warning("connection_failed", reason="; ".join(map(str, errors.exceptions)))
    except* trio.BrokenResourceError:
        # QEMU closes so where it has not read all: when it is killed, or the device is unplugged.
        log.info("connection_closed", unread=True)
    else:
        log.info("connection_closed")
    finally:
        session.detach()
    return session.is_open


class _Session:
    """One connection. A task reads and decides, one writes, one waits for the end."""

    def __init__(self, stream: trio.abc.Stream, device: UsbReader) -> None:
        self._stream = stream
        self._device = device
        self._connection = usbredir.Connection(usbredir.Role.DEVICE)
        self._unsent = bytearray()
        self._reads: deque[BulkPacket] = deque()
        self._progress = trio.Event()
        device.wake = self._announce_progress

    @property
    def is_open(self) -> bool:
        return self._connection.is_open

    def detach(self) -> None:
        """Leaves the device to the next connection."""
        self._device.wake = _nobody_listens

    async def run(self, slots: Sequence[Slot]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, nursery.cancel_scope)
            nursery.start_soon(self._write)
            for slot in slots:
                await slot.wait_until_unplugged()
            await self._leave()
            nursery.cancel_scope.cancel()

    async def _leave(self) -> None:
        """Unplugs the device, and gives what is written before time to arrive."""
        if self._connection.is_connected:
            self._send(DeviceDisconnect())
        with trio.move_on_after(DISCONNECT_TIMEOUT):
            await self._until(lambda: not self._unsent)

    # Reading. What the device answers at once is put behind what is to be written.

    async def _receive(self, session: trio.CancelScope) -> None:
        while True:
            self._connection.receive_data(bytes(await self._stream.receive_some(_RECEIVE_SIZE)))
            await self._until(lambda: len(self._unsent) < MAX_UNSENT)
            while not isinstance(event := self._connection.next_event(), NeedData):
                if isinstance(event, ConnectionClosed):
                    session.cancel()
                    return
                self._take(event)
            self._announce_progress()

    def _take(self, event: usbredir.Event) -> None:
        match event:
            case Hello():
                self._send(self._connection.hello)
                self._announce_device()
            case Resumed():
                log.info("session_resumed")
            case Reset():
                self._reads.clear()
                self._device.reset()
            case Cancelled():
                self._cancel(event)
            case FilterReject():
                log.warning("device_rejected", hint="QEMU's usb-redir says why in its own log")
            case ControlPacket():
                self._control(event)
            case BulkPacket():
                self._bulk(event)
            case StartInterruptReceiving(id=request, endpoint=endpoint):
                status = Status.SUCCESS if endpoint == INTERRUPT_IN else Status.STALL
                self._send(InterruptReceivingStatus(request, status, endpoint))
                self._device.restart_interrupt_in()
            case StopInterruptReceiving(id=request, endpoint=endpoint):
                self._send(InterruptReceivingStatus(request, Status.SUCCESS, endpoint))
            case _:
                self._take_setting(event)

    def _take_setting(self, event: usbredir.Event) -> None:
        device = self._device
        match event:
            case SetConfiguration(id=request, configuration=value):
                done = device.set_configuration(value)
                self._announce_tables()
                status = Status.SUCCESS if done else Status.STALL
                self._send(ConfigurationStatus(request, status, device.configuration))
            case GetConfiguration(id=request):
                self._send(ConfigurationStatus(request, Status.SUCCESS, device.configuration))
            case SetAltSetting(id=request, interface=interface, alt=alt):
                done = device.set_interface(interface, alt)
                self._announce_tables()
                status = Status.SUCCESS if done else Status.STALL
                self._send(AltSettingStatus(request, status, interface, 0))
            case GetAltSetting(id=request, interface=interface):
                status = Status.SUCCESS if interface == INTERFACE else Status.STALL
                self._send(AltSettingStatus(request, status, interface, 0))
            case _:
                # Acknowledgements, filters, and streams that no endpoint of the device has: QEMU
                # sends those to no device that has not offered them.
                log.debug("packet_ignored", packet=type(event).__name__)

    def _announce_device(self) -> None:
        descriptor = self._device.device
        self._announce_tables()
        self._send(
            DeviceConnect(
                Speed.FULL,
                descriptor.device_class,
                descriptor.subclass,
                descriptor.protocol,
                descriptor.vendor_id,
                descriptor.product_id,
                descriptor.release,
            )
        )
        log.info("device_connected")

    def _announce_tables(self) -> None:
        interface = self._device.interface
        self._send(InterfaceInfo((Interface(interface.number, interface.interface_class),)))
        control = Endpoint(EndpointType.CONTROL, max_packet_size=64)
        endpoints = {0x00: control, 0x80: control}
        for endpoint in interface.endpoints:
            endpoints[endpoint.address] = Endpoint(
                EndpointType(endpoint.transfer_type),
                endpoint.interval,
                interface.number,
                endpoint.max_packet_size,
            )
        self._send(EpInfo(endpoints))

    def _control(self, request: ControlPacket) -> None:
        setup = SetupPacket(
            request.requesttype, request.request, request.value, request.index, request.length
        )
        answer = self._device.control(setup)
        if answer is None:
            self._send(request.answer(status=Status.STALL))
        else:
            self._send(request.answer(answer))

    def _bulk(self, request: BulkPacket) -> None:
        if is_in(request.endpoint):
            self._reads.append(request)
        else:
            taken = request.endpoint == BULK_OUT and self._device.write_bulk_out(request.data)
            self._send(request.answer(status=Status.SUCCESS if taken else Status.STALL))

    def _cancel(self, cancelled: Cancelled) -> None:
        self._reads = deque(request for request in self._reads if request.id != cancelled.id)
        if cancelled.answer is not None:
            self._send(cancelled.answer)
        if cancelled.lost is not None:
            self._device.unread_bulk_in(cancelled.lost.data)

    # Writing.

    async def _write(self) -> None:
        while True:
            self._answer_reads()
            self._notify()
            if not self._unsent:
                await self._progress.wait()
                continue
            unsent, self._unsent = bytes(self._unsent), bytearray()
            await self._stream.send_all(unsent)
            self._announce_progress()

    def _answer_reads(self) -> None:
        """Answers the reads that wait, oldest first, as far as there is something to read."""
        while self._reads:
            request = self._reads[0]
            if request.endpoint != BULK_IN or self._device.is_halted(BULK_IN):
                answer = request.answer(status=Status.STALL)
            elif (data := self._device.read_bulk_in(request.length)) is not None:
                answer = request.answer(data)
            else:
                return
            self._reads.popleft()
            self._send(answer)

    def _notify(self) -> None:
        if not self._connection.is_receiving(INTERRUPT_IN):
            return
        notification = self._device.read_interrupt_in()
        if notification is not None:
            self._send(InterruptPacket(INTERRUPT_IN, notification))

    def _send(self, packet: usbredir.Packet) -> None:
        """Puts a packet behind what is to be written."""
        self._unsent += self._connection.send(packet)
        self._announce_progress()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._progress.wait()

    def _announce_progress(self) -> None:
        self._progress.set()
        self._progress = trio.Event()


def _nobody_listens() -> None:
    """Takes the place of a connection's wake-up call when it is gone."""
