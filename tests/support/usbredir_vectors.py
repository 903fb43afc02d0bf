# SPDX-License-Identifier: Apache-2.0
"""Each packet of usbredir with its bytes, from the specification."""

from dataclasses import replace

from ccid_protocol.usbredir import (
    AllocBulkStreams,
    AltSettingStatus,
    BufferedBulkPacket,
    BulkPacket,
    BulkReceivingStatus,
    BulkStreamsStatus,
    CancelDataPacket,
    Capability,
    ConfigurationStatus,
    ControlPacket,
    DeviceConnect,
    DeviceDisconnect,
    DeviceDisconnectAck,
    Endpoint,
    EndpointType,
    EpInfo,
    FilterFilter,
    FilterReject,
    FreeBulkStreams,
    GetAltSetting,
    GetConfiguration,
    Interface,
    InterfaceInfo,
    InterruptPacket,
    InterruptReceivingStatus,
    IsoPacket,
    IsoStreamStatus,
    Packet,
    Reset,
    Role,
    SetAltSetting,
    SetConfiguration,
    Speed,
    StartBulkReceiving,
    StartInterruptReceiving,
    StartIsoStream,
    Status,
    StopBulkReceiving,
    StopInterruptReceiving,
    StopIsoStream,
)
from ccid_protocol.usbredir.codec import Codec

DEVICE, GUEST = Role.DEVICE, Role.GUEST

CONTROL = Endpoint(EndpointType.CONTROL, max_packet_size=64)
CCID_ENDPOINTS = {
    0x00: CONTROL,
    0x80: CONTROL,
    0x01: Endpoint(EndpointType.BULK, 0, 0, 64),
    0x82: Endpoint(EndpointType.BULK, 0, 0, 64),
    0x83: Endpoint(EndpointType.INTERRUPT, 16, 0, 8),
}

# type, length, id of 32 bits; then the fields.
VECTORS: list[tuple[Role, Packet, str, str]] = [
    (
        DEVICE,
        DeviceConnect(Speed.FULL, 0xFF, 1, 2, 0x08E6, 0x3437),
        "01 08 0",
        "01ff0102 e608 3734",
    ),
    (DEVICE, DeviceDisconnect(), "02 00 0", ""),
    (GUEST, Reset(), "03 00 0", ""),
    (
        DEVICE,
        InterfaceInfo((Interface(0, 0x0B, 0, 0), Interface(1, 3, 1, 2))),
        "04 84 0",
        f"02000000 0001{'00' * 30} 0b03{'00' * 30} 0001{'00' * 30} 0002{'00' * 30}",
    ),
    (
        DEVICE,
        EpInfo(CCID_ENDPOINTS),
        "05 60 0",
        f"0002{'ff' * 14} 00ff0203{'ff' * 12} {'00' * 19}10{'00' * 12} {'00' * 32}",
    ),
    (GUEST, SetConfiguration(7, 1), "06 01 7", "01"),
    (GUEST, GetConfiguration(8), "07 00 8", ""),
    (DEVICE, ConfigurationStatus(7, Status.SUCCESS, 1), "08 02 7", "0001"),
    (GUEST, SetAltSetting(9, 3, 2), "09 02 9", "0302"),
    (GUEST, GetAltSetting(9, 3), "0a 01 9", "03"),
    (DEVICE, AltSettingStatus(9, Status.INVAL, 3, 2), "0b 03 9", "020302"),
    (GUEST, StartIsoStream(1, 0x05, 8, 4), "0c 03 1", "050804"),
    (GUEST, StopIsoStream(1, 0x05), "0d 01 1", "05"),
    (DEVICE, IsoStreamStatus(1, Status.STALL, 0x05), "0e 02 1", "0405"),
    (GUEST, StartInterruptReceiving(0, 0x83), "0f 01 0", "83"),
    (GUEST, StopInterruptReceiving(0, 0x83), "10 01 0", "83"),
    (DEVICE, InterruptReceivingStatus(0, Status.SUCCESS, 0x83), "11 02 0", "0083"),
    (GUEST, AllocBulkStreams(2, 0x40000, 4), "12 08 2", "00000400 04000000"),
    (GUEST, FreeBulkStreams(2, 0x40000), "13 04 2", "00000400"),
    (DEVICE, BulkStreamsStatus(2, 0x40000, 4, 0), "14 09 2", "00000400 04000000 00"),
    (GUEST, CancelDataPacket(0xCAFE), "15 00 cafe", ""),
    (GUEST, FilterReject(), "16 00 0", ""),
    (GUEST, FilterFilter("-1,-1,-1,-1,1"), "17 0e 0", b"-1,-1,-1,-1,1\0".hex()),
    (DEVICE, FilterFilter(""), "17 01 0", "00"),
    (GUEST, DeviceDisconnectAck(), "18 00 0", ""),
    (GUEST, StartBulkReceiving(3, 1, 512, 0x82, 2), "19 0a 3", "01000000 00020000 82 02"),
    (GUEST, StopBulkReceiving(3, 1, 0x82), "1a 05 3", "01000000 82"),
    (DEVICE, BulkReceivingStatus(3, 1, 0x82, 4), "1b 06 3", "01000000 82 04"),
    (
        GUEST,
        ControlPacket(5, 0x80, 6, 0x80, 0x0100, 0x0409, 18),
        "64 0a 5",
        "80 06 80 00 0001 0904 1200",
    ),
    (
        DEVICE,
        ControlPacket(5, 0x80, 6, 0x80, 0x0100, 0, data=b"\x12\x01"),
        "64 0c 5",
        "80 06 80 00 0001 0000 0200 1201",
    ),
    (
        GUEST,
        ControlPacket(5, 0x00, 9, 0x21, 0x0200, 0, data=b"ab"),
        "64 0c 5",
        "00 09 21 00 0002 0000 0200 6162",
    ),
    (GUEST, BulkPacket(6, 0x82, 256), "65 08 6", "82 00 0001 00000000"),
    (DEVICE, BulkPacket(6, 0x82, data=b"abc"), "65 0b 6", "82 00 0300 00000000 616263"),
    (GUEST, BulkPacket(6, 0x01, data=b"abc", stream_id=9), "65 0b 6", "01 00 0300 09000000 616263"),
    (DEVICE, BulkPacket(6, 0x01, 3, Status.STALL), "65 08 6", "01 04 0300 00000000"),
    (GUEST, IsoPacket(0x04, b"ab", 1), "66 06 1", "04 00 0200 6162"),
    (DEVICE, IsoPacket(0x84, b"ab", 1, 5), "66 06 1", "84 05 0200 6162"),
    (DEVICE, InterruptPacket(0x83, b"\x50\x03", 1), "67 06 1", "83 00 0200 5003"),
    (GUEST, InterruptPacket(0x03, b"ab", 1), "67 06 1", "03 00 0200 6162"),
    (DEVICE, InterruptPacket(0x03, id=1, length=2), "67 04 1", "03 00 0200"),
    (DEVICE, BufferedBulkPacket(0x82, b"ab", 1, 3), "68 0c 1", "03000000 02000000 82 00 6162"),
]

# With 32-bit ids and lengths and the shortest tables, but every packet.
PLAIN = Capability.FILTER | Capability.DEVICE_DISCONNECT_ACK | Capability.BULK_RECEIVING


def header(described: str, *, wide: bool = False) -> bytes:
    packet_type, length, packet_id = (int(word, 16) for word in described.split())
    return (
        packet_type.to_bytes(4, "little")
        + length.to_bytes(4, "little")
        + packet_id.to_bytes(8 if wide else 4, "little")
    )


def decode(codec: Codec, data: bytes, sender: Role) -> Packet:
    head = codec.decode_header(data, sender)
    body = data[codec.header_size :]
    assert len(body) == head.length
    return codec.decode(head, body, sender)


def plain_codec(packet: Packet) -> Codec:
    """A codec that has streams only where they are needed: they make the table longer."""
    streams = Capability.BULK_STREAMS | Capability.EP_INFO_MAX_PACKET_SIZE
    needs_streams = isinstance(packet, AllocBulkStreams | FreeBulkStreams | BulkStreamsStatus)
    return Codec(PLAIN | streams if needs_streams else PLAIN)


def without_sizes(packet: Packet) -> Packet:
    """What is left of ep_info without the capability EP_INFO_MAX_PACKET_SIZE."""
    if not isinstance(packet, EpInfo):
        return packet
    return EpInfo({a: replace(e, max_packet_size=0) for a, e in packet.endpoints.items()})


def name(value: object) -> str | None:
    return type(value).__name__ if isinstance(value, Packet) else None
