# SPDX-License-Identifier: Apache-2.0
"""What follows the hellos: which packet may come when, and what is answered.

Source: the USB Network Redirection protocol description, version 0.7, and the behaviour of QEMU 7.2
and 10. Both ends keep the same account of what was sent, so one `Exchange` serves either role. A
packet that is out of place is a LocalProtocolError at the end that wants to send it, and a
RemoteProtocolError at the other. The accounts differ only while packets cross on their way:

* What a guest sends before it sees DeviceDisconnect is for the old device. The device's end drops
  it until the guest acknowledges, or where it cannot do that until the next DeviceConnect.
* A cancel can cross the answer; see `Cancelled`.
* Pieces of a stream can cross the request to stop it. The guest's end lets them pass.
"""

import enum
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from ccid_protocol.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from ccid_protocol.usbredir.constants import (
    DEVICE_CAPABILITIES,
    Capability,
    Role,
    Status,
    is_in,
)
from ccid_protocol.usbredir.data import (
    BufferedBulkPacket,
    BulkPacket,
    InterruptPacket,
    IsoPacket,
)
from ccid_protocol.usbredir.events import Cancelled, LostData
from ccid_protocol.usbredir.packets import (
    Answer,
    BulkReceivingStatus,
    CancelDataPacket,
    DeviceConnect,
    DeviceDisconnect,
    DeviceDisconnectAck,
    DevicePacket,
    EpInfo,
    FilterFilter,
    FilterReject,
    GuestPacket,
    InterfaceInfo,
    InterruptReceivingStatus,
    IsoStreamStatus,
    Request,
    Reset,
    SetAltSetting,
    SetConfiguration,
    StartBulkReceiving,
    StartInterruptReceiving,
    StartIsoStream,
    StopBulkReceiving,
    StopInterruptReceiving,
    StopIsoStream,
    StreamPacket,
    StreamStatus,
    TransferAnswer,
    TransferRequest,
)
from ccid_protocol.usbredir.requests import (
    Requests,
    cancelled_answer,
    find_answer_fault,
)

MAX_PENDING: Final = 64
"""Requests of one kind and direction that may wait for an answer. xHCI queues a few."""

MAX_REMEMBERED: Final = 64
"""Answers that are remembered, as a cancel may yet show that the guest never saw them."""

_MAX_NUMBER: Final = 0xFFFFFFFF
"""The highest id of a piece: after it they start at 0 again, with 64-bit ids too."""

_STREAM_OF: Final[dict[type[object], type[StreamPacket]]] = {
    StartIsoStream: IsoPacket,
    StopIsoStream: IsoPacket,
    IsoStreamStatus: IsoPacket,
    StartInterruptReceiving: InterruptPacket,
    StopInterruptReceiving: InterruptPacket,
    InterruptReceivingStatus: InterruptPacket,
    StartBulkReceiving: BufferedBulkPacket,
    StopBulkReceiving: BufferedBulkPacket,
    BulkReceivingStatus: BufferedBulkPacket,
}


@dataclass(frozen=True, slots=True)
class Session:
    """What a session that goes on without hellos takes over from the one before.

    Attributes:
        capabilities: those that counted; by default what QEMU and a device of this package agree
            on.
        receiving: the interrupt IN endpoints whose packets the guest wants. Where it is not known
            whether it wants them, an endpoint may be named: QEMU drops what it did not ask for.
        requests: the requests for transfers that wait for an answer, without their data.
        unheard: the answers since the guest last said something. A guest that was stopped, and
            then migrated, has not read them.
    """

    capabilities: Capability = DEVICE_CAPABILITIES
    receiving: frozenset[int] = frozenset()
    requests: tuple[TransferRequest, ...] = ()
    unheard: tuple[TransferAnswer, ...] = ()


class _Presence(enum.Enum):
    """Whether the device is plugged in."""

    ABSENT = "absent"
    CONNECTED = "connected"
    LEAVING = "leaving"
    """It is not, but packets of the guest may be on their way that are for it."""


class Exchange:
    """The account of one session.

    Args:
        our_role: the end that keeps it.
        capabilities: those that count in the session.
        resumed: the session before, if this one continues it; the device is then plugged in.
    """

    def __init__(
        self, our_role: Role, capabilities: Capability, resumed: Session | None = None
    ) -> None:
        self._our_role: Final = our_role
        self._capabilities: Final = capabilities
        self._resumed: Final = resumed is not None
        self._presence = _Presence.ABSENT if resumed is None else _Presence.CONNECTED
        self._tables_due: set[type[DevicePacket]] = set() if resumed else {InterfaceInfo, EpInfo}
        self._requests = Requests(resumed.requests if resumed else ())
        # The streams that are started, each with the id that its next piece gets.
        self._streams: dict[tuple[type[StreamPacket], int], int] = {
            (InterruptPacket, endpoint): 0 for endpoint in (resumed.receiving if resumed else ())
        }
        # The ids that were answered last, with the data that a cancel would show to be lost.
        self._answered: OrderedDict[int, LostData | None] = OrderedDict()
        self._answers = 0
        # The answers since the guest's last packet, and those of the session before.
        self._unheard: list[TransferAnswer] = []
        self._due_again = {answer.id: answer for answer in (resumed.unheard if resumed else ())}

    @property
    def is_connected(self) -> bool:
        """Whether the device is plugged in."""
        return self._presence is _Presence.CONNECTED

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests that wait for an answer, those that were cancelled first."""
        return tuple(self._requests)

    @property
    def session(self) -> Session:
        """What a session needs to know that continues this one."""
        receiving = frozenset(e for stream, e in self._streams if stream is InterruptPacket)
        unheard = tuple(self._unheard)
        return Session(self._capabilities, receiving, self._requests.transfers, unheard)

    def take_due_again(self) -> tuple[TransferAnswer, ...]:
        """Gives the answers of the session before that the guest may still wait for, once."""
        due = tuple(self._due_again.values())
        self._due_again.clear()
        for answer in due:
            # A cancel that crosses it gets no other.
            self._answered[answer.id] = None
        return due

    def is_started(self, stream: type[StreamPacket], endpoint: int) -> bool:
        """Whether pieces of a stream may be sent now."""
        return (stream, endpoint) in self._streams

    def number(self, packet: DevicePacket) -> DevicePacket:
        """Gives a packet of the device with its number, if it is a piece of a stream."""
        if not isinstance(packet, StreamPacket) or not is_in(packet.endpoint):
            return packet
        return replace(packet, id=self._streams.get((type(packet), packet.endpoint), 0))

    def device_sends(self, packet: DevicePacket) -> None:
        """Enters a packet of the device.

        Raises:
            ProtocolError: It is out of place; nothing changes.
        """
        match packet:
            # Nearly all packets, and so the first to be looked for.
            case BulkPacket() if self._presence is _Presence.CONNECTED:
                self._answer(packet)
            case InterfaceInfo() | EpInfo():
                self._tables_due.discard(type(packet))
            case DeviceConnect():
                self._connect()
            case DeviceDisconnect():
                self._disconnect()
            case FilterFilter():
                pass
            case _ if self._presence is not _Presence.CONNECTED:
                raise self._device_error(f"{type(packet).__name__} without a device")
            case IsoPacket() | BufferedBulkPacket():
                self._send_piece(packet)
            case InterruptPacket() if is_in(packet.endpoint):
                self._send_piece(packet)
            case _:
                self._answer(packet)

    def guest_sends(self, packet: GuestPacket) -> GuestPacket | Cancelled | None:
        """Enters a packet of the guest.

        Returns:
            What the device's end makes of it; None if it is for a device that is gone.

        Raises:
            ProtocolError: It is out of place; nothing changes.
        """
        self._unheard.clear()
        match packet:
            # As in `device_sends`.
            case BulkPacket() if self._presence is _Presence.CONNECTED:
                self._request(packet)
            case FilterReject() | FilterFilter():
                return packet
            case DeviceDisconnectAck():
                self._acknowledge_disconnect()
                return packet
            case _ if self._presence is not _Presence.CONNECTED:
                self._check_absence(packet)
                return None
            case Reset():
                self._forget_lost_data()
            case IsoPacket():
                # There is no telling whether it crossed the news that the stream has stopped.
                pass
            case CancelDataPacket():
                return self._cancel(packet.id)
            case _:
                self._request(packet)
        return packet

    def _device_error(self, text: str) -> ProtocolError:
        ours = self._our_role is Role.DEVICE
        return LocalProtocolError(text) if ours else RemoteProtocolError(text)

    def _guest_error(self, text: str) -> ProtocolError:
        ours = self._our_role is Role.GUEST
        return LocalProtocolError(text) if ours else RemoteProtocolError(text)

    # --- the device comes and goes ---

    def _connect(self) -> None:
        if self._presence is _Presence.CONNECTED:
            raise self._device_error("DeviceConnect while the device is connected")
        if self._presence is _Presence.LEAVING and self._can_acknowledge:
            raise self._device_error("DeviceConnect before DeviceDisconnect is acknowledged")
        self._check_tables("DeviceConnect")
        self._presence = _Presence.CONNECTED

    def _disconnect(self) -> None:
        if self._presence is not _Presence.CONNECTED:
            raise self._device_error("DeviceDisconnect without a device")
        self._presence = _Presence.LEAVING
        self._tables_due = {InterfaceInfo, EpInfo}
        self._requests.clear()
        self._streams.clear()
        self._answered.clear()

    def _acknowledge_disconnect(self) -> None:
        if self._presence is not _Presence.LEAVING:
            raise self._guest_error("DeviceDisconnectAck without DeviceDisconnect")
        self._presence = _Presence.ABSENT

    @property
    def _can_acknowledge(self) -> bool:
        return Capability.DEVICE_DISCONNECT_ACK in self._capabilities

    def _check_tables(self, what: str) -> None:
        for table in (InterfaceInfo, EpInfo):
            if table in self._tables_due:
                raise self._device_error(f"{what} before {table.__name__}")

    # --- what the guest asks for ---

    def _check_absence(self, packet: GuestPacket) -> None:
        """Refuses a packet without a device, unless it can be about the one that was here."""
        harmless = isinstance(packet, Reset | CancelDataPacket)
        leaving = self._presence is _Presence.LEAVING
        if self._our_role is Role.GUEST or not (harmless or leaving):
            raise self._guest_error(f"{type(packet).__name__} without a device")

    def _request(self, request: Request) -> None:
        name = type(request).__name__
        if self._requests.has_id(request):
            raise self._guest_error(f"{name} with the id of a request that waits")
        if self._our_role is Role.DEVICE and self._requests.count_like(request) >= MAX_PENDING:
            raise self._guest_error(f"{name} when {MAX_PENDING} such requests wait")
        self._requests.add(request)
        match request:
            case StartIsoStream() | StartInterruptReceiving() | StartBulkReceiving():
                self._streams[_STREAM_OF[type(request)], request.endpoint] = 0
            case StopIsoStream() | StopInterruptReceiving() | StopBulkReceiving():
                self._streams.pop((_STREAM_OF[type(request)], request.endpoint), None)
            case SetConfiguration() | SetAltSetting():
                self._tables_due = {InterfaceInfo, EpInfo}
                self._forget_lost_data()
            case _:
                pass
        if isinstance(request, TransferRequest):
            # The guest is done with what had this id before.
            self._answered.pop(request.id, None)
            self._due_again.pop(request.id, None)

    def _cancel(self, request_id: int) -> Cancelled:
        request = self._requests.cancel(request_id)
        if request is not None:
            return Cancelled(request_id, answer=cancelled_answer(request))
        if self._our_role is Role.GUEST:
            raise LocalProtocolError("CancelDataPacket without a request that waits")
        if request_id in self._answered:
            return Cancelled(request_id, lost=self._answered.pop(request_id))
        if not self._resumed:
            return Cancelled(request_id)
        self._due_again.pop(request_id, None)
        # The request was made in the session before. The guest keeps the id in mind until it is
        # answered, and throws away that answer, whatever endpoint it names.
        unknown = BulkPacket(request_id, endpoint=0)
        if self._requests.count_like(unknown) >= MAX_PENDING:
            raise self._guest_error(f"CancelDataPacket when {MAX_PENDING} such requests wait")
        self._requests.add_cancelled(unknown)
        return Cancelled(request_id, answer=cancelled_answer(unknown))

    # --- what the device answers, and sends by itself ---

    def _answer(self, answer: Answer) -> None:
        name = type(answer).__name__
        request = self._requests.find(answer)
        if request is None:
            self._stop_stream(answer)
            return
        fault = find_answer_fault(request, answer)
        if fault is not None:
            raise self._device_error(f"{name} {fault}")
        cancelled = self._requests.is_cancelled(request)
        if cancelled and self._our_role is Role.DEVICE and answer.status != Status.CANCELLED:
            raise self._device_error(f"{name} for a request that is cancelled")
        failed = answer.status != Status.SUCCESS
        if isinstance(request, SetConfiguration | SetAltSetting) and not failed:
            self._check_tables(name)
        self._requests.remove(request)
        if isinstance(answer, TransferAnswer):
            if self._our_role is Role.DEVICE:
                self._remember(answer)
        elif failed and isinstance(
            request, StartIsoStream | StartInterruptReceiving | StartBulkReceiving
        ):
            self._streams.pop((_STREAM_OF[type(request)], request.endpoint), None)

    def _stop_stream(self, answer: Answer) -> None:
        """Takes a status that nobody asked for: the device had to stop a stream."""
        if (
            not isinstance(answer, StreamStatus)
            or answer.id != 0
            or answer.status == Status.SUCCESS
        ):
            raise self._device_error(f"{type(answer).__name__} that answers no request")
        stream = (_STREAM_OF[type(answer)], answer.endpoint)
        if stream not in self._streams and self._our_role is Role.DEVICE:
            raise self._device_error(f"{type(answer).__name__} for a stream that is not started")
        self._streams.pop(stream, None)

    def _send_piece(self, piece: StreamPacket) -> None:
        stream = (type(piece), piece.endpoint)
        if stream in self._streams:
            self._streams[stream] = (self._streams[stream] + 1) & _MAX_NUMBER
        elif self._our_role is Role.DEVICE or not self._is_stopping(piece):
            raise self._device_error(f"{type(piece).__name__} that the guest did not start")

    def _is_stopping(self, piece: StreamPacket) -> bool:
        return any(
            isinstance(request, StopIsoStream | StopInterruptReceiving | StopBulkReceiving)
            and _STREAM_OF[type(request)] is type(piece)
            and request.endpoint == piece.endpoint
            for request in self._requests
        )

    def _remember(self, answer: TransferAnswer) -> None:
        self._unheard.append(answer)
        lost = None
        if isinstance(answer, BulkPacket) and answer.data:
            self._answers += 1
            lost = LostData(answer.endpoint, answer.data, self._answers)
        self._answered[answer.id] = lost
        if len(self._answered) > MAX_REMEMBERED:
            self._answered.popitem(last=False)

    def _forget_lost_data(self) -> None:
        for request_id in self._answered:
            self._answered[request_id] = None
