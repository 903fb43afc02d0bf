# SPDX-License-Identifier: Apache-2.0
"""usbredir: either end against a peer that sends anything."""

from collections import Counter

from ccid_protocol import ConnectionClosed, LocalProtocolError, NeedData, RemoteProtocolError
from ccid_protocol.usbredir import (
    MAX_PENDING,
    Cancelled,
    Capability,
    Connection,
    DeviceConnect,
    Endpoint,
    EndpointType,
    EpInfo,
    Event,
    Hello,
    Interface,
    InterfaceInfo,
    Packet,
    Resumed,
    Role,
    Speed,
    negotiate,
)
from ccid_protocol.usbredir.codec import MAX_BULK
from fuzzing.failure import check_stays
from fuzzing.script import Script

_MAX_PACKET = 16 + 10 + MAX_BULK
_CONTROL = Endpoint(EndpointType.CONTROL, max_packet_size=64)
_TABLES: tuple[Packet, ...] = (
    InterfaceInfo((Interface(0, 0x0B),)),
    EpInfo(
        {
            0x00: _CONTROL,
            0x80: _CONTROL,
            0x01: Endpoint(EndpointType.BULK, 0, 0, 64),
            0x82: Endpoint(EndpointType.BULK, 0, 0, 64),
            0x83: Endpoint(EndpointType.INTERRUPT, 16, 0, 8),
        }
    ),
    DeviceConnect(Speed.FULL, 0, 0, 0, 0x08E6, 0x3437),
)


def run(data: bytes) -> None:
    """Feeds the input, in pieces, to an end whose kind its first two bytes choose."""
    script = Script(data)
    flags, word = script.number(), Capability(script.number())
    role = Role.GUEST if flags & 1 else Role.DEVICE
    capabilities = negotiate(word, word) if flags & 2 else None
    connection = Connection(role, capabilities=capabilities)
    if flags & 4 and connection.can_resume:
        connection.resume()
    elif not flags & 8:
        connection.send(connection.hello)
    try:
        for piece in script.pieces():
            connection.receive_data(piece)
            while not isinstance(event := connection.next_event(), NeedData):
                if isinstance(event, ConnectionClosed):
                    return
                _take(connection, event)
            assert len(connection._buffer) < _MAX_PACKET
    except RemoteProtocolError as failure:
        check_stays(connection, failure)
        assert not connection._buffer


def _take(connection: Connection, event: Event) -> None:
    counts = Counter(
        (type(request), getattr(request, "endpoint", 0)) for request in connection.pending
    )
    assert connection.our_role is Role.GUEST or max(counts.values(), default=0) <= 2 * MAX_PENDING
    if isinstance(event, Cancelled):
        if event.answer is not None:
            connection.send(event.answer)
        return
    if isinstance(event, Resumed):
        connection.repeat()
        return
    assert isinstance(event, Packet)
    if not isinstance(event, Hello):  # its version was made legible
        _check_packet(connection, event)
    if connection.our_role is Role.DEVICE and connection.is_open and not connection.is_connected:
        _plug_in(connection)


def _check_packet(connection: Connection, packet: Packet) -> None:
    sender, codec = connection.our_role.peer, connection._codec
    raw = codec.encode(packet, sender)
    header, body = codec.decode_header(raw, sender), raw[codec.header_size :]
    assert codec.decode(header, body, sender) == packet


def _plug_in(connection: Connection) -> None:
    """Connects the device, if this is the time."""
    for packet in _TABLES:
        try:
            connection.send(packet)
        except LocalProtocolError:
            return
