# SPDX-License-Identifier: Apache-2.0
"""The control packets of usb redirection, and the groups that all packets fall into.

Source: the USB Network Redirection protocol description, version 0.7; each class is named after the
packet that it stands for (usb_redir_device_connect: `DeviceConnect`).

A packet has an `id` where the protocol gives the id a meaning: the guest chooses it for a request,
and the device's answer repeats it. An `endpoint` is an address as in a USB endpoint descriptor,
whose bit 7 is set for IN, from the device to the guest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ccid_protocol.usbredir.constants import Capability, EndpointType
from ccid_protocol.usbredir.data import (
    BufferedBulkPacket,
    BulkPacket,
    ControlPacket,
    InterruptPacket,
    IsoPacket,
)

# --- the session and the device ---


@dataclass(frozen=True, slots=True)
class Hello:
    """The first packet of each end.

    Attributes:
        version: a name for the log, of at most 63 bytes in UTF-8; nobody may interpret it.
        capabilities: what the sender can do.
    """

    version: str
    capabilities: Capability


@dataclass(frozen=True, slots=True)
class DeviceConnect:
    """The device is plugged in.

    Attributes:
        speed: a `Speed`.
        device_class: as in the device descriptor, like all that follow.
        device_subclass: the subclass.
        device_protocol: the protocol.
        vendor_id: idVendor.
        product_id: idProduct.
        device_version: bcdDevice; 0 at the guest's end without CONNECT_DEVICE_VERSION.
    """

    speed: int
    device_class: int
    device_subclass: int
    device_protocol: int
    vendor_id: int
    product_id: int
    device_version: int = 0


@dataclass(frozen=True, slots=True)
class DeviceDisconnect:
    """The device is unplugged. All requests and streams end unanswered."""


@dataclass(frozen=True, slots=True)
class DeviceDisconnectAck:
    """The guest has seen DeviceDisconnect: whatever comes next is not for the old device.

    Needs the capability DEVICE_DISCONNECT_ACK.
    """


@dataclass(frozen=True, slots=True)
class Reset:
    """The guest resets the device. There is no answer."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A line of interface_info, with the fields of an interface descriptor.

    Attributes:
        number: bInterfaceNumber.
        interface_class: bInterfaceClass.
        interface_subclass: bInterfaceSubClass.
        interface_protocol: bInterfaceProtocol.
    """

    number: int
    interface_class: int
    interface_subclass: int = 0
    interface_protocol: int = 0


@dataclass(frozen=True, slots=True)
class InterfaceInfo:
    """The interfaces of the active configuration.

    Attributes:
        interfaces: at most 32.
    """

    interfaces: tuple[Interface, ...]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A line of ep_info.

    Attributes:
        type: the transfer type.
        interval: bInterval, which QEMU wants to be above 0 for iso and interrupt endpoints.
        interface: the number of the interface that the endpoint belongs to.
        max_packet_size: bytes; 0 at the guest's end without EP_INFO_MAX_PACKET_SIZE.
        max_streams: streams of a bulk endpoint; 0 at the guest's end without BULK_STREAMS.
    """

    type: EndpointType
    interval: int = 0
    interface: int = 0
    max_packet_size: int = 0
    max_streams: int = 0


@dataclass(frozen=True, slots=True)
class EpInfo:
    """The endpoints of the active configuration.

    Attributes:
        endpoints: the endpoints by address; 00h and 80h, the control endpoint, are among them.
    """

    endpoints: Mapping[int, Endpoint]


@dataclass(frozen=True, slots=True)
class FilterReject:
    """A filter of the guest does not let the device in, or it does not suit the guest.

    Needs the capability FILTER.
    """


@dataclass(frozen=True, slots=True)
class FilterFilter:
    """The sender has a filter. Needs the capability FILTER.

    Attributes:
        rules: "class,vendor,product,version,allow" for each rule, joined by "|"; ASCII.
    """

    rules: str


@dataclass(frozen=True, slots=True)
class CancelDataPacket:
    """The guest takes a request back. A device gets it as the event `Cancelled`."""

    id: int


# --- configurations and alternate settings ---


@dataclass(frozen=True, slots=True)
class SetConfiguration:
    """The guest chooses a configuration; the device says InterfaceInfo, EpInfo, then its answer."""

    id: int
    configuration: int


@dataclass(frozen=True, slots=True)
class GetConfiguration:
    """The guest asks for the active configuration."""

    id: int


@dataclass(frozen=True, slots=True)
class ConfigurationStatus:
    """The answer to SetConfiguration and GetConfiguration.

    Attributes:
        id: the id of the request.
        status: a `Status`.
        configuration: the configuration that is now active.
    """

    id: int
    status: int
    configuration: int


@dataclass(frozen=True, slots=True)
class SetAltSetting:
    """The guest chooses an alternate setting; the answer is as with SetConfiguration."""

    id: int
    interface: int
    alt: int


@dataclass(frozen=True, slots=True)
class GetAltSetting:
    """The guest asks for the alternate setting of an interface."""

    id: int
    interface: int


@dataclass(frozen=True, slots=True)
class AltSettingStatus:
    """The answer to SetAltSetting and GetAltSetting.

    Attributes:
        id: the id of the request.
        status: a `Status`.
        interface: the interface of the request.
        alt: the alternate setting that is now active.
    """

    id: int
    status: int
    interface: int
    alt: int


# --- streams: what the device sends without being asked for each piece ---


@dataclass(frozen=True, slots=True)
class StartIsoStream:
    """The guest starts an isochronous stream.

    Attributes:
        id: the id that the answer repeats.
        endpoint: the endpoint, IN or OUT.
        pkts_per_urb: packets of one transfer on a real bus.
        no_urbs: transfers to keep in flight on a real bus.
    """

    id: int
    endpoint: int
    pkts_per_urb: int
    no_urbs: int


@dataclass(frozen=True, slots=True)
class StopIsoStream:
    """The guest stops an isochronous stream."""

    id: int
    endpoint: int


@dataclass(frozen=True, slots=True)
class IsoStreamStatus:
    """The answer to both; with the id 0 and STALL also news: the device stopped the stream."""

    id: int
    status: int
    endpoint: int


@dataclass(frozen=True, slots=True)
class StartInterruptReceiving:
    """The guest wants the packets of an interrupt IN endpoint. QEMU's id is 0."""

    id: int
    endpoint: int


@dataclass(frozen=True, slots=True)
class StopInterruptReceiving:
    """The guest wants no more of them, and throws away those that it has. QEMU's id is 0."""

    id: int
    endpoint: int


@dataclass(frozen=True, slots=True)
class InterruptReceivingStatus:
    """The answer to both; with the id 0 and STALL also news: the device stopped the stream."""

    id: int
    status: int
    endpoint: int


@dataclass(frozen=True, slots=True)
class StartBulkReceiving:
    """The guest wants a bulk IN endpoint to be read ahead. Needs the capability BULK_RECEIVING.

    Attributes:
        id: the id that the answer repeats.
        stream_id: the bulk stream.
        bytes_per_transfer: bytes, a multiple of the endpoint's packet size.
        endpoint: the endpoint.
        no_transfers: transfers to keep in flight on a real bus.
    """

    id: int
    stream_id: int
    bytes_per_transfer: int
    endpoint: int
    no_transfers: int


@dataclass(frozen=True, slots=True)
class StopBulkReceiving:
    """The guest wants no more of it. Needs the capability BULK_RECEIVING."""

    id: int
    stream_id: int
    endpoint: int


@dataclass(frozen=True, slots=True)
class BulkReceivingStatus:
    """The answer to both; with the id 0 and STALL also news: the device stopped the stream.

    Needs the capability BULK_RECEIVING.
    """

    id: int
    stream_id: int
    endpoint: int
    status: int


@dataclass(frozen=True, slots=True)
class AllocBulkStreams:
    """The guest wants stream ids. Needs the capability BULK_STREAMS.

    Attributes:
        id: the id that the answer repeats.
        endpoints: a bit mask; see `endpoint_index`.
        no_streams: the stream ids 1 to this shall be usable.
    """

    id: int
    endpoints: int
    no_streams: int


@dataclass(frozen=True, slots=True)
class FreeBulkStreams:
    """The guest gives the stream ids of some endpoints back. Needs the capability BULK_STREAMS."""

    id: int
    endpoints: int


@dataclass(frozen=True, slots=True)
class BulkStreamsStatus:
    """The answer to both. Needs the capability BULK_STREAMS.

    Attributes:
        id: the id of the request.
        endpoints: the bit mask of the request.
        no_streams: as many as were asked for; 0 in the answer to FreeBulkStreams.
        status: a `Status`.
    """

    id: int
    endpoints: int
    no_streams: int
    status: int


# --- what groups of packets have in common ---

TransferRequest: TypeAlias = (
    SetConfiguration | GetConfiguration | SetAltSetting | GetAltSetting | ControlPacket | BulkPacket
)
"""Requests that the guest may cancel. Their ids differ as long as they wait."""

PlainRequest: TypeAlias = (
    StartIsoStream
    | StopIsoStream
    | StartInterruptReceiving
    | StopInterruptReceiving
    | StartBulkReceiving
    | StopBulkReceiving
    | AllocBulkStreams
    | FreeBulkStreams
    | InterruptPacket
)
"""Requests that are not cancelled, and whose ids need not differ.

QEMU gives the id 0 to those about streams, and does not wait for the answer to an interrupt OUT
packet before it uses the id again.
"""

Request: TypeAlias = TransferRequest | PlainRequest
"""What the device answers."""

StreamStatus: TypeAlias = IsoStreamStatus | InterruptReceivingStatus | BulkReceivingStatus
"""Answers that can also be news: without a request, the device stopped a stream."""

TransferAnswer: TypeAlias = ConfigurationStatus | AltSettingStatus | ControlPacket | BulkPacket
"""The answers to a TransferRequest."""

Answer: TypeAlias = TransferAnswer | StreamStatus | BulkStreamsStatus | InterruptPacket
"""What answers a Request."""

StreamPacket: TypeAlias = IsoPacket | InterruptPacket | BufferedBulkPacket
"""The pieces of streams; an InterruptPacket for an OUT endpoint is none."""

DevicePacket: TypeAlias = (
    DeviceConnect | DeviceDisconnect | InterfaceInfo | EpInfo | FilterFilter | Answer | StreamPacket
)
"""What a device may send after its Hello."""

GuestPacket: TypeAlias = (
    Reset
    | CancelDataPacket
    | FilterReject
    | FilterFilter
    | DeviceDisconnectAck
    | IsoPacket
    | Request
)
"""What a guest may send after its Hello."""

Packet: TypeAlias = Hello | DevicePacket | GuestPacket
