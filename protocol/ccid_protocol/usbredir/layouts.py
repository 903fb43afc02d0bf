# SPDX-License-Identifier: Apache-2.0
"""How each packet of usb redirection lies on the wire behind its header.

Source: the USB Network Redirection protocol description, version 0.7. This table is the one place
that knows who may send a packet, which capability it needs, which fields it has under which
capabilities, and how long the tail behind the fields may be.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from ccid_protocol.usbredir.constants import NO_CAPABILITIES, Capability, PacketType, Role
from ccid_protocol.usbredir.data import (
    BufferedBulkPacket,
    BulkPacket,
    ControlPacket,
    InterruptPacket,
    IsoPacket,
)
from ccid_protocol.usbredir.packets import (
    AllocBulkStreams,
    AltSettingStatus,
    BulkReceivingStatus,
    BulkStreamsStatus,
    CancelDataPacket,
    ConfigurationStatus,
    DeviceConnect,
    DeviceDisconnect,
    DeviceDisconnectAck,
    EpInfo,
    FilterFilter,
    FilterReject,
    FreeBulkStreams,
    GetAltSetting,
    GetConfiguration,
    Hello,
    InterfaceInfo,
    InterruptReceivingStatus,
    IsoStreamStatus,
    Packet,
    Reset,
    SetAltSetting,
    SetConfiguration,
    StartBulkReceiving,
    StartInterruptReceiving,
    StartIsoStream,
    StopBulkReceiving,
    StopInterruptReceiving,
    StopIsoStream,
)

MAX_CAPABILITY_WORDS: Final = 8
"""32-bit words of capabilities in a hello; 8 bits are in use."""

MAX_FILTER: Final = 64 * 1024
"""Bytes of a filter's text, with the zero that ends it."""

_MAX_SHORT: Final = 0xFFFF


class Field(NamedTuple):
    """A field: its name in the packet's class, its form for `struct`, and what it needs."""

    name: str
    form: str
    needs: Capability = NO_CAPABILITIES


@dataclass(frozen=True, slots=True)
class Layout:
    """What follows the header.

    Attributes:
        packet_type: the type in the header.
        packet: the class of the packet.
        senders: who may send it.
        fields: the fields in their order.
        needs: what both ends must have announced for the packet to be sent at all.
        max_tail: the most bytes behind the fields; None for bulk data, which the user of the codec
            limits.
        in_only: whether the endpoint must be IN.
    """

    packet_type: PacketType
    packet: type[Packet]
    senders: tuple[Role, ...]
    fields: tuple[Field, ...] = ()
    needs: Capability = NO_CAPABILITIES
    max_tail: int | None = 0
    in_only: bool = False


_DEVICE: Final = (Role.DEVICE,)
_GUEST: Final = (Role.GUEST,)
_BOTH: Final = (Role.DEVICE, Role.GUEST)

_CONFIGURATION: Final = Field("configuration", "B")
_INTERFACE: Final = Field("interface", "B")
_ALT: Final = Field("alt", "B")
_ENDPOINT: Final = Field("endpoint", "B")
_STATUS: Final = Field("status", "B")
_LENGTH: Final = Field("length", "H")
_STREAM_ID: Final = Field("stream_id", "I")
_ENDPOINT_MASK: Final = Field("endpoints", "I")
_NO_STREAMS: Final = Field("no_streams", "I")

LAYOUTS: Final = (
    # The capability words are its tail.
    Layout(
        PacketType.HELLO,
        Hello,
        _BOTH,
        (Field("version", "64s"),),
        max_tail=4 * MAX_CAPABILITY_WORDS,
    ),
    Layout(
        PacketType.DEVICE_CONNECT,
        DeviceConnect,
        _DEVICE,
        (
            Field("speed", "B"),
            Field("device_class", "B"),
            Field("device_subclass", "B"),
            Field("device_protocol", "B"),
            Field("vendor_id", "H"),
            Field("product_id", "H"),
            Field("device_version", "H", Capability.CONNECT_DEVICE_VERSION),
        ),
    ),
    Layout(PacketType.DEVICE_DISCONNECT, DeviceDisconnect, _DEVICE),
    Layout(PacketType.RESET, Reset, _GUEST),
    Layout(
        PacketType.INTERFACE_INFO,
        InterfaceInfo,
        _DEVICE,
        (
            Field("interface_count", "I"),
            Field("number", "32B"),
            Field("interface_class", "32B"),
            Field("interface_subclass", "32B"),
            Field("interface_protocol", "32B"),
        ),
    ),
    Layout(
        PacketType.EP_INFO,
        EpInfo,
        _DEVICE,
        (
            Field("type", "32B"),
            Field("interval", "32B"),
            Field("interface", "32B"),
            Field("max_packet_size", "32H", Capability.EP_INFO_MAX_PACKET_SIZE),
            Field("max_streams", "32I", Capability.BULK_STREAMS),
        ),
    ),
    Layout(PacketType.SET_CONFIGURATION, SetConfiguration, _GUEST, (_CONFIGURATION,)),
    Layout(PacketType.GET_CONFIGURATION, GetConfiguration, _GUEST),
    Layout(
        PacketType.CONFIGURATION_STATUS, ConfigurationStatus, _DEVICE, (_STATUS, _CONFIGURATION)
    ),
    Layout(PacketType.SET_ALT_SETTING, SetAltSetting, _GUEST, (_INTERFACE, _ALT)),
    Layout(PacketType.GET_ALT_SETTING, GetAltSetting, _GUEST, (_INTERFACE,)),
    Layout(PacketType.ALT_SETTING_STATUS, AltSettingStatus, _DEVICE, (_STATUS, _INTERFACE, _ALT)),
    Layout(
        PacketType.START_ISO_STREAM,
        StartIsoStream,
        _GUEST,
        (_ENDPOINT, Field("pkts_per_urb", "B"), Field("no_urbs", "B")),
    ),
    Layout(PacketType.STOP_ISO_STREAM, StopIsoStream, _GUEST, (_ENDPOINT,)),
    Layout(PacketType.ISO_STREAM_STATUS, IsoStreamStatus, _DEVICE, (_STATUS, _ENDPOINT)),
    Layout(
        PacketType.START_INTERRUPT_RECEIVING,
        StartInterruptReceiving,
        _GUEST,
        (_ENDPOINT,),
        in_only=True,
    ),
    Layout(
        PacketType.STOP_INTERRUPT_RECEIVING,
        StopInterruptReceiving,
        _GUEST,
        (_ENDPOINT,),
        in_only=True,
    ),
    Layout(
        PacketType.INTERRUPT_RECEIVING_STATUS,
        InterruptReceivingStatus,
        _DEVICE,
        (_STATUS, _ENDPOINT),
        in_only=True,
    ),
    Layout(
        PacketType.ALLOC_BULK_STREAMS,
        AllocBulkStreams,
        _GUEST,
        (_ENDPOINT_MASK, _NO_STREAMS),
        needs=Capability.BULK_STREAMS,
    ),
    Layout(
        PacketType.FREE_BULK_STREAMS,
        FreeBulkStreams,
        _GUEST,
        (_ENDPOINT_MASK,),
        needs=Capability.BULK_STREAMS,
    ),
    Layout(
        PacketType.BULK_STREAMS_STATUS,
        BulkStreamsStatus,
        _DEVICE,
        (_ENDPOINT_MASK, _NO_STREAMS, _STATUS),
        needs=Capability.BULK_STREAMS,
    ),
    Layout(PacketType.CANCEL_DATA_PACKET, CancelDataPacket, _GUEST),
    Layout(PacketType.FILTER_REJECT, FilterReject, _GUEST, needs=Capability.FILTER),
    # The rules are its tail.
    Layout(
        PacketType.FILTER_FILTER,
        FilterFilter,
        _BOTH,
        needs=Capability.FILTER,
        max_tail=MAX_FILTER,
    ),
    Layout(
        PacketType.DEVICE_DISCONNECT_ACK,
        DeviceDisconnectAck,
        _GUEST,
        needs=Capability.DEVICE_DISCONNECT_ACK,
    ),
    Layout(
        PacketType.START_BULK_RECEIVING,
        StartBulkReceiving,
        _GUEST,
        (_STREAM_ID, Field("bytes_per_transfer", "I"), _ENDPOINT, Field("no_transfers", "B")),
        needs=Capability.BULK_RECEIVING,
        in_only=True,
    ),
    Layout(
        PacketType.STOP_BULK_RECEIVING,
        StopBulkReceiving,
        _GUEST,
        (_STREAM_ID, _ENDPOINT),
        needs=Capability.BULK_RECEIVING,
        in_only=True,
    ),
    Layout(
        PacketType.BULK_RECEIVING_STATUS,
        BulkReceivingStatus,
        _DEVICE,
        (_STREAM_ID, _ENDPOINT, _STATUS),
        needs=Capability.BULK_RECEIVING,
        in_only=True,
    ),
    Layout(
        PacketType.CONTROL_PACKET,
        ControlPacket,
        _BOTH,
        (
            _ENDPOINT,
            Field("request", "B"),
            Field("requesttype", "B"),
            _STATUS,
            Field("value", "H"),
            Field("index", "H"),
            _LENGTH,
        ),
        max_tail=_MAX_SHORT,
    ),
    Layout(
        PacketType.BULK_PACKET,
        BulkPacket,
        _BOTH,
        (
            _ENDPOINT,
            _STATUS,
            _LENGTH,
            _STREAM_ID,
            Field("length_high", "H", Capability.BULK_LENGTH_32BITS),
        ),
        max_tail=None,
    ),
    Layout(
        PacketType.ISO_PACKET, IsoPacket, _BOTH, (_ENDPOINT, _STATUS, _LENGTH), max_tail=_MAX_SHORT
    ),
    Layout(
        PacketType.INTERRUPT_PACKET,
        InterruptPacket,
        _BOTH,
        (_ENDPOINT, _STATUS, _LENGTH),
        max_tail=_MAX_SHORT,
    ),
    Layout(
        PacketType.BUFFERED_BULK_PACKET,
        BufferedBulkPacket,
        _DEVICE,
        (_STREAM_ID, Field("length", "I"), _ENDPOINT, _STATUS),
        needs=Capability.BULK_RECEIVING,
        max_tail=None,
        in_only=True,
    ),
)
