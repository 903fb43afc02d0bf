# SPDX-License-Identifier: Apache-2.0
"""One end of a usb redirection connection, without the I/O."""

from typing import Final, TypeAlias, cast

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.events import NEED_DATA, ConnectionClosed, NeedData
from ccid_protocol.usbredir.codec import MAX_BULK, Codec, Header
from ccid_protocol.usbredir.constants import (
    DEVICE_CAPABILITIES,
    GUEST_CAPABILITIES,
    NO_CAPABILITIES,
    Capability,
    PacketType,
    Role,
    negotiate,
)
from ccid_protocol.usbredir.data import InterruptPacket
from ccid_protocol.usbredir.events import Cancelled, Resumed
from ccid_protocol.usbredir.exchange import Exchange, Session
from ccid_protocol.usbredir.packets import DevicePacket, GuestPacket, Hello, Packet, Request

Event: TypeAlias = Packet | Cancelled | Resumed | ConnectionClosed | NeedData

_TYPE_SIZE: Final = 4
# Bytes by which a header with an id of 64 bits is longer than that of every Hello.
_ID_GROWTH: Final = 4
_DEFAULT_CAPABILITIES: Final = {
    Role.DEVICE: DEVICE_CAPABILITIES,
    Role.GUEST: GUEST_CAPABILITIES,
}


class Connection:
    """One end of a usb redirection connection, without the I/O.

    A guest says hello as soon as its virtual machine runs, and `next_event` gives `Hello`; the
    device says its own (`hello`), the tables and DeviceConnect. But a virtual machine that was
    migrated goes on in the middle of its session, and says nothing before it wants something. There
    the first packet gives `Resumed`, or a program that knows calls `resume`.

    A device may say hello before the guest does. A fresh guest takes it as it comes; one that goes
    on takes it for the beginning of a packet, which what is sent next completes, and ignores it. So
    a guest that has read it, and has not said hello, goes on.

    Each request of the guest waits until it is answered, or cancelled. 64 of a kind may wait; more
    end the connection. On UHCI a guest sends a long message in hundreds of 64-byte bulk OUT packets
    at once, so those are to be answered before `next_event` is asked for more.

    Args:
        our_role: the end that the caller is.
        capabilities: what this end announces; by default all that QEMU has (guest), or all of it
            but bulk streams and bulk receiving (device).
        version: a name for the peer's log, of at most 63 bytes.
        max_bulk: bytes of bulk data in one packet, either way.
        previous: what is taken over from the session before, should it be resumed.

    Raises:
        LocalProtocolError: The capabilities hold BULK_STREAMS without EP_INFO_MAX_PACKET_SIZE.
    """

    def __init__(
        self,
        our_role: Role,
        *,
        capabilities: Capability | None = None,
        version: str = "ccidd",
        max_bulk: int = MAX_BULK,
        previous: Session | None = None,
    ) -> None:
        if capabilities is None:
            capabilities = _DEFAULT_CAPABILITIES[our_role]
        if previous is None:
            previous = Session(negotiate(capabilities, _DEFAULT_CAPABILITIES[our_role.peer]))
        for word in (capabilities, previous.capabilities):
            if negotiate(word, word) != word:
                raise LocalProtocolError("BULK_STREAMS without EP_INFO_MAX_PACKET_SIZE")
        self.our_role: Final = our_role
        self.hello: Final = Hello(version, capabilities)
        """Our hello, for `send`."""
        self._max_bulk: Final = max_bulk
        self._previous: Final = previous
        self._buffer = bytearray()
        self._closed = False
        self._failure: RemoteProtocolError | None = None
        self._sent_hello = False
        # What is missing in a Hello that its reader takes for a packet with an id of 64 bits.
        self._hello_end = b""
        self._received_hello: Hello | None = None
        self._codec = Codec(NO_CAPABILITIES, max_bulk)
        self._header: Header | None = None
        # None until both hellos are exchanged or the session is resumed.
        self._exchange: Exchange | None = None

    @property
    def has_said_hello(self) -> bool:
        """Whether our hello was sent."""
        return self._sent_hello

    @property
    def is_open(self) -> bool:
        """Whether both hellos were exchanged, or the session is resumed."""
        return self._exchange is not None

    @property
    def can_resume(self) -> bool:
        """Whether the session before can be gone on with: nothing was received yet."""
        greeted = self._sent_hello and self.our_role is Role.GUEST
        received = self._buffer or self._header or self._received_hello
        return not (self.is_open or greeted or received)

    @property
    def capabilities(self) -> Capability:
        """The capabilities that count; none before the connection is open."""
        return self._codec.capabilities

    @property
    def is_connected(self) -> bool:
        """Whether the device is plugged in."""
        return self._exchange is not None and self._exchange.is_connected

    @property
    def pending(self) -> tuple[Request, ...]:
        """The requests of the guest that wait for an answer, without their data."""
        return self._exchange.requests if self._exchange is not None else ()

    @property
    def session(self) -> Session:
        """What a connection needs to know that resumes this one, for its argument `previous`."""
        return self._exchange.session if self._exchange is not None else self._previous

    def is_receiving(self, endpoint: int) -> bool:
        """Whether the guest wants the packets of an interrupt IN endpoint now."""
        exchange = self._exchange
        return exchange is not None and exchange.is_started(InterruptPacket, endpoint)

    def resume(self) -> None:
        """Opens the connection without hellos, because the session before goes on.

        A device's end does so by itself when the guest's first packet is no Hello.

        Raises:
            LocalProtocolError: The guest has said something, or we as a guest have; or the
                connection is open.
        """
        if not self.can_resume:
            raise LocalProtocolError("a connection cannot be resumed once it has begun")
        self._resume()

    def repeat(self) -> bytes:
        """Gives the answers again that the guest of a resumed session has perhaps not read.

        They are those sent since the guest last said something, without those whose id it uses
        again: call this once, when all that the guest has said by now was taken. QEMU lets an
        answer pass that it does not wait for.

        Returns:
            Bytes to be written to the guest; none if there is nothing to repeat.
        """
        due = self._exchange.take_due_again() if self._exchange is not None else ()
        repeated = b"".join(self._codec.encode(answer, Role.DEVICE) for answer in due)
        return self._after_hello(repeated)

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the peer; `b""` means that the peer closed the connection."""
        if not data:
            self._closed = True
        elif self._failure is None:
            self._buffer += data

    def next_event(self) -> Event:
        """Gives the next packet of the peer, or what it means.

        Returns:
            A packet; `Cancelled` instead of CancelDataPacket; `Resumed` before the first packet of
            a session that is resumed; `ConnectionClosed` when the peer closed between two packets;
            or `NEED_DATA`.

        Raises:
            RemoteProtocolError: The peer broke the protocol. The connection is of no more use, and
                every later call raises the same.
        """
        if self._failure is not None:
            raise self._failure
        try:
            while True:
                event = self._extract()
                if isinstance(event, NeedData | ConnectionClosed | Resumed):
                    return event
                accepted = self._accept(event)
                if accepted is not None:
                    return accepted
        except RemoteProtocolError as error:
            self._failure = error
            self._buffer.clear()
            raise

    def send(self, packet: Packet) -> bytes:
        """Gives the bytes of a packet, to be written to the peer whole and in this order.

        Raises:
            LocalProtocolError: This end may not send that packet, or not now; nothing changes.
        """
        if isinstance(packet, Hello):
            return self._send_hello(packet)
        if self._exchange is None:
            raise LocalProtocolError(f"{type(packet).__name__} before both hellos")
        # The codec refuses what a role may not send.
        if self.our_role is Role.GUEST:
            data = self._codec.encode(packet, Role.GUEST)
            self._exchange.guest_sends(cast("GuestPacket", packet))
            return data
        numbered = self._exchange.number(cast("DevicePacket", packet))
        data = self._codec.encode(numbered, Role.DEVICE)
        self._exchange.device_sends(numbered)
        return self._after_hello(data)

    def _after_hello(self, data: bytes) -> bytes:
        """Puts what completes a Hello before what else is sent."""
        if data:
            data, self._hello_end = self._hello_end + data, b""
        return data

    def _send_hello(self, hello: Hello) -> bytes:
        if hello != self.hello:
            raise LocalProtocolError("a Hello that is not the connection's own")
        if self._sent_hello or self.is_open:
            raise LocalProtocolError("a second Hello")
        data = self._codec.encode(hello, self.our_role)
        self._sent_hello = True
        self._open_after_hellos()
        return data

    def _open_after_hellos(self) -> None:
        if self._sent_hello and self._received_hello is not None:
            self._open(negotiate(self.hello.capabilities, self._received_hello.capabilities))

    def _resume(self) -> None:
        self._open(self._previous.capabilities, self._previous)
        if self._sent_hello and Capability.IDS_64BITS in self._previous.capabilities:
            self._hello_end = bytes(_ID_GROWTH)

    def _open(self, capabilities: Capability, previous: Session | None = None) -> None:
        self._codec = Codec(capabilities, self._max_bulk)
        self._exchange = Exchange(self.our_role, capabilities, previous)

    def _extract(self) -> Packet | Resumed | ConnectionClosed | NeedData:
        if self._header is None:
            no_header = self._extract_header()
            if no_header is not None:
                return no_header
        header = self._header
        assert header is not None
        if len(self._buffer) < header.length:
            return self._incomplete()
        body = bytes(self._buffer[: header.length])
        del self._buffer[: header.length]
        self._header = None
        return self._codec.decode(header, body, self.our_role.peer)

    def _extract_header(self) -> Resumed | ConnectionClosed | NeedData | None:
        """Moves a header from the buffer to its place, or says what there is instead."""
        if len(self._buffer) < _TYPE_SIZE:
            return self._incomplete()
        is_hello = int.from_bytes(self._buffer[:_TYPE_SIZE], "little") == PacketType.HELLO
        codec = self._codec
        resumes = False
        if self._exchange is None:
            if self._received_hello is not None:
                raise RemoteProtocolError("a packet before our Hello")
            resumes = not is_hello
            if resumes and self.our_role is Role.GUEST:
                raise RemoteProtocolError("a packet before Hello")
            if resumes:
                codec = Codec(self._previous.capabilities, self._max_bulk)
        elif is_hello:
            raise RemoteProtocolError("a second Hello, or one in a session that goes on")
        if len(self._buffer) < codec.header_size:
            return self._incomplete()
        self._header = codec.decode_header(self._buffer, self.our_role.peer)
        del self._buffer[: codec.header_size]
        if not resumes:
            return None
        self._resume()
        return Resumed()

    def _incomplete(self) -> ConnectionClosed | NeedData:
        if not self._closed:
            return NEED_DATA
        if self._buffer or self._header is not None:
            raise RemoteProtocolError("connection closed in the middle of a packet")
        return ConnectionClosed()

    def _accept(self, packet: Packet) -> Packet | Cancelled | None:
        """Holds a packet against the protocol's state; None if the caller must not see it."""
        if isinstance(packet, Hello):
            self._received_hello = packet
            self._open_after_hellos()
            return packet
        assert self._exchange is not None
        # The codec lets pass only what the peer may send.
        if self.our_role is Role.DEVICE:
            return self._exchange.guest_sends(cast("GuestPacket", packet))
        self._exchange.device_sends(cast("DevicePacket", packet))
        return packet
