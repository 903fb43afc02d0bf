# SPDX-License-Identifier: Apache-2.0
"""VSCARD: what QEMU's ccid-card-passthru and the program behind its chardev say to each other.

Source: QEMU's vscard_common.h, protocol version 0.0.2, and the behaviour of QEMU 7.2 and 10.
Integers are unsigned, 32 bits, big-endian. A message is a header of 12 bytes (type, reader id,
length of the payload) and its payload.

The client (a card: ccidd, vscclient) speaks first and sends Init; the host (QEMU) answers with its
own. After that

* the client says what happens to the reader and the card: ReaderAdd, ReaderRemove, ATR (a card is
  inserted) and CardRemove. The host answers each with an Error, whose code 0 means success.
* the host sends command APDUs, and the client answers each with one response APDU, in order.
  Nothing but their order ties answers to commands.

There is no message for power: the client is not told that a guest powers the card off or on.

Some of what the format allows harms QEMU, so `Connection` refuses to build it:

* A response of more than 374 bytes does not fit QEMU's bulk-in buffer and is lost, and one of
  exactly 54 bytes (64 with the CCID header) makes xHCI and OHCI guests lose step.
* A message behind a short Init, or many in a row, can stall QEMU's chardev for good: the client
  waits for the host's Init, and for the Error that answers one notification before the next.
* QEMU ends its pending commands itself when a card or reader goes. An answer that comes later
  would be taken for that of the next command. So the client answers all commands that it has
  before it says that a card goes, and those that cross that message on the way are dropped unseen.

A command that an earlier client left unanswered is still pending in QEMU, and ReaderRemove makes
QEMU forget it without a word to the guest, which then waits for minutes. An Error from the client
completes what is pending, and does nothing where nothing is. So a client may send one, before its
first notification.
"""

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.events import NEED_DATA, ConnectionClosed, NeedData

VERSION: Final = 0x00000002
"""Protocol version 0.0.2: 11 bits major, 10 bits middle, 11 bits minor."""

UNDEFINED_READER_ID: Final = 0xFFFFFFFF
"""The reader id of messages that name no reader (VSCARD_UNDEFINED_READER_ID)."""

MAX_PAYLOAD: Final = 65524
"""Bytes: QEMU reads into a linear buffer of 64 KiB, which also holds the 12-byte header."""

MAX_RESPONSE: Final = 374
"""Bytes of a response APDU with its status word: QEMU's bulk-in buffer is 384, CCID's header 10."""

UNSAFE_RESPONSE_LENGTH: Final = 54
"""The response length that, with CCID's header, fills one 64-byte USB packet exactly."""

MAX_PENDING_APDUS: Final = 128
"""Commands that QEMU lets wait for an answer; it aborts when there is one more."""

MAX_ATR: Final = 40
"""Bytes of the longest ATR that QEMU stores."""

_MAGIC: Final = b"VSCD"

# vscard_common.h, VSCMsgHeader: type, reader_id, length
_HEADER: Final = struct.Struct(">III")
# vscard_common.h, VSCMsgInit: magic, version; capabilities (any number of u32) follow
_INIT: Final = struct.Struct(">4sI")
# vscard_common.h, VSCMsgError: code
_ERROR: Final = struct.Struct(">I")


class MessageType(enum.IntEnum):
    """The type field of a header (vscard_common.h, VSCMsgType)."""

    INIT = 1
    ERROR = 2
    READER_ADD = 3
    READER_REMOVE = 4
    ATR = 5
    CARD_REMOVE = 6
    APDU = 7
    FLUSH = 8
    FLUSH_COMPLETE = 9


class ErrorCode(enum.IntEnum):
    """The codes of an Error message (vscard_common.h, VSCErrorCode)."""

    SUCCESS = 0
    GENERAL_ERROR = 1
    CANNOT_ADD_MORE_READERS = 2
    CARD_ALREADY_INSERTED = 3


@dataclass(frozen=True, slots=True)
class Init:
    """The first message of each side.

    Attributes:
        version: the protocol version of the sender.
        capabilities: 32-bit capability words; none is defined, so all are 0.
    """

    version: int = VERSION
    capabilities: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Error:
    """The host's answer to a notification; from a client, the end of a command left behind.

    Attributes:
        code: an `ErrorCode`, or a number that the format does not define.
        reader_id: the reader; in the answer to ReaderAdd, the id that the host chose for it.
    """

    code: int
    reader_id: int = UNDEFINED_READER_ID


@dataclass(frozen=True, slots=True)
class ReaderAdd:
    """A reader is plugged in.

    Attributes:
        name: its name in UTF-8, which QEMU ignores.
    """

    name: bytes = b""


@dataclass(frozen=True, slots=True)
class ReaderRemove:
    """A reader, with the card in it, is unplugged."""

    reader_id: int = 0


@dataclass(frozen=True, slots=True)
class ATR:
    """A card is inserted, or was reset.

    Attributes:
        atr: its answer to reset, of 2 to 40 bytes.
        reader_id: the reader.
    """

    atr: bytes
    reader_id: int = 0


@dataclass(frozen=True, slots=True)
class CardRemove:
    """The card is taken out of a reader."""

    reader_id: int = 0


@dataclass(frozen=True, slots=True)
class APDU:
    """A command APDU (from the host) or the response to the oldest unanswered one (to the host).

    Attributes:
        data: the APDU's bytes. They may hold a PIN, so they are left out of the repr.
        reader_id: the reader.
    """

    data: bytes = field(repr=False)
    reader_id: int = 0


@dataclass(frozen=True, slots=True)
class Flush:
    """The host asks for a FlushComplete once all its commands are answered. QEMU never does."""

    reader_id: int = 0


@dataclass(frozen=True, slots=True)
class FlushComplete:
    """The client has answered every command that came before Flush."""

    reader_id: int = 0


Notification: TypeAlias = ReaderAdd | ReaderRemove | ATR | CardRemove
"""What a client tells of the reader and the card; the host answers each with an Error."""

Message: TypeAlias = Init | Error | Notification | APDU | Flush | FlushComplete


class Role(enum.Enum):
    """Which end of the connection one is."""

    CLIENT = "client"
    HOST = "host"


_TYPES: Final[dict[type[Message], MessageType]] = {
    Init: MessageType.INIT,
    Error: MessageType.ERROR,
    ReaderAdd: MessageType.READER_ADD,
    ReaderRemove: MessageType.READER_REMOVE,
    ATR: MessageType.ATR,
    CardRemove: MessageType.CARD_REMOVE,
    APDU: MessageType.APDU,
    Flush: MessageType.FLUSH,
    FlushComplete: MessageType.FLUSH_COMPLETE,
}

# What each role may send once both Inits are exchanged.
_MAY_SEND: Final[dict[Role, tuple[type[Message], ...]]] = {
    Role.CLIENT: (Init, Error, ReaderAdd, ReaderRemove, ATR, CardRemove, APDU, FlushComplete),
    Role.HOST: (Init, Error, APDU, Flush),
}
# The notifications after which the host itself ends its pending commands.
_FLUSHING: Final = (ReaderRemove, ATR, CardRemove)


def encode(message: Message) -> bytes:
    """Gives a message's bytes, header included, whoever may send it and whenever.

    `Connection.send` is what keeps to the order and the limits of the protocol.
    """
    match message:
        case Init(version, capabilities):
            words = struct.pack(f">{len(capabilities)}I", *capabilities)
            payload = _INIT.pack(_MAGIC, version) + words
        case Error(code):
            payload = _ERROR.pack(code)
        case ReaderAdd(content) | ATR(content) | APDU(content):
            payload = content
        case _:
            payload = b""
    reader_id = UNDEFINED_READER_ID if isinstance(message, Init | ReaderAdd) else message.reader_id
    return _HEADER.pack(_TYPES[type(message)], reader_id, len(payload)) + payload


def _decode_init(_reader_id: int, payload: bytes) -> Init:
    if len(payload) < _INIT.size or len(payload) % 4:
        raise RemoteProtocolError(f"Init with a payload of {len(payload)} bytes")
    magic, version = _INIT.unpack_from(payload)
    if magic != _MAGIC:
        raise RemoteProtocolError("Init without the magic 'VSCD': the peer does not speak VSCARD")
    words = struct.unpack(f">{len(payload) // 4 - 2}I", payload[_INIT.size :])
    return Init(version, words)


def _decode_error(reader_id: int, payload: bytes) -> Error:
    if len(payload) != _ERROR.size:
        raise RemoteProtocolError(f"Error with a payload of {len(payload)} bytes")
    return Error(_ERROR.unpack(payload)[0], reader_id)


# QEMU sends no payload with these, but the format does not forbid one.
_DECODERS: Final[dict[int, Callable[[int, bytes], Message]]] = {
    MessageType.INIT: _decode_init,
    MessageType.ERROR: _decode_error,
    MessageType.READER_ADD: lambda _reader_id, payload: ReaderAdd(payload),
    MessageType.READER_REMOVE: lambda reader_id, _payload: ReaderRemove(reader_id),
    MessageType.ATR: lambda reader_id, payload: ATR(payload, reader_id),
    MessageType.CARD_REMOVE: lambda reader_id, _payload: CardRemove(reader_id),
    MessageType.APDU: lambda reader_id, payload: APDU(payload, reader_id),
    MessageType.FLUSH: lambda reader_id, _payload: Flush(reader_id),
    MessageType.FLUSH_COMPLETE: lambda reader_id, _payload: FlushComplete(reader_id),
}


class Connection:
    """One end of a VSCARD connection, without the I/O.

    Args:
        our_role: the end that the caller is.
    """

    def __init__(self, our_role: Role) -> None:
        self.our_role: Final = our_role
        self._their_role: Final = Role.HOST if our_role is Role.CLIENT else Role.CLIENT
        self._buffer = bytearray()
        self._closed = False
        self._failure: RemoteProtocolError | None = None
        self._sent_init = False
        self._received_init = False
        self._notified = False
        self._unanswered: Notification | None = None
        self._pending_apdus = 0

    @property
    def is_open(self) -> bool:
        """Whether both Inits were exchanged."""
        return self._sent_init and self._received_init

    @property
    def pending_apdus(self) -> int:
        """How many of the host's command APDUs wait for their response."""
        return self._pending_apdus

    @property
    def unanswered(self) -> Notification | None:
        """The client's notification that the host has yet to answer with an Error."""
        return self._unanswered

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the peer; `b""` means that the peer closed the connection."""
        if data:
            self._buffer += data
        else:
            self._closed = True

    def next_event(self) -> Message | ConnectionClosed | NeedData:
        """Gives the next message of the peer.

        Returns:
            A message, `ConnectionClosed` when the peer closed between two messages, or `NEED_DATA`.

        Raises:
            RemoteProtocolError: The peer broke the protocol. The connection is of no more use, and
                every later call raises the same.
        """
        if self._failure is not None:
            raise self._failure
        try:
            while True:
                event = self._extract_message()
                if isinstance(event, NeedData | ConnectionClosed) or self._accept(event):
                    return event
        except RemoteProtocolError as error:
            self._failure = error
            self._buffer.clear()
            raise

    def send(self, message: Message) -> bytes:
        """Gives the bytes of a message, to be written to the peer whole and in this order.

        Raises:
            LocalProtocolError: This end may not send that message, or not now; nothing changes.
        """
        if not isinstance(message, _MAY_SEND[self.our_role]):
            raise LocalProtocolError(f"a {self.our_role.value} does not send {message!r}")
        if not isinstance(message, Init) and not self.is_open:
            raise LocalProtocolError(f"{message!r} before both Inits")
        match message:
            case Init():
                # A host repeats it for each one that it gets.
                if self._sent_init and self.our_role is Role.CLIENT:
                    raise LocalProtocolError("a second Init")
                self._sent_init = True
            case Error():
                self._send_error()
            case APDU(data):
                self._send_apdu(data)
            case ReaderAdd() | ReaderRemove() | ATR() | CardRemove():
                self._send_notification(message)
            case Flush() | FlushComplete():
                pass
        return encode(message)

    def _send_error(self) -> None:
        if self.our_role is Role.CLIENT:
            if self._notified or self._pending_apdus:
                raise LocalProtocolError("an Error for a command that is not left behind")
            return
        if self._unanswered is None:
            raise LocalProtocolError("an Error that answers nothing")
        if isinstance(self._unanswered, _FLUSHING):
            self._pending_apdus = 0
        self._unanswered = None

    def _send_apdu(self, data: bytes) -> None:
        if self.our_role is Role.HOST:
            if len(data) > MAX_PAYLOAD:
                raise LocalProtocolError(f"a command APDU of {len(data)} bytes")
            if self._pending_apdus == MAX_PENDING_APDUS:
                raise LocalProtocolError(f"more than {MAX_PENDING_APDUS} unanswered commands")
            self._pending_apdus += 1
            return
        if not self._pending_apdus:
            raise LocalProtocolError("a response APDU without a command")
        if not 2 <= len(data) <= MAX_RESPONSE or len(data) == UNSAFE_RESPONSE_LENGTH:
            raise LocalProtocolError(f"QEMU cannot take a response APDU of {len(data)} bytes")
        self._pending_apdus -= 1

    def _send_notification(self, message: Notification) -> None:
        if self._unanswered is not None:
            raise LocalProtocolError(f"{message!r} before {self._unanswered!r} is answered")
        if isinstance(message, _FLUSHING) and self._pending_apdus:
            raise LocalProtocolError(f"{message!r} with unanswered commands")
        if isinstance(message, ATR) and not 2 <= len(message.atr) <= MAX_ATR:
            raise LocalProtocolError(f"QEMU cannot take an ATR of {len(message.atr)} bytes")
        if isinstance(message, ReaderAdd) and len(message.name) > MAX_PAYLOAD:
            raise LocalProtocolError(f"a reader name of {len(message.name)} bytes")
        self._unanswered = message
        self._notified = True

    def _extract_message(self) -> Message | ConnectionClosed | NeedData:
        if len(self._buffer) < _HEADER.size:
            return self._incomplete()
        message_type, reader_id, length = _HEADER.unpack_from(self._buffer)
        decoder = _DECODERS.get(message_type)
        if decoder is None:
            raise RemoteProtocolError(f"message of unknown type {message_type}")
        if length > MAX_PAYLOAD:
            raise RemoteProtocolError(f"message with a payload of {length} bytes")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return self._incomplete()
        payload = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return decoder(reader_id, payload)

    def _incomplete(self) -> ConnectionClosed | NeedData:
        if not self._closed:
            return NEED_DATA
        if self._buffer:
            raise RemoteProtocolError("connection closed in the middle of a message")
        return ConnectionClosed()

    def _accept(self, message: Message) -> bool:
        """Holds a message against the protocol's state; False if the caller must not see it."""
        if not isinstance(message, _MAY_SEND[self._their_role]):
            raise RemoteProtocolError(
                f"{type(message).__name__}, which a {self._their_role.value} does not send"
            )
        if isinstance(message, Init):
            self._received_init = True
            return True
        # QEMU forwards what a guest sends to the card of an earlier client, before it says Init.
        early = isinstance(message, APDU) and self._their_role is Role.HOST
        if not self._received_init and not early:
            raise RemoteProtocolError(f"{type(message).__name__} before Init")
        match message:
            case Error():
                self._accept_error()
            case APDU():
                return self._accept_apdu()
            case ReaderAdd() | ReaderRemove() | ATR() | CardRemove():
                if self._unanswered is not None:
                    raise RemoteProtocolError("two notifications without waiting for an Error")
                self._unanswered = message
            case _:
                pass
        return True

    def _accept_error(self) -> None:
        if self.our_role is Role.HOST:
            # It completes the oldest command, if there is one.
            self._pending_apdus = max(0, self._pending_apdus - 1)
        elif self._unanswered is None:
            raise RemoteProtocolError("an Error that answers nothing")
        self._unanswered = None

    def _accept_apdu(self) -> bool:
        if self.our_role is Role.HOST:
            if not self._pending_apdus:
                raise RemoteProtocolError("a response APDU without a command")
            self._pending_apdus -= 1
            return True
        if isinstance(self._unanswered, _FLUSHING):
            # It crossed the notification on its way: the host has ended it by itself.
            return False
        if self._pending_apdus == MAX_PENDING_APDUS:
            raise RemoteProtocolError(f"more than {MAX_PENDING_APDUS} unanswered commands")
        self._pending_apdus += 1
        return True
