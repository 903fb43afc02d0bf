# SPDX-License-Identifier: Apache-2.0
"""usb redirection: a USB device in a process of its own, at the other end of a QEMU chardev.

Source: the USB Network Redirection protocol description, version 0.7, what libusbredirparser 0.13
and 0.15 verify, and the behaviour of QEMU 7.2 and 10 (hw/usb/redirect.c).

Each end says `Hello` with its capabilities; those that both have decide how packets are laid out.
The device (ccidd) then says `InterfaceInfo`, `EpInfo` and `DeviceConnect`, and from there on

* the guest (QEMU) asks for control and bulk transfers, and the device answers each once, in any
  order, by its id. An IN request with nothing to say waits.
* the guest starts and stops the receiving of an interrupt endpoint; in between the device sends its
  packets when there are any. Those that the guest has not seen when it stops are lost.
* the guest may cancel what it asked for (`Cancelled`), reset the device, or be gone.
* the device may leave and come back (`DeviceDisconnect`).

A malformed packet makes QEMU abort, so `Connection` builds none: see `layouts` for who may send
what in which form, and `exchange` for when.
"""

from ccid_protocol.usbredir.codec import MAX_BULK
from ccid_protocol.usbredir.connection import Connection, Event
from ccid_protocol.usbredir.constants import (
    DEVICE_CAPABILITIES,
    GUEST_CAPABILITIES,
    NO_CAPABILITIES,
    Capability,
    EndpointType,
    PacketType,
    Role,
    Speed,
    Status,
    endpoint_address,
    endpoint_index,
    is_in,
    negotiate,
)
from ccid_protocol.usbredir.data import (
    BufferedBulkPacket,
    BulkPacket,
    ControlPacket,
    InterruptPacket,
    IsoPacket,
)
from ccid_protocol.usbredir.events import Cancelled, LostData, Resumed
from ccid_protocol.usbredir.exchange import MAX_PENDING, MAX_REMEMBERED, Session
from ccid_protocol.usbredir.packets import (
    AllocBulkStreams,
    AltSettingStatus,
    Answer,
    BulkReceivingStatus,
    BulkStreamsStatus,
    CancelDataPacket,
    ConfigurationStatus,
    DeviceConnect,
    DeviceDisconnect,
    DeviceDisconnectAck,
    DevicePacket,
    Endpoint,
    EpInfo,
    FilterFilter,
    FilterReject,
    FreeBulkStreams,
    GetAltSetting,
    GetConfiguration,
    GuestPacket,
    Hello,
    Interface,
    InterfaceInfo,
    InterruptReceivingStatus,
    IsoStreamStatus,
    Packet,
    PlainRequest,
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

__all__ = [
    "DEVICE_CAPABILITIES",
    "GUEST_CAPABILITIES",
    "MAX_BULK",
    "MAX_PENDING",
    "MAX_REMEMBERED",
    "NO_CAPABILITIES",
    "AllocBulkStreams",
    "AltSettingStatus",
    "Answer",
    "BufferedBulkPacket",
    "BulkPacket",
    "BulkReceivingStatus",
    "BulkStreamsStatus",
    "CancelDataPacket",
    "Cancelled",
    "Capability",
    "ConfigurationStatus",
    "Connection",
    "ControlPacket",
    "DeviceConnect",
    "DeviceDisconnect",
    "DeviceDisconnectAck",
    "DevicePacket",
    "Endpoint",
    "EndpointType",
    "EpInfo",
    "Event",
    "FilterFilter",
    "FilterReject",
    "FreeBulkStreams",
    "GetAltSetting",
    "GetConfiguration",
    "GuestPacket",
    "Hello",
    "Interface",
    "InterfaceInfo",
    "InterruptPacket",
    "InterruptReceivingStatus",
    "IsoPacket",
    "IsoStreamStatus",
    "LostData",
    "Packet",
    "PacketType",
    "PlainRequest",
    "Request",
    "Reset",
    "Resumed",
    "Role",
    "Session",
    "SetAltSetting",
    "SetConfiguration",
    "Speed",
    "StartBulkReceiving",
    "StartInterruptReceiving",
    "StartIsoStream",
    "Status",
    "StopBulkReceiving",
    "StopInterruptReceiving",
    "StopIsoStream",
    "StreamPacket",
    "StreamStatus",
    "TransferAnswer",
    "TransferRequest",
    "endpoint_address",
    "endpoint_index",
    "is_in",
    "negotiate",
]
