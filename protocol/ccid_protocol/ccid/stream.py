# SPDX-License-Identifier: Apache-2.0
"""Messages out of the packets that arrive at a reader's bulk-OUT endpoint.

Source: USB CCID Rev 1.1, 3.1 and 6.1; Universal Serial Bus Specification Rev 2.0, 5.8.3 (a packet
shorter than wMaxPacketSize ends a transfer).

A host sends each message as one transfer. What arrives are pieces of it: with some host controllers
single packets, with others whole transfers or large parts of them. A piece that is no multiple of
wMaxPacketSize (and so an empty one) ends the transfer. A transfer that is a multiple may end
without such a piece, so the end of a message is what dwLength says, and the pieces are held against
it:

* Fewer bytes than a header end a transfer: a `RuntTransfer`. Nothing can be answered; a device
  stalls its endpoint.
* dwLength is more than the longest message has: at once a `BadMessage` (offset 1, dwLength), and
  the rest of the transfer is skipped, not kept.
* The transfer has more bytes than dwLength says: a `BadMessage` (dwLength), and the rest of the
  transfer is skipped.
* The transfer ends before all the bytes that dwLength says: a `BadMessage` (dwLength).
* An empty piece between two messages is the end of a transfer that was a multiple: nothing.

Bytes too many that begin just at the end of a piece cannot be told from the next message, and are
taken for one. A transfer that is too short or skipped ends with a piece that is no multiple, or,
because it may have no such piece, before one that looks like a whole message or, where it is
skipped, the beginning of a longer one.
"""

from collections import deque
from dataclasses import dataclass

from ccid_protocol.ccid.codec import decode_command, decode_header, is_command_type
from ccid_protocol.ccid.fields import Offset
from ccid_protocol.ccid.messages import HEADER_SIZE, BadMessage, Command
from ccid_protocol.events import NEED_DATA, NeedData


@dataclass(frozen=True, slots=True)
class RuntTransfer:
    """A transfer ended within the header of its message.

    Attributes:
        size: its bytes, 1 to 9.
    """

    size: int


class MessageReader:
    """The reader's end of the bulk-OUT endpoint, without the I/O.

    It holds less than one message besides the piece that was given last.

    Args:
        max_message_length: dwMaxCCIDMessageLength, bytes with the header.
        extended_apdu: whether the reader exchanges extended APDUs; see `decode_command`.
        max_packet_size: wMaxPacketSize of the endpoint, bytes.
    """

    def __init__(
        self, max_message_length: int, *, extended_apdu: bool = False, max_packet_size: int = 64
    ) -> None:
        self._max_message_length = max_message_length
        self._extended_apdu = extended_apdu
        self._max_packet_size = max_packet_size
        self._buffer = bytearray()
        self._skipping = False
        self._events: deque[Command | BadMessage | RuntTransfer] = deque()

    def receive_packet(self, data: bytes) -> None:
        """Takes a piece of a transfer: one or more packets, of which only the last may be short.

        It makes two events at most.
        """
        ends = not data or len(data) % self._max_packet_size != 0
        if self._skipping and not self._begins_message(data, ends=ends):
            self._skipping = not ends
            return
        self._skipping = False
        before = len(self._buffer)
        self._buffer += data
        event = self._extract_event(ends=ends)
        if event is None:
            return
        self._buffer.clear()
        self._events.append(event)
        if (
            isinstance(event, BadMessage)
            and before
            and ends
            and self._begins_message(data, ends=ends)
        ):
            self.receive_packet(data)

    def next_event(self) -> Command | BadMessage | RuntTransfer | NeedData:
        """Gives the next message, what stands for a bad one, or `NEED_DATA`."""
        return self._events.popleft() if self._events else NEED_DATA

    def reset(self) -> None:
        """Forgets what has arrived, as the reset of a device or of its endpoint demands."""
        self._buffer.clear()
        self._skipping = False
        self._events.clear()

    def _extract_event(self, *, ends: bool) -> Command | BadMessage | RuntTransfer | None:
        received = len(self._buffer)
        if received < HEADER_SIZE:
            return RuntTransfer(received) if received and ends else None
        message_type, length, slot, seq, _ = decode_header(self._buffer)
        size = HEADER_SIZE + length
        if received == size <= self._max_message_length:
            return decode_command(bytes(self._buffer), extended_apdu=self._extended_apdu)
        if received < size <= self._max_message_length and not ends:
            return None
        self._skipping = not ends
        error = Offset.LENGTH if is_command_type(message_type) else Offset.MESSAGE_TYPE
        return BadMessage(message_type, slot, seq, error)

    def _begins_message(self, data: bytes, *, ends: bool) -> bool:
        """Tells whether a piece, seen by itself, is a whole message or begins a longer one."""
        if len(data) < HEADER_SIZE:
            return False
        message_type, length, *_ = decode_header(data)
        size = HEADER_SIZE + length
        agrees = size == len(data) if ends else size >= len(data)
        return agrees and size <= self._max_message_length and is_command_type(message_type)
