# SPDX-License-Identifier: Apache-2.0
"""A usbredir device, and what QEMU was seen to say to one."""

from ccid_protocol.events import NEED_DATA
from ccid_protocol.usbredir import (
    GUEST_CAPABILITIES,
    BulkPacket,
    Capability,
    Connection,
    ControlPacket,
    Endpoint,
    EndpointType,
    EpInfo,
    Event,
    Hello,
    Packet,
    Reset,
    Role,
    SetConfiguration,
    StartInterruptReceiving,
)
from usbredir_pair import CONNECT, CONTROL, INTERFACES, drain

ENDPOINTS = EpInfo(
    {
        0x00: CONTROL,
        0x80: CONTROL,
        0x01: Endpoint(EndpointType.BULK),
        0x82: Endpoint(EndpointType.BULK),
        0x83: Endpoint(EndpointType.INTERRUPT, interval=16),
    }
)

QEMU_HELLO = bytes.fromhex(
    "00000000 44000000 00000000 71656d75 20757362 2d726564 69722067 75657374 20372e32 2e323200"
    "00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 ff000000"
)
QEMU_VERSION = "qemu usb-redir guest 7.2.22"

# What QEMU 7.2.22 was seen to send after its hello, on xHCI.
OBSERVED_64 = bytes.fromhex(
    "03000000 00000000 00000000 00000000"
    "64000000 0a000000 00f8fd03 00000000 8006802e 00010000 0800"
    "06000000 01000000 90f8fd03 00000000 01"
    "64000000 0a000000 b0f8fd03 00000000 000b2168 00000000 0000"
    "0f000000 01000000 00000000 00000000 81"
    "65000000 29000000 00890e00 00000000 0200 1f00 00000000 0000"
    "55534243 e7030000 24000000 80000c12 00000024 00000000 00000000 000000"
    "65000000 0a000000 008b0e00 00000000 8100 2400 00000000 0000"
)
OBSERVED_64_PACKETS = [
    Reset(),
    ControlPacket(0x3FDF800, 0x80, 6, 0x80, 0x0100, 0, 8),
    SetConfiguration(0x3FDF890, 1),
    ControlPacket(0x3FDF8B0, 0x00, 11, 0x21, 0, 0),
    StartInterruptReceiving(0, 0x81),
    BulkPacket(
        0xE8900,
        0x02,
        data=bytes.fromhex("55534243 e7030000 24000000 80000c12 00000024 00000000 00000000 000000"),
    ),
    BulkPacket(0xE8B00, 0x81, 36),
]
# The same on UHCI, for a device that announced no capabilities.
OBSERVED_32 = bytes.fromhex(
    "03000000 00000000 00000000"
    "64000000 0a000000 306efe02 80068000 00010000 0800"
    "06000000 01000000 446efe02 01"
    "0f000000 01000000 00000000 81"
)
OBSERVED_32_PACKETS = [
    Reset(),
    ControlPacket(0x2FE6E30, 0x80, 6, 0x80, 0x0100, 0, 8),
    SetConfiguration(0x2FE6E44, 1),
    StartInterruptReceiving(0, 0x81),
]


def open_device(
    capabilities: Capability | None = None, *, max_bulk: int = 128 * 1024
) -> Connection:
    """A device that QEMU said hello to, and that is plugged in."""
    device = Connection(Role.DEVICE, capabilities=capabilities, max_bulk=max_bulk)
    device.receive_data(QEMU_HELLO)
    assert drain(device) == [Hello(QEMU_VERSION, GUEST_CAPABILITIES)]
    for packet in (device.hello, INTERFACES, ENDPOINTS, CONNECT):
        device.send(packet)
    return device


def deliver(sender: Connection, packet: Packet, receiver: Connection) -> Event:
    receiver.receive_data(sender.send(packet))
    event = receiver.next_event()
    assert receiver.next_event() is NEED_DATA
    return event


def connect(device: Connection, guest: Connection) -> None:
    """Plugs the device in, and holds that each end understands the other."""
    assert deliver(guest, guest.hello, device) == guest.hello
    assert deliver(device, device.hello, guest) == device.hello
    for packet in (INTERFACES, ENDPOINTS, CONNECT):
        assert deliver(device, packet, guest) == packet
