# SPDX-License-Identifier: Apache-2.0
"""The front door `usbredir`: the reader as a USB device for QEMU's usb-redir.

One connection carries the whole device, as `ccid_protocol.usbredir` describes. A virtual machine
that is migrated goes on over another connection in the middle of its session, so what it waits for,
and the cards' power, outlive a connection for a while.

A QEMU that goes on says nothing by itself, and neither does one that waits for its migration, or is
fresh and paused. To one that was started for a migration (-incoming) our hello is said first, which
is good for all three: a paused QEMU does not read it, and a fresh one that runs has said its own
before it does. One that has read it in silence goes on. That it was read can be seen on a Unix
socket alone (unix(7), SIOCOUTQ); elsewhere its first packet is waited for.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog
import trio

from ccid_protocol import usbredir
from ccid_protocol.errors import RemoteProtocolError
from ccid_protocol.events import ConnectionClosed, NeedData
from ccid_protocol.usb import SetupPacket
from ccid_protocol.usbredir import (
    MAX_REMEMBERED,
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
    IsoStreamStatus,
    Reset,
    Resumed,
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
from ccidd.reader.bulk_in import Piece
from ccidd.reader.slot import Slot
from ccidd.reader.usb_reader import BULK_IN, BULK_OUT, INTERRUPT_IN, UsbReader
from ccidd.transport.sockets import can_read, has_unread, peer_arguments, write_now

log: structlog.stdlib.BoundLogger = structlog.get_logger()

LEAVE_TIMEOUT: Final = 1.5
"""Seconds that commands and their answers have when the reader is unplugged."""

RESUME_TIMEOUT: Final = 30.0
"""Seconds after a connection in which a migrated virtual machine can go on with its session."""

MAX_UNSENT: Final = 1 << 20
"""Bytes that may wait to be written before no more are read from the peer."""

_RECEIVE_SIZE: Final = 65536

_QEMU_READ_SIZE: Final = 4096
_MAX_OVERHEAD: Final = 32
"""Bytes of a packet beside its data, and some more."""

_FIRST_LOOK: Final = 0.02
_LAST_LOOK: Final = 1.0
"""Seconds between two looks at whether our hello was read: the first, and after many."""


_INCOMING: Final = {"-incoming", "--incoming"}
"""The option of a QEMU that waits for a migration."""

_UNKNOWN_SESSION: Final = Session(receiving=frozenset({INTERRUPT_IN}))
"""That of a virtual machine that comes from another host. QEMU does not repeat that it listens, and
drops what it did not ask for."""


class UsbredirPort:
    """Where the reader is plugged in, for one connection after the other.

    Args:
        device: the reader.
        slots: its slots.
    """

    def __init__(self, device: UsbReader, slots: Sequence[Slot]) -> None:
        self._device = device
        self._slots = slots
        self._session: Session | None = _UNKNOWN_SESSION
        self._deadline = math.inf
        self._changed = trio.Event()

    async def run(self) -> None:
        """Runs the reader until it is cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._device.run)
            while True:
                with trio.move_on_at(self._deadline):
                    await self._changed.wait()
                if trio.current_time() >= self._deadline:
                    log.info("session_over")
                    self._end_session()

    async def serve(self, stream: trio.abc.Stream) -> bool:
        """Serves a connection until QEMU closes it, breaks it, or the reader is unplugged.

        Args:
            stream: the connection, which the caller closes.

        Returns:
            Whether the peer spoke usbredir at all.
        """
        connection = _Connection(stream, self._device, self._session)
        deadline = self._deadline
        self._set_deadline(math.inf)
        is_broken, all_was_read = False, True
        try:
            await connection.run(self._slots)
        except* RemoteProtocolError as errors:
            is_broken = True
            log.warning("connection_failed", reason="; ".join(map(str, errors.exceptions)))
        except* trio.BrokenResourceError:
            # QEMU closes so where it has not read all: when it was stopped, is killed, or the
            # device is unplugged.
            all_was_read = False
            log.info("connection_closed", unread=True)
        else:
            log.info("connection_closed")
        finally:
            session = connection.close()
            all_was_read = all_was_read and connection.all_is_written
            if not connection.is_open:
                # That was nobody's session, and the one before can still be gone on with.
                self._set_deadline(deadline)
            elif is_broken:
                # A QEMU that is cut off begins anew, and no other knows what this one asked for.
                self._end_session()
            else:
                self._session = _left_behind(session, all_was_read=all_was_read)
                self._set_deadline(trio.current_time() + RESUME_TIMEOUT)
        return connection.is_open

    def _end_session(self) -> None:
        self._session = _UNKNOWN_SESSION
        self._set_deadline(math.inf)
        self._device.reset()

    def _set_deadline(self, deadline: float) -> None:
        """Says when the session is over that was left behind."""
        self._deadline = deadline
        self._changed.set()
        self._changed = trio.Event()


def _left_behind(session: Session, *, all_was_read: bool) -> Session | None:
    """Gives what the next connection may go on with.

    A QEMU that was stopped has read all of what was sent since it last spoke or nothing, if that is
    no more than it reads at once. Otherwise it may have stopped within a packet, and any other byte
    than the next would make it abort: there is nothing to go on with.
    """
    if all_was_read:
        return replace(session, unheard=())
    unread = sum(
        _MAX_OVERHEAD + len(answer.data)
        for answer in session.unheard
        if isinstance(answer, BulkPacket | ControlPacket)
    )
    return session if unread <= _QEMU_READ_SIZE else None


class _Connection:
    """One connection. A task reads and decides, one writes, one waits for the end."""

    def __init__(
        self, stream: trio.abc.Stream, device: UsbReader, previous: Session | None
    ) -> None:
        self._stream = stream
        self._device = device
        self._may_go_on = previous is not None
        self._connection = usbredir.Connection(usbredir.Role.DEVICE, previous=previous)
        self._unsent = bytearray()
        self._sending = b""
        self._is_taking = False
        self._waiters = 0
        self._reads: deque[BulkPacket] = deque()
        # What the last requests for bulk-IN data got, by their ids.
        self._given: OrderedDict[int, Piece] = OrderedDict()
        self._progress = trio.Event()
        device.wake = self._wake

    @property
    def is_open(self) -> bool:
        return self._connection.is_open

    def close(self) -> Session:
        """Leaves the device to the next connection, and gives what that needs to know."""
        self._device.wake = _nobody_listens
        return self._connection.session

    async def run(self, slots: Sequence[Slot]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, nursery.cancel_scope)
            nursery.start_soon(self._write)
            if isinstance(self._stream, trio.SocketStream):
                nursery.start_soon(self._await_migration, self._stream.socket)
            for slot in slots:
                await slot.wait_until_unplugged()
            await self._leave()
            nursery.cancel_scope.cancel()

    async def _leave(self) -> None:
        """Unplugs the device: first what is in flight arrives, and then that it is gone."""
        with trio.move_on_after(LEAVE_TIMEOUT):
            await self._until(lambda: not self._device.is_busy and self.all_is_written)
        if self._connection.is_connected:
            self._send(DeviceDisconnect())
            # What waits is forgotten with the device.
            self._reads.clear()
            self._push()
        with trio.move_on_after(LEAVE_TIMEOUT):
            await self._until(lambda: self.all_is_written)

    @property
    def all_is_written(self) -> bool:
        """Whether all that was said has gone to the socket."""
        return not (self._unsent or self._sending)

    # Reading. What the device answers at once is put behind what is to be written.

    async def _receive(self, session: trio.CancelScope) -> None:
        while True:
            self._connection.receive_data(bytes(await self._stream.receive_some(_RECEIVE_SIZE)))
            if len(self._unsent) >= MAX_UNSENT:
                await self._until(lambda: len(self._unsent) < MAX_UNSENT)
            self._is_taking = True
            try:
                while not isinstance(event := self._connection.next_event(), NeedData):
                    if isinstance(event, ConnectionClosed):
                        session.cancel()
                        return
                    self._take(event)
                self._repeat()
            finally:
                self._is_taking = False
            self._push()

    def _take(self, event: usbredir.Event) -> None:
        match event:
            case Hello():
                if not self._connection.has_said_hello:
                    self._send(self._connection.hello)
                self._device.reset()
                self._announce_device()
            case Resumed():
                self._take_up()
            case Reset():
                self._reads.clear()
                self._device.reset()
            case Cancelled():
                self._cancel(event)
            case FilterReject():
                log.warning("device_rejected", hint="QEMU's usb-redir says why in its own log")
            case _:
                self._carry_out(event)

    def _carry_out(self, request: usbredir.Event) -> None:
        match request:
            case ControlPacket():
                self._control(request)
            case BulkPacket():
                self._bulk(request)
            case StartInterruptReceiving(id=number, endpoint=endpoint):
                available = endpoint == INTERRUPT_IN and not self._device.is_halted(endpoint)
                status = Status.SUCCESS if available else Status.STALL
                self._send(InterruptReceivingStatus(number, status, endpoint))
                self._device.restart_interrupt_in()
            case StopInterruptReceiving(id=number, endpoint=endpoint):
                self._send(InterruptReceivingStatus(number, Status.SUCCESS, endpoint))
            case SetConfiguration() | GetConfiguration() | SetAltSetting() | GetAltSetting():
                self._set(request)
            case _:
                self._refuse(request)

    def _set(
        self, request: SetConfiguration | GetConfiguration | SetAltSetting | GetAltSetting
    ) -> None:
        device = self._device
        match request:
            case SetConfiguration(id=number, configuration=value):
                done = device.set_configuration(value)
                self._announce_tables()
                status = Status.SUCCESS if done else Status.STALL
                self._send(ConfigurationStatus(number, status, device.configuration))
            case GetConfiguration(id=number):
                self._send(ConfigurationStatus(number, Status.SUCCESS, device.configuration))
            case SetAltSetting(id=number, interface=interface, alt=alt):
                done = device.set_interface(interface, alt)
                self._announce_tables()
                status = Status.SUCCESS if done else Status.STALL
                self._send(AltSettingStatus(number, status, interface, alt if done else 0))
            case GetAltSetting(id=number, interface=interface):
                setting = device.alternate_setting(interface)
                status = Status.STALL if setting is None else Status.SUCCESS
                self._send(AltSettingStatus(number, status, interface, setting or 0))

    def _refuse(self, request: usbredir.Event) -> None:
        """Answers what is about kinds of endpoints that the device does not have."""
        match request:
            case StartIsoStream(id=number, endpoint=endpoint):
                self._send(IsoStreamStatus(number, Status.STALL, endpoint))
            case StopIsoStream(id=number, endpoint=endpoint):
                self._send(IsoStreamStatus(number, Status.SUCCESS, endpoint))
            case InterruptPacket():
                self._send(request.answer(status=Status.STALL))
            case _:
                # Acknowledgements, filters, and data of a stream that was not started.
                log.debug("packet_ignored", packet=type(request).__name__)

    async def _await_migration(self, socket: trio.socket.SocketType) -> None:
        """Goes on with the session before as soon as our hello was read, and not answered."""
        if not _INCOMING & set(peer_arguments(socket)):
            return
        self._send(self._connection.hello)
        self._push()
        interval = _FIRST_LOOK
        while True:
            await trio.sleep(interval)
            interval = min(2 * interval, _LAST_LOOK)
            # In this order: a fresh QEMU has said hello before it reads. What it said is in the
            # socket, or was received.
            was_read = self.all_is_written and not has_unread(socket)
            if can_read(socket):
                continue
            # What was received a moment ago is about to be looked at.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            if not self._connection.can_resume:
                return
            if was_read:
                self._connection.resume()
                self._take_up()
                self._repeat()
                self._push()
                return

    def _take_up(self) -> None:
        """Goes on with the session of the connection before."""
        if not self._may_go_on:
            raise RemoteProtocolError("QEMU may have been stopped amid a packet of ours")
        waiting = (r for r in self._connection.pending if isinstance(r, BulkPacket))
        self._reads.extend(request for request in waiting if request.endpoint == BULK_IN)
        self._device.resume()
        log.info("session_resumed")

    def _repeat(self) -> None:
        """Says again what the guest has perhaps not read; nothing, where no session goes on."""
        self._unsent += self._connection.repeat()

    def _announce_device(self) -> None:
        descriptor = self._device.descriptors.device
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
        interface = self._device.descriptors.interface
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
        answer = self._device.control(setup) if _is_zero(request.endpoint) else None
        if answer is None:
            self._send(request.answer(status=Status.STALL))
        else:
            self._send(request.answer(answer))
        if self._connection.is_receiving(INTERRUPT_IN) and self._device.is_halted(INTERRUPT_IN):
            # It was halted by this; the guest's next wish for its packets is a new one.
            self._send(InterruptReceivingStatus(0, Status.STALL, INTERRUPT_IN))

    def _bulk(self, request: BulkPacket) -> None:
        if request.endpoint == BULK_IN:
            self._reads.append(request)
        else:
            taken = request.endpoint == BULK_OUT and self._device.write_bulk_out(request.data)
            self._send(request.answer(status=Status.SUCCESS if taken else Status.STALL))

    def _cancel(self, cancelled: Cancelled) -> None:
        self._reads = deque(request for request in self._reads if request.id != cancelled.id)
        if cancelled.answer is not None:
            self._send(cancelled.answer)
        if cancelled.lost is not None:
            self._device.unread_bulk_in(self._given.pop(cancelled.id))

    # Writing.

    def _wake(self) -> None:
        """Hears that the device has something to say."""
        if not self._is_taking:
            self._push()

    def _push(self) -> None:
        """Writes what there is to say, as far as the socket takes it at once."""
        self._answer_reads()
        self._notify()
        if self._unsent and not self._sending:
            del self._unsent[: write_now(self._stream, self._unsent)]
        if self._unsent or self._waiters:
            self._announce_progress()

    async def _write(self) -> None:
        """Writes what the socket did not take at once."""
        while True:
            if not self._unsent:
                await self._progress.wait()
                continue
            self._sending, self._unsent = bytes(self._unsent), bytearray()
            await self._stream.send_all(self._sending)
            self._sending = b""
            self._push()

    def _answer_reads(self) -> None:
        """Answers the reads that wait, oldest first, as far as there is something to read."""
        while self._reads:
            request = self._reads[0]
            if self._device.is_halted(BULK_IN):
                answer = request.answer(status=Status.STALL)
            elif (piece := self._device.read_bulk_in(request.length)) is not None:
                self._remember(request, piece)
                answer = request.answer(piece.data)
            else:
                return
            self._reads.popleft()
            self._send(answer)

    def _remember(self, request: BulkPacket, piece: Piece) -> None:
        """Keeps in mind what a request got, for as long as the connection may take it back."""
        self._given.pop(request.id, None)
        self._given[request.id] = piece
        if len(self._given) > MAX_REMEMBERED:
            self._given.popitem(last=False)

    def _notify(self) -> None:
        if not self._connection.is_receiving(INTERRUPT_IN):
            return
        notification = self._device.read_interrupt_in()
        if notification is not None:
            self._send(InterruptPacket(INTERRUPT_IN, notification))

    def _send(self, packet: usbredir.Packet) -> None:
        """Puts a packet behind what is to be written."""
        self._unsent += self._connection.send(packet)

    async def _until(self, condition: Callable[[], bool]) -> None:
        self._waiters += 1
        try:
            while not condition():
                await self._progress.wait()
        finally:
            self._waiters -= 1

    def _announce_progress(self) -> None:
        self._progress.set()
        self._progress = trio.Event()


def _is_zero(endpoint: int) -> bool:
    """Whether an endpoint is number zero, the only one for control transfers."""
    return endpoint in {0x00, 0x80}


def _nobody_listens() -> None:
    """Takes the place of a connection's wake-up call when it is gone."""
