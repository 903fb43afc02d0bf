# SPDX-License-Identifier: Apache-2.0
"""The guest's requests that wait for an answer of the device.

Source: the USB Network Redirection protocol description, version 0.7.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Final

from ccid_protocol.usbredir.constants import Status, is_in
from ccid_protocol.usbredir.data import BulkPacket, ControlPacket, InterruptPacket
from ccid_protocol.usbredir.packets import (
    AllocBulkStreams,
    AltSettingStatus,
    Answer,
    BulkReceivingStatus,
    BulkStreamsStatus,
    ConfigurationStatus,
    FreeBulkStreams,
    GetAltSetting,
    GetConfiguration,
    InterruptReceivingStatus,
    IsoStreamStatus,
    PlainRequest,
    Request,
    SetAltSetting,
    SetConfiguration,
    StartBulkReceiving,
    StartInterruptReceiving,
    StartIsoStream,
    StopBulkReceiving,
    StopInterruptReceiving,
    StopIsoStream,
    TransferAnswer,
    TransferRequest,
)

_ANSWERS: Final[dict[type[Request], type[Answer]]] = {
    SetConfiguration: ConfigurationStatus,
    GetConfiguration: ConfigurationStatus,
    SetAltSetting: AltSettingStatus,
    GetAltSetting: AltSettingStatus,
    StartIsoStream: IsoStreamStatus,
    StopIsoStream: IsoStreamStatus,
    StartInterruptReceiving: InterruptReceivingStatus,
    StopInterruptReceiving: InterruptReceivingStatus,
    AllocBulkStreams: BulkStreamsStatus,
    FreeBulkStreams: BulkStreamsStatus,
    StartBulkReceiving: BulkReceivingStatus,
    StopBulkReceiving: BulkReceivingStatus,
    ControlPacket: ControlPacket,
    BulkPacket: BulkPacket,
    InterruptPacket: InterruptPacket,
}


class Requests:
    """The requests that wait, oldest first; without their data.

    Args:
        transfers: requests of a session before this one.
    """

    def __init__(self, transfers: Iterable[TransferRequest] = ()) -> None:
        self._transfers = {request.id: request for request in transfers}
        self._cancelled: list[TransferRequest] = []
        self._plain: list[PlainRequest] = []

    def __iter__(self) -> Iterator[Request]:
        return chain(self._cancelled, self._transfers.values(), self._plain)

    @property
    def transfers(self) -> tuple[TransferRequest, ...]:
        """The requests for transfers that are not cancelled."""
        return tuple(self._transfers.values())

    def count_like(self, request: Request) -> int:
        """Counts the requests that wait in the same queue: of the same kind and direction."""
        queue = _queue(request)
        return sum(_queue(other) == queue for other in self)

    def has_id(self, request: Request) -> bool:
        """Whether the id is taken by a request that is not cancelled, and had to be unique."""
        return isinstance(request, TransferRequest) and request.id in self._transfers

    def add(self, request: Request) -> None:
        """Puts a request at the end."""
        if isinstance(request, ControlPacket | BulkPacket | InterruptPacket) and request.data:
            request = replace(request, data=b"")
        if isinstance(request, PlainRequest):
            self._plain.append(request)
        else:
            self._transfers[request.id] = request

    def cancel(self, request_id: int) -> TransferRequest | None:
        """Marks a request as cancelled, so that it is answered first; gives None without one."""
        request = self._transfers.pop(request_id, None)
        if request is not None:
            self._cancelled.append(request)
        return request

    def add_cancelled(self, request: TransferRequest) -> None:
        """Puts in a request that is known from its cancel only."""
        self._cancelled.append(request)

    def find(self, answer: Answer) -> Request | None:
        """Gives the request that an answer is for.

        QEMU takes the first answer with the id of a request that it has cancelled for the answer to
        that one, whatever else it says. So there is nothing to answer with this id until that is
        done.
        """
        if not isinstance(answer, TransferAnswer):
            return next((request for request in self._plain if _is_for(answer, request)), None)
        for request in self._cancelled:
            if request.id == answer.id:
                return request if _is_for(answer, request) else None
        transfer = self._transfers.get(answer.id)
        return transfer if transfer is not None and _is_for(answer, transfer) else None

    def is_cancelled(self, request: Request) -> bool:
        """Whether a request that waits was cancelled."""
        return any(request is cancelled for cancelled in self._cancelled)

    def remove(self, request: Request) -> None:
        """Takes out a request that `find` gave."""
        if isinstance(request, PlainRequest):
            self._plain.remove(request)
        elif self.is_cancelled(request):
            self._cancelled.remove(request)
        else:
            del self._transfers[request.id]

    def clear(self) -> None:
        """Forgets all requests."""
        self._transfers.clear()
        self._cancelled.clear()
        self._plain.clear()


def cancelled_answer(request: TransferRequest) -> TransferAnswer:
    """Gives the answer to a request that was cancelled before it was carried out."""
    match request:
        case SetConfiguration(request_id, configuration):
            return ConfigurationStatus(request_id, Status.CANCELLED, configuration)
        case GetConfiguration(request_id):
            return ConfigurationStatus(request_id, Status.CANCELLED, 0)
        case SetAltSetting(request_id, interface, alt):
            return AltSettingStatus(request_id, Status.CANCELLED, interface, alt)
        case GetAltSetting(request_id, interface):
            return AltSettingStatus(request_id, Status.CANCELLED, interface, 0)
        case ControlPacket() | BulkPacket():
            return request.answer(status=Status.CANCELLED)


def find_answer_fault(request: Request, answer: Answer) -> str | None:
    """Says what is wrong with an answer to this request, None if nothing is."""
    if isinstance(answer, ControlPacket | BulkPacket | InterruptPacket):
        assert isinstance(request, ControlPacket | BulkPacket | InterruptPacket)
        if answer.length > request.length:
            return f"of {answer.length} bytes to a request for {request.length}"
        if _repeated(answer) != _repeated(request):
            return "that does not repeat its request"
    return None


def _repeated(packet: ControlPacket | BulkPacket | InterruptPacket) -> tuple[int, ...]:
    """Gives what an answer has in common with its request."""
    match packet:
        case BulkPacket():
            return packet.id, packet.endpoint, packet.stream_id
        case InterruptPacket():
            return packet.id, packet.endpoint
        case ControlPacket():
            setup = (packet.requesttype, packet.request, packet.value, packet.index)
            return packet.id, packet.endpoint, *setup


def _queue(request: Request) -> tuple[type[Answer], bool]:
    is_bulk_in = isinstance(request, BulkPacket) and is_in(request.endpoint)
    return _ANSWERS[type(request)], is_bulk_in


def _is_for(answer: Answer, request: Request) -> bool:
    return (
        type(answer) is _ANSWERS[type(request)]
        and answer.id == request.id
        and _target(answer) == _target(request)
    )


def _target(packet: Answer | Request) -> int | None:
    """Gives the part of the device that a request or answer is about, None for the whole."""
    match packet:
        case BulkPacket():
            return packet.endpoint
        case SetConfiguration() | GetConfiguration() | ConfigurationStatus():
            return None
        case SetAltSetting() | GetAltSetting() | AltSettingStatus():
            return packet.interface
        case AllocBulkStreams() | FreeBulkStreams() | BulkStreamsStatus():
            return packet.endpoints
        case _:
            return packet.endpoint
