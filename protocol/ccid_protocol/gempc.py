# SPDX-License-Identifier: Apache-2.0
"""GemPC Twin: CCID messages on a serial line, as the serial readers of Gemplus frame them.

Source: what libccid's serial driver (libccidtwin) reads and writes; there is no public
specification. A CCID message is opaque here but for dwLength, which says where it ends.

    host to reader    03 06, message, LRC
    reader to host    03 06, message, LRC
                      03 15 16    NAK: the host's frame was damaged, and is to be sent again
                      50 02       the card was removed     (between two frames)
                      50 03       a card was inserted      (between two frames)
                      80 to FF    one byte: the card needs more time     (between two frames)

The LRC makes the exclusive-or of all bytes of a frame 0. Some readers (GemPC Twin and PinPad, but
not GemCore) repeat each frame of the host before they answer it. libccid, which does not look at
what is in the repetition, has room for 30 bytes where it sends an Escape: of a longer one the
header alone is repeated, with dwLength 0.

Noise never ends the connection. What cannot be part of a frame gives one `BadFrame`, for which a
reader sends NAK, and all is skipped up to the next 03 06. A frame that is too long is treated in
the same way; one with a wrong LRC is skipped whole, so that its content is not taken for frames.
"""

import enum
import struct
from dataclasses import dataclass, field
from functools import reduce
from operator import xor
from typing import Final, TypeAlias

from ccid_protocol.errors import LocalProtocolError
from ccid_protocol.events import NEED_DATA, ConnectionClosed, NeedData

DEFAULT_MAX_MESSAGE: Final = 271
"""Bytes of a CCID message: what libccid takes for dwMaxCCIDMessageLength of these readers."""

_SYNC: Final = 0x03
_ACK: Final = 0x06
_START: Final = bytes([_SYNC, _ACK])
_NAK: Final = bytes([_SYNC, 0x15, 0x16])
_CARD_REMOVED: Final = bytes([0x50, 0x02])
_CARD_INSERTED: Final = bytes([0x50, 0x03])
_LRC_SIZE: Final = 1

# CCID Rev 1.1, 6.1 and 6.2: bMessageType and dwLength, the bytes after a header of 10
_HEADER_START: Final = struct.Struct("<xI")
_HEADER_SIZE: Final = 10
_LENGTH_SIZE: Final = 4

# bMessageType of PC_to_RDR_Escape, and the longest whose repetition libccid takes whole.
_ESCAPE: Final = 0x6B
_MAX_ESCAPE_ECHO: Final = 27


@dataclass(frozen=True, slots=True)
class Message:
    """A frame.

    Attributes:
        data: the CCID message in it. It may hold a PIN, so the repr leaves it out.
    """

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Nak:
    """The reader got a damaged frame; the host may send it again."""


@dataclass(frozen=True, slots=True)
class CardEvent:
    """A card was inserted or removed.

    Attributes:
        present: whether it was inserted.
    """

    present: bool


@dataclass(frozen=True, slots=True)
class TimeRequest:
    """The card needs more time; the reader's answer still comes.

    Attributes:
        value: 80h to FFh, without a known meaning.
    """

    value: int = 0x80


@dataclass(frozen=True, slots=True)
class BadFrame:
    """Bytes that are no frame. A reader answers with NAK.

    Attributes:
        reason: what is wrong, for a log.
    """

    reason: str


Sendable: TypeAlias = Message | Nak | CardEvent | TimeRequest

# What a reader sends besides frames and time requests.
_SEQUENCES: Final[dict[bytes, Sendable]] = {
    _NAK: Nak(),
    _CARD_REMOVED: CardEvent(present=False),
    _CARD_INSERTED: CardEvent(present=True),
}


class Role(enum.Enum):
    """Which end of the line one is."""

    HOST = "host"
    READER = "reader"


class Connection:
    """One end of a serial line, without the I/O.

    Args:
        our_role: the end that the caller is.
        max_message: the bytes of CCID message, header included, that a frame may hold.
        echo: whether the reader repeats each frame of the host. The reader's end does that with
            `acknowledge`; the host's end takes the repetition out of what it receives.
    """

    def __init__(
        self, our_role: Role, *, max_message: int = DEFAULT_MAX_MESSAGE, echo: bool = False
    ) -> None:
        self.our_role: Final = our_role
        self.max_message: Final = max_message
        self.echo: Final = echo
        self._buffer = bytearray()
        self._closed = False
        self._skips = False
        self._expected_echo: Message | None = None
        self._sequences: Final = _SEQUENCES if our_role is Role.HOST else {}

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the line; `b""` means that the peer closed it."""
        if data:
            self._buffer += data
        else:
            self._closed = True

    def next_event(self) -> Sendable | BadFrame | ConnectionClosed | NeedData:
        """Gives what came next on the line.

        Returns:
            A `Message` or `BadFrame`; on the host's end also `Nak`, `CardEvent` or `TimeRequest`;
            `ConnectionClosed` when the peer closed the line and no whole frame is left;
            or `NEED_DATA`.
        """
        while True:
            if self._skips and not self._find_start():
                return self._incomplete()
            event = self._extract_event()
            if isinstance(event, Message | Nak):
                echo, self._expected_echo = self._expected_echo, None
                if event == echo:
                    continue
            return event

    def time_out(self) -> BadFrame | None:
        """Gives up a frame that the peer began, and does not end.

        For when the line has been silent for longer than the peer would be within a frame.

        Returns:
            What was given up, to be treated as if `next_event` had given it; None if no frame has
            begun.
        """
        if self._skips or not self._buffer:
            return None
        count = len(self._buffer)
        self._buffer.clear()
        return BadFrame(f"silence after {count} bytes of a frame")

    def acknowledge(self, event: Message | BadFrame) -> bytes:
        """Gives what a reader sends at once, before it works on an event.

        Returns:
            The echo of a message, if the reader has one, or NAK for a bad frame. Nothing on the
            host's end.
        """
        if self.our_role is Role.HOST:
            return b""
        if isinstance(event, BadFrame):
            return _NAK
        return _encode(_echo(event)) if self.echo else b""

    def send(self, item: Sendable) -> bytes:
        """Gives the bytes of a frame or an event, to be written whole and in this order.

        Raises:
            LocalProtocolError: This end does not send that, or the message is not one CCID message
                of allowed length.
        """
        if self.our_role is Role.HOST and not isinstance(item, Message):
            raise LocalProtocolError(f"a host does not send {item!r}")
        if isinstance(item, TimeRequest) and not 0x80 <= item.value <= 0xFF:
            raise LocalProtocolError(f"{item!r}")
        if isinstance(item, Message):
            self._check_message(item.data)
            if self.our_role is Role.HOST and self.echo:
                self._expected_echo = _echo(item)
        return _encode(item)

    def _check_message(self, data: bytes) -> None:
        size = len(data)
        if size < _HEADER_SIZE or size != _HEADER_SIZE + _HEADER_START.unpack_from(data)[0]:
            raise LocalProtocolError(f"{size} bytes that are no CCID message")
        if size > self.max_message:
            raise LocalProtocolError(f"CCID message of {size} bytes")

    def _find_start(self) -> bool:
        """Drops bytes up to the next 03 06; False if there is none yet."""
        position = self._buffer.find(_START)
        if position >= 0:
            del self._buffer[:position]
            self._skips = False
            return True
        # The last byte may be the first of the two.
        keep = 1 if self._buffer.endswith(_START[:1]) else 0
        del self._buffer[: len(self._buffer) - keep]
        return False

    def _extract_event(self) -> Sendable | BadFrame | ConnectionClosed | NeedData:
        begin = bytes(self._buffer[:3])
        if begin.startswith(_START):
            return self._extract_frame()
        for sequence, event in self._sequences.items():
            if begin.startswith(sequence):
                del self._buffer[: len(sequence)]
                return event
        if any(sequence.startswith(begin) for sequence in (_START, *self._sequences)):
            return self._incomplete()
        if self.our_role is Role.HOST and begin[0] >= 0x80:
            del self._buffer[:1]
            return TimeRequest(begin[0])
        return self._skip("noise where a frame begins")

    def _extract_frame(self) -> Message | BadFrame | ConnectionClosed | NeedData:
        if len(self._buffer) < len(_START) + _HEADER_START.size:
            return self._incomplete()
        size = _HEADER_SIZE + _HEADER_START.unpack_from(self._buffer, len(_START))[0]
        if size > self.max_message:
            return self._skip(f"frame with a CCID message of {size} bytes")
        end = len(_START) + size + _LRC_SIZE
        if len(self._buffer) < end:
            return self._incomplete()
        frame = bytes(self._buffer[:end])
        del self._buffer[:end]
        if reduce(xor, frame):
            return BadFrame(f"frame of {end} bytes with a wrong LRC")
        return Message(frame[len(_START) : -_LRC_SIZE])

    def _skip(self, reason: str) -> BadFrame:
        """Has all skipped up to the next 03 06, from the second byte on."""
        del self._buffer[:1]
        self._skips = True
        return BadFrame(reason)

    def _incomplete(self) -> ConnectionClosed | NeedData:
        return ConnectionClosed() if self._closed else NEED_DATA


def _echo(message: Message) -> Message:
    """Gives what a reader repeats of a message."""
    data = message.data
    if data[0] != _ESCAPE or len(data) <= _MAX_ESCAPE_ECHO:
        return message
    return Message(data[:1] + bytes(_LENGTH_SIZE) + data[1 + _LENGTH_SIZE : _HEADER_SIZE])


def _encode(item: Sendable) -> bytes:
    match item:
        case Message(data):
            frame = _START + data
            return frame + bytes([reduce(xor, frame)])
        case Nak():
            return _NAK
        case CardEvent(present):
            return _CARD_INSERTED if present else _CARD_REMOVED
        case TimeRequest(value):
            return bytes([value])
