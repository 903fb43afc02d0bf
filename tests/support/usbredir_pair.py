# SPDX-License-Identifier: Apache-2.0
"""A usbredir device and its guest, each with the state machine of this project."""

import pytest

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.events import ConnectionClosed, NeedData
from ccid_protocol.usbredir import (
    DEVICE_CAPABILITIES,
    BulkPacket,
    Capability,
    Connection,
    ControlPacket,
    DeviceConnect,
    DevicePacket,
    Endpoint,
    EndpointType,
    EpInfo,
    Event,
    Interface,
    InterfaceInfo,
    Packet,
    Role,
    Speed,
    Status,
)
from ccid_protocol.usbredir.codec import Codec

CONTROL = Endpoint(EndpointType.CONTROL)
INTERFACES = InterfaceInfo((Interface(0, 0x0B),))
ENDPOINTS = EpInfo({0x00: CONTROL, 0x80: CONTROL})
CONNECT = DeviceConnect(Speed.FULL, 0, 0, 0, 0x08E6, 0x3437)
STALL = Status.STALL


class Pair:
    """A device and a guest with a wire between them that delivers when it is told to."""

    def __init__(self, capabilities: Capability = DEVICE_CAPABILITIES) -> None:
        self.device = Connection(Role.DEVICE, capabilities=capabilities)
        self.guest = Connection(Role.GUEST)
        self.guest_sends(self.guest.hello)
        self.device_sends(self.device.hello)

    def device_sends(self, *packets: Packet) -> list[Event]:
        for packet in packets:
            self.guest.receive_data(self.device.send(packet))
        return drain(self.guest)

    def guest_sends(self, *packets: Packet) -> list[Event]:
        for packet in packets:
            self.device.receive_data(self.guest.send(packet))
        return drain(self.device)


def drain(connection: Connection) -> list[Event]:
    """Takes all events up to the first that is no packet of the peer."""
    events: list[Event] = []
    while True:
        event = connection.next_event()
        if isinstance(event, NeedData):
            return events
        events.append(event)
        if isinstance(event, ConnectionClosed):
            return events


def connected(capabilities: Capability = DEVICE_CAPABILITIES) -> Pair:
    pair = Pair(capabilities)
    pair.device_sends(INTERFACES, ENDPOINTS, CONNECT)
    return pair


def forge(connection: Connection, packet: Packet) -> None:
    """Has a connection receive what its peer's `Connection` would not send."""
    codec = Codec(connection.capabilities)
    connection.receive_data(codec.encode(packet, connection.our_role.peer))


def refused_by_both(pair: Pair, packet: DevicePacket) -> None:
    """Holds that the device does not send a packet, and that the guest does not take it."""
    with pytest.raises(LocalProtocolError):
        pair.device.send(packet)
    forge(pair.guest, packet)
    with pytest.raises(RemoteProtocolError):
        pair.guest.next_event()


READ = BulkPacket(1, 0x82, 64)
WRITE = BulkPacket(1, 0x01, data=b"abc")
GET = ControlPacket(1, 0x80, 6, 0x80, 0x0100, 0, 18)
SET = ControlPacket(1, 0x00, 9, 0x21, 0x0200, 0, data=b"ab")
