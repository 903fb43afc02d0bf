# SPDX-License-Identifier: Apache-2.0
"""The data packets of usb redirection: USB transfers, whole or in pieces of a stream.

Source: the USB Network Redirection protocol description, version 0.7, from usb_redir_control_packet
to usb_redir_buffered_bulk_packet. The same packet serves as request and as answer; only one of them
carries data, after the direction of the endpoint.
"""

from dataclasses import dataclass, field, replace
from typing import Self

from ccid_protocol.usbredir.constants import Status, is_in


class _Transfer:
    """What ControlPacket, BulkPacket and InterruptPacket have in common as requests and answers."""

    __slots__ = ()

    endpoint: int
    length: int
    data: bytes

    def _complete_length(self) -> None:
        if self.data and not self.length:
            object.__setattr__(self, "length", len(self.data))

    def _answer_length(self, data: bytes, status: int) -> int:
        if is_in(self.endpoint):
            return len(data)
        return self.length if status == Status.SUCCESS else 0


@dataclass(frozen=True, slots=True)
class ControlPacket(_Transfer):
    """A control transfer: the guest's request, and the device's answer to it.

    Attributes:
        id: chosen by the guest, repeated by the answer.
        endpoint: 00h or 80h, after the direction of the transfer.
        request: bRequest.
        requesttype: bmRequestType.
        value: wValue.
        index: wIndex.
        length: bytes: wLength in a request; in an answer those read or accepted. It need not be
            given where there is data.
        status: a `Status`; in a request it means nothing, and is 0 when it was received.
        data: bytes, in an IN answer or an OUT request only; left out of the repr.
    """

    id: int
    endpoint: int
    request: int
    requesttype: int
    value: int
    index: int
    length: int = 0
    status: int = Status.SUCCESS
    data: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        self._complete_length()

    def answer(self, data: bytes = b"", *, status: int = Status.SUCCESS) -> Self:
        """Gives the answer to this request: with data (IN), or taking all or nothing (OUT)."""
        length = self._answer_length(data, status)
        return replace(self, length=length, status=status, data=data)


@dataclass(frozen=True, slots=True)
class BulkPacket(_Transfer):
    """A bulk transfer: the guest's request, and the device's answer to it.

    Attributes:
        id: chosen by the guest, repeated by the answer.
        endpoint: the endpoint.
        length: bytes: in an IN request the most that the guest takes; in an answer those read or
            accepted. It need not be given where there is data.
        status: a `Status`; in a request it means nothing, and is 0 when it was received.
        stream_id: the bulk stream, 0 where there are none.
        data: bytes, in an IN answer or an OUT request only; left out of the repr.
    """

    id: int
    endpoint: int
    length: int = 0
    status: int = Status.SUCCESS
    stream_id: int = 0
    data: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        self._complete_length()

    def answer(self, data: bytes = b"", *, status: int = Status.SUCCESS) -> "BulkPacket":
        """Gives the answer to this request: with data (IN), or taking all or nothing (OUT)."""
        length = self._answer_length(data, status)
        return BulkPacket(self.id, self.endpoint, length, status, self.stream_id, data)


@dataclass(frozen=True, slots=True)
class InterruptPacket(_Transfer):
    """A piece of an interrupt IN stream; for OUT a request of the guest, and its answer.

    Attributes:
        endpoint: the endpoint.
        data: bytes, in IN packets and OUT requests; left out of the repr.
        id: OUT: chosen by the guest, repeated by the answer. IN: the packets are counted from 0
            when the stream starts; `Connection.send` does it, whatever the caller gives.
        length: bytes: in an OUT answer those accepted. It need not be given where there is data.
        status: a `Status`; in a request it means nothing, and is 0 when it was received.
    """

    endpoint: int
    data: bytes = field(default=b"", repr=False)
    id: int = 0
    length: int = 0
    status: int = Status.SUCCESS

    def __post_init__(self) -> None:
        self._complete_length()

    def answer(self, *, status: int = Status.SUCCESS) -> Self:
        """Gives the answer to this request (OUT), which takes all or nothing."""
        return replace(self, length=self._answer_length(b"", status), status=status, data=b"")


@dataclass(frozen=True, slots=True)
class IsoPacket:
    """A piece of an isochronous stream, in the direction of its endpoint.

    Attributes:
        endpoint: the endpoint.
        data: bytes, left out of the repr.
        id: counted from 0 when an IN stream starts, as for InterruptPacket.
        status: a `Status`; from the guest it means nothing, and is 0 when it was received.
    """

    endpoint: int
    data: bytes = field(default=b"", repr=False)
    id: int = 0
    status: int = Status.SUCCESS


@dataclass(frozen=True, slots=True)
class BufferedBulkPacket:
    """A piece of a bulk IN endpoint that is read ahead. Needs the capability BULK_RECEIVING.

    Attributes:
        endpoint: the endpoint.
        data: bytes, left out of the repr.
        id: counted from 0 when the stream starts, as for InterruptPacket.
        stream_id: the bulk stream.
        status: a `Status`.
    """

    endpoint: int
    data: bytes = field(default=b"", repr=False)
    id: int = 0
    stream_id: int = 0
    status: int = Status.SUCCESS
