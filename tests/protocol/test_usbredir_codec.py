# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from typing import get_args

import pytest

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.usbredir import (
    DEVICE_CAPABILITIES,
    GUEST_CAPABILITIES,
    NO_CAPABILITIES,
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
    DevicePacket,
    Endpoint,
    EndpointType,
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
    InterruptPacket,
    InterruptReceivingStatus,
    IsoPacket,
    IsoStreamStatus,
    Packet,
    PacketType,
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
    endpoint_address,
    endpoint_index,
    negotiate,
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


@pytest.mark.parametrize(("sender", "packet", "head", "body"), VECTORS, ids=name)
def test_each_packet_has_the_bytes_of_the_specification(
    sender: Role, packet: Packet, head: str, body: str
) -> None:
    data = header(head) + bytes.fromhex(body)

    assert plain_codec(packet).encode(packet, sender) == data


@pytest.mark.parametrize(("sender", "packet", "head", "body"), VECTORS, ids=name)
def test_the_bytes_of_the_specification_are_read(
    sender: Role, packet: Packet, head: str, body: str
) -> None:
    data = header(head) + bytes.fromhex(body)

    assert decode(plain_codec(packet), data, sender) == without_sizes(packet)


@pytest.mark.parametrize(("sender", "packet", "head", "body"), VECTORS, ids=name)
def test_with_64bit_ids_the_id_alone_is_longer(
    sender: Role, packet: Packet, head: str, body: str
) -> None:
    codec = Codec(plain_codec(packet).capabilities | Capability.IDS_64BITS)
    data = header(head, wide=True) + bytes.fromhex(body)

    assert codec.header_size == 16
    assert codec.encode(packet, sender) == data
    assert decode(codec, data, sender) == without_sizes(packet)


def test_the_vectors_hold_every_packet() -> None:
    assert {type(packet) for _, packet, _, _ in VECTORS} == {*get_args(Packet)} - {Hello}


@pytest.mark.parametrize(
    ("capabilities", "length"),
    [
        (NO_CAPABILITIES, 8),
        (GUEST_CAPABILITIES & ~Capability.CONNECT_DEVICE_VERSION, 8),
        (Capability.CONNECT_DEVICE_VERSION, 10),
        (DEVICE_CAPABILITIES, 10),
    ],
)
def test_device_connect_has_a_version_with_the_capability_only(
    capabilities: Capability, length: int
) -> None:
    codec = Codec(capabilities)
    packet = DeviceConnect(Speed.FULL, 0, 0, 0, 0x08E6, 0x3437, 0x0200)

    data = codec.encode(packet, DEVICE)

    assert data[4] == length == len(data) - codec.header_size
    version = 0x0200 if length == 10 else 0
    assert decode(codec, data, DEVICE) == replace(packet, device_version=version)


@pytest.mark.parametrize(
    ("capabilities", "length"),
    [
        (NO_CAPABILITIES, 96),
        (Capability.EP_INFO_MAX_PACKET_SIZE, 160),
        (DEVICE_CAPABILITIES, 160),
        (Capability.EP_INFO_MAX_PACKET_SIZE | Capability.BULK_STREAMS, 288),
        (GUEST_CAPABILITIES, 288),
    ],
)
def test_ep_info_has_sizes_and_streams_with_the_capabilities_only(
    capabilities: Capability, length: int
) -> None:
    codec = Codec(capabilities)
    endpoints = {**CCID_ENDPOINTS, 0x8F: Endpoint(EndpointType.BULK, 0, 1, 512, 7)}

    data = codec.encode(EpInfo(endpoints), DEVICE)

    body = data[codec.header_size :]
    assert data[4:8] == length.to_bytes(4, "little")
    assert len(body) == length
    assert body[0:32] == bytes.fromhex(f"0002{'ff' * 14} 00ff0203{'ff' * 11}02")
    if length > 96:
        assert body[96:160] == bytes.fromhex(
            f"40004000{'0000' * 14} 4000000040000800{'0000' * 11}0002"
        )
    if length > 160:
        assert body[160:288] == bytes(31 * 4) + bytes.fromhex("07000000")
    expected = {
        address: replace(
            endpoint,
            max_packet_size=endpoint.max_packet_size if length > 96 else 0,
            max_streams=endpoint.max_streams if length > 160 else 0,
        )
        for address, endpoint in endpoints.items()
    }
    assert decode(codec, data, DEVICE) == EpInfo(expected)


def test_bulk_lengths_have_32_bits_with_the_capability() -> None:
    codec = Codec(Capability.BULK_LENGTH_32BITS)
    packet = BulkPacket(1, 0x82, 0x12345)

    data = codec.encode(packet, GUEST)

    assert data == bytes.fromhex("65000000 0a000000 01000000 82 00 4523 00000000 0100")
    assert decode(codec, data, GUEST) == packet


def test_a_bulk_length_of_more_than_16_bits_needs_the_capability() -> None:
    codec = Codec(GUEST_CAPABILITIES ^ Capability.BULK_LENGTH_32BITS)

    assert len(codec.encode(BulkPacket(1, 0x82, 0xFFFF), GUEST)) == 16 + 8
    with pytest.raises(LocalProtocolError):
        codec.encode(BulkPacket(1, 0x82, 0x10000), GUEST)
    with pytest.raises(LocalProtocolError):
        codec.encode(BulkPacket(1, 0x82, data=bytes(0x10000)), DEVICE)


@pytest.mark.parametrize("capabilities", [NO_CAPABILITIES, GUEST_CAPABILITIES])
def test_a_hello_has_always_a_header_of_12_bytes(capabilities: Capability) -> None:
    data = Codec(capabilities).encode(Hello("ccidd", DEVICE_CAPABILITIES), DEVICE)

    expected = "00000000 44000000 00000000" + b"ccidd".ljust(64, b"\0").hex() + "7e000000"
    assert data == bytes.fromhex(expected)


def test_a_hello_may_have_no_capabilities_at_all() -> None:
    data = header("00 40 0") + b"usbredirhost 0.3".ljust(64, b"\0")

    assert decode(Codec(NO_CAPABILITIES), data, DEVICE) == Hello(
        "usbredirhost 0.3", NO_CAPABILITIES
    )


def test_unknown_capabilities_are_kept() -> None:
    codec = Codec(NO_CAPABILITIES)
    data = header("00 4c 0") + bytes(64) + bytes.fromhex("01010080 00000000 01000000")

    hello = decode(codec, data, DEVICE)

    assert hello == Hello("", Capability(1 << 64 | 0x80000101))
    assert codec.encode(hello, DEVICE) == data


def test_the_version_of_a_hello_ends_at_its_first_zero() -> None:
    text = "é\\".encode() + b"\xff\0rest"
    data = header("00 44 0") + text.ljust(64, b"x") + bytes(4)

    assert decode(Codec(NO_CAPABILITIES), data, GUEST) == Hello("é\\\\xff", NO_CAPABILITIES)


def test_the_version_of_a_hello_need_not_end() -> None:
    data = header("00 44 0") + b"v" * 64 + bytes(4)

    assert decode(Codec(NO_CAPABILITIES), data, GUEST) == Hello("v" * 64, NO_CAPABILITIES)


@pytest.mark.parametrize("length", [0, 63, 65, 66, 67, 69, 100])
def test_a_hello_of_another_length_is_refused(length: int) -> None:
    codec = Codec(NO_CAPABILITIES)

    with pytest.raises(RemoteProtocolError):
        decode(codec, header(f"00 {length:x} 0") + bytes(length), GUEST)


def test_the_status_of_a_request_is_not_looked_at() -> None:
    codec = Codec(NO_CAPABILITIES)
    # Observed: QEMU 7.2 sends whatever its memory held.
    data = bytes.fromhex("64000000 0a000000 10000000 80 06 80 fd 0001 0000 0800")

    assert decode(codec, data, GUEST) == ControlPacket(16, 0x80, 6, 0x80, 0x0100, 0, 8)


def test_an_unknown_status_of_an_answer_is_kept() -> None:
    codec = Codec(NO_CAPABILITIES)
    answer = BulkPacket(1, 0x01, 0, 77)

    assert decode(codec, codec.encode(answer, DEVICE), DEVICE) == answer


# --- who may send what ---

DEVICE_TYPES = {0, 1, 2, 4, 5, 8, 11, 14, 17, 20, 23, 27, 100, 101, 102, 103, 104}
GUEST_TYPES = {0, 3, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22, 23, 24, 25, 26} | {
    100,
    101,
    102,
    103,
}


def test_a_device_sends_its_own_packets_only() -> None:
    codec = Codec(GUEST_CAPABILITIES)
    sent = set()
    for sender, packet, _, _ in VECTORS:
        if sender is DEVICE:
            sent.add(codec.encode(packet, DEVICE)[0])
        elif not isinstance(packet, DevicePacket):
            with pytest.raises(LocalProtocolError):
                codec.encode(packet, DEVICE)

    assert sent | {PacketType.HELLO} == DEVICE_TYPES


def test_a_guest_sends_its_own_packets_only() -> None:
    codec = Codec(GUEST_CAPABILITIES)
    sent = set()
    for sender, packet, _, _ in VECTORS:
        if sender is GUEST:
            sent.add(codec.encode(packet, GUEST)[0])
        elif not isinstance(packet, GuestPacket):
            with pytest.raises(LocalProtocolError):
                codec.encode(packet, GUEST)

    assert sent | {PacketType.HELLO} == GUEST_TYPES


@pytest.mark.parametrize(("sender", "types"), [(DEVICE, DEVICE_TYPES), (GUEST, GUEST_TYPES)])
def test_packets_of_the_other_end_and_unknown_ones_are_refused(
    sender: Role, types: set[int]
) -> None:
    codec = Codec(GUEST_CAPABILITIES)
    for packet_type in {*range(300), 2**31, 2**32 - 1} - types:
        for length in (0, 1, 2, 8, 10, 96, 132, 288):
            with pytest.raises(RemoteProtocolError):
                codec.decode_header(header(f"{packet_type:x} {length:x} 0", wide=True), sender)


@pytest.mark.parametrize(
    ("needed", "packet", "sender"),
    [
        (Capability.BULK_STREAMS, AllocBulkStreams(1, 4, 1), GUEST),
        (Capability.BULK_STREAMS, FreeBulkStreams(1, 4), GUEST),
        (Capability.BULK_STREAMS, BulkStreamsStatus(1, 4, 1, 0), DEVICE),
        (Capability.FILTER, FilterReject(), GUEST),
        (Capability.FILTER, FilterFilter("x"), GUEST),
        (Capability.FILTER, FilterFilter("x"), DEVICE),
        (Capability.DEVICE_DISCONNECT_ACK, DeviceDisconnectAck(), GUEST),
        (Capability.BULK_RECEIVING, StartBulkReceiving(1, 0, 64, 0x82, 1), GUEST),
        (Capability.BULK_RECEIVING, StopBulkReceiving(1, 0, 0x82), GUEST),
        (Capability.BULK_RECEIVING, BulkReceivingStatus(1, 0, 0x82, 0), DEVICE),
        (Capability.BULK_RECEIVING, BufferedBulkPacket(0x82, b"x"), DEVICE),
    ],
)
def test_some_packets_need_a_capability(needed: Capability, packet: Packet, sender: Role) -> None:
    able, unable = Codec(GUEST_CAPABILITIES), Codec(GUEST_CAPABILITIES ^ needed)

    data = able.encode(packet, sender)
    assert decode(able, data, sender) == packet
    with pytest.raises(LocalProtocolError):
        unable.encode(packet, sender)
    with pytest.raises(RemoteProtocolError):
        unable.decode_header(data, sender)


# --- lengths ---


@pytest.mark.parametrize(("sender", "packet", "head", "body"), VECTORS, ids=name)
def test_a_packet_that_is_too_short_or_too_long_is_refused(
    sender: Role, packet: Packet, head: str, body: str
) -> None:
    codec = plain_codec(packet)
    whole = bytes.fromhex(body)
    packet_type, _, packet_id = head.split()
    for length in {0, len(whole) - 1, len(whole) + 1, 0x7FFFFFFF, 0xFFFFFFFF} - {-1, len(whole)}:
        described = header(f"{packet_type} {length:x} {packet_id}")
        fitting = (whole + bytes(64))[: min(length, 1024)]
        # The text of a filter may well end earlier or later, but not be empty.
        if isinstance(packet, FilterFilter) and length == len(whole) + 1:
            continue
        with pytest.raises(RemoteProtocolError):
            codec.decode(codec.decode_header(described, sender), fitting, sender)


@pytest.mark.parametrize("capabilities", [NO_CAPABILITIES, DEVICE_CAPABILITIES])
def test_more_bulk_data_than_agreed_is_refused_by_its_header(capabilities: Capability) -> None:
    codec = Codec(capabilities, max_bulk=1000)
    fixed = 10 if Capability.BULK_LENGTH_32BITS in capabilities else 8
    wide = Capability.IDS_64BITS in capabilities

    assert codec.decode_header(header(f"65 {fixed + 1000:x} 1", wide=wide), GUEST).id == 1
    with pytest.raises(RemoteProtocolError):
        codec.decode_header(header(f"65 {fixed + 1001:x} 1", wide=wide), GUEST)
    with pytest.raises(LocalProtocolError):
        codec.encode(BulkPacket(1, 0x82, data=bytes(1001)), DEVICE)


def test_more_buffered_bulk_data_than_agreed_is_refused_by_its_header() -> None:
    codec = Codec(GUEST_CAPABILITIES, max_bulk=1000)

    assert codec.decode_header(header(f"68 {10 + 1000:x} 1", wide=True), DEVICE).id == 1
    with pytest.raises(RemoteProtocolError):
        codec.decode_header(header(f"68 {10 + 1001:x} 1", wide=True), DEVICE)
    with pytest.raises(LocalProtocolError):
        codec.encode(BufferedBulkPacket(0x82, bytes(1001)), DEVICE)


@pytest.mark.parametrize("packet_type", [100, 102, 103])
def test_more_data_than_16_bits_count_is_refused_by_its_header(packet_type: int) -> None:
    fixed = 10 if packet_type == 100 else 4
    codec = Codec(NO_CAPABILITIES)

    assert codec.decode_header(header(f"{packet_type:x} {fixed + 0xFFFF:x} 1"), GUEST)
    with pytest.raises(RemoteProtocolError):
        codec.decode_header(header(f"{packet_type:x} {fixed + 0x10000:x} 1"), GUEST)


def test_a_filter_has_bounds() -> None:
    codec = Codec(Capability.FILTER)
    longest = "1" * 0xFFFF

    assert decode(codec, codec.encode(FilterFilter(longest), GUEST), GUEST) == FilterFilter(longest)
    with pytest.raises(LocalProtocolError):
        codec.encode(FilterFilter(longest + "1"), GUEST)
    with pytest.raises(RemoteProtocolError):
        codec.decode_header(header("17 10001 0"), GUEST)


@pytest.mark.parametrize("text", [b"abc", b"\xff\0", b"a\0b\0", b"\0\0", b"a\0b"])
def test_a_filter_that_is_no_text_is_refused(text: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(Codec(Capability.FILTER), header(f"17 {len(text):x} 0") + text, GUEST)


# --- what an encoder refuses, and a decoder that gets it all the same ---

WRONG: list[tuple[Role, Packet, str]] = [
    (GUEST, BulkPacket(1, 0x82, data=b"a"), "data with an IN request"),
    (GUEST, BulkPacket(1, 0x01, 2, data=b"a"), "less data than announced"),
    (GUEST, BulkPacket(1, 0x01, 2), "none of the data that is announced"),
    (GUEST, BulkPacket(1, 0x12, 2), "an endpoint that cannot be"),
    (GUEST, BulkPacket(1, 0xC2, 2), "an endpoint that cannot be"),
    (DEVICE, BulkPacket(1, 0x82, 2, data=b"a"), "less data than announced"),
    (DEVICE, BulkPacket(1, 0x82, 2), "none of the data that is announced"),
    (DEVICE, BulkPacket(1, 0x01, 1, data=b"a"), "data with the answer to an OUT request"),
    (GUEST, ControlPacket(1, 0x80, 6, 0x80, 0, 0, data=b"a"), "data with an IN request"),
    (GUEST, ControlPacket(1, 0x00, 9, 0x00, 0, 0, 5), "none of the data that is announced"),
    (DEVICE, ControlPacket(1, 0x00, 9, 0x00, 0, 0, data=b"a"), "data with an answer to OUT"),
    (DEVICE, ControlPacket(1, 0x80, 6, 0x80, 0, 0, 5, data=b"a"), "less data than announced"),
    (GUEST, IsoPacket(0x84, b""), "an IN packet of the guest"),
    (DEVICE, IsoPacket(0x04, b""), "an OUT packet of the device"),
    (GUEST, InterruptPacket(0x83), "an IN packet of the guest"),
    (GUEST, InterruptPacket(0x83, b"a"), "an IN packet of the guest with data"),
    (DEVICE, InterruptPacket(0x03, b"a"), "data with the answer to an OUT request"),
    (DEVICE, InterruptPacket(0x83, b"a", length=2), "less data than announced"),
    (DEVICE, BufferedBulkPacket(0x02, b"a"), "an OUT packet of the device"),
    (GUEST, StartInterruptReceiving(0, 0x03), "an OUT endpoint"),
    (GUEST, StopInterruptReceiving(0, 0x03), "an OUT endpoint"),
    (DEVICE, InterruptReceivingStatus(0, 0, 0x03), "an OUT endpoint"),
    (GUEST, StartBulkReceiving(0, 0, 64, 0x02, 1), "an OUT endpoint"),
    (GUEST, StopBulkReceiving(0, 0, 0x02), "an OUT endpoint"),
    (DEVICE, BulkReceivingStatus(0, 0, 0x02, 0), "an OUT endpoint"),
    (GUEST, StartIsoStream(0, 0x20, 1, 1), "an endpoint that cannot be"),
    (DEVICE, EpInfo({0x00: CONTROL}), "no control IN endpoint"),
    (DEVICE, EpInfo({0x80: CONTROL}), "no control OUT endpoint"),
    (DEVICE, EpInfo({**CCID_ENDPOINTS, 0x00: CCID_ENDPOINTS[0x01]}), "another endpoint 0"),
    (DEVICE, EpInfo({**CCID_ENDPOINTS, 0x83: Endpoint(EndpointType.INTERRUPT)}), "no interval"),
    (DEVICE, EpInfo({**CCID_ENDPOINTS, 0x84: Endpoint(EndpointType.ISO)}), "no interval"),
    (DEVICE, InterfaceInfo((Interface(0, 0),) * 33), "too many interfaces"),
]


@pytest.mark.parametrize(("sender", "packet", "why"), WRONG, ids=str)
def test_what_the_peers_parser_would_refuse_is_not_encoded(
    sender: Role, packet: Packet, why: str
) -> None:
    with pytest.raises(LocalProtocolError):
        Codec(GUEST_CAPABILITIES).encode(packet, sender)


@pytest.mark.parametrize(
    ("sender", "head", "body"),
    [
        (GUEST, "65 09 1", "82 00 0100 00000000 61"),
        (GUEST, "65 09 1", "01 00 0200 00000000 61"),
        (GUEST, "65 09 1", "01 00 0000 00000000 61"),
        (GUEST, "65 08 1", "01 00 0200 00000000"),
        (GUEST, "65 08 1", "12 00 0200 00000000"),
        (DEVICE, "65 09 1", "01 00 0100 00000000 61"),
        (DEVICE, "65 08 1", "82 00 0100 00000000"),
        (DEVICE, "65 09 1", "82 00 0000 00000000 61"),
        (GUEST, "64 0b 1", "80 06 80 00 0001 0000 0100 61"),
        (DEVICE, "64 0b 1", "00 06 80 00 0001 0000 0100 61"),
        (GUEST, "64 0b 1", "70 06 80 00 0001 0000 0100 61"),
        (GUEST, "66 04 1", "84 00 0000"),
        (DEVICE, "66 04 1", "04 00 0000"),
        (GUEST, "66 05 1", "04 00 0200 61"),
        (GUEST, "67 04 1", "83 00 0000"),
        (DEVICE, "67 05 1", "03 00 0100 61"),
        (DEVICE, "68 0b 1", "00000000 01000000 02 00 61"),
        (DEVICE, "68 0b 1", "00000000 02000000 82 00 61"),
        (GUEST, "0f 01 0", "03"),
        (GUEST, "0f 01 0", "93"),
        (GUEST, "10 01 0", "03"),
        (DEVICE, "11 02 0", "0003"),
        (GUEST, "0c 03 0", "500101"),
        (GUEST, "19 0a 3", "01000000 00020000 02 02"),
        (DEVICE, "04 84 0", "21000000" + "00" * 128),
        (DEVICE, "05 60 0", "00" * 16 + "ff" * 16 + "00" * 64),
        (DEVICE, "05 60 0", "ff" + "00" * 95),
        (DEVICE, "05 60 0", "0004" + "00" * 94),
        (DEVICE, "05 60 0", "0001" + "00" * 94),
        (DEVICE, "05 60 0", "0003" + "00" * 94),
    ],
)
def test_packets_with_wrong_contents_are_refused(sender: Role, head: str, body: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(Codec(PLAIN), header(head) + bytes.fromhex(body), sender)


def test_32_interfaces_fill_the_table() -> None:
    codec = Codec(NO_CAPABILITIES)
    packet = InterfaceInfo(tuple(Interface(number, 0x0B, 1, 2) for number in range(32)))

    data = codec.encode(packet, DEVICE)

    assert len(data) == 12 + 132
    assert decode(codec, data, DEVICE) == packet


@pytest.mark.parametrize(
    ("sender", "packet"),
    [
        (DEVICE, DeviceConnect(256, 0, 0, 0, 0, 0)),
        (DEVICE, DeviceConnect(1, 0, 0, 0, 0x10000, 0)),
        (DEVICE, ConfigurationStatus(1, 0, 256)),
        (DEVICE, ConfigurationStatus(-1, 0, 1)),
        (DEVICE, ConfigurationStatus(2**64, 0, 1)),
        (GUEST, StartIsoStream(1, 0x182, 1, 1)),
        (GUEST, StartIsoStream(1, -1, 1, 1)),
        (DEVICE, EpInfo({**CCID_ENDPOINTS, 0x10: CONTROL})),
        (DEVICE, EpInfo({**CCID_ENDPOINTS, 0x100: CONTROL})),
        (DEVICE, EpInfo({**CCID_ENDPOINTS, 0x81: Endpoint(EndpointType.BULK, 256)})),
        (DEVICE, InterfaceInfo((Interface(256, 0),))),
        (DEVICE, Hello("v" * 64, NO_CAPABILITIES)),
        (DEVICE, Hello("a\0b", NO_CAPABILITIES)),
        (DEVICE, Hello("", Capability(1 << 256))),
        (DEVICE, FilterFilter("é")),
        (DEVICE, FilterFilter("a\0b")),
        (DEVICE, ControlPacket(1, 0x80, 6, 0x80, 0, 0, data=bytes(0x10000))),
        (DEVICE, InterruptPacket(0x83, bytes(0x10000))),
        (DEVICE, BulkPacket(1, 0x01, -1)),
    ],
    ids=lambda value: name(value) or "",
)
def test_values_that_do_not_fit_are_not_encoded(sender: Role, packet: Packet) -> None:
    with pytest.raises(LocalProtocolError):
        Codec(GUEST_CAPABILITIES).encode(packet, sender)


def test_an_id_of_more_than_32_bits_needs_the_capability() -> None:
    packet = CancelDataPacket(2**32)

    assert (
        Codec(Capability.IDS_64BITS).encode(packet, GUEST).endswith(bytes([0, 0, 0, 0, 1, 0, 0, 0]))
    )
    with pytest.raises(LocalProtocolError):
        Codec(NO_CAPABILITIES).encode(packet, GUEST)


# --- small things ---


def test_the_place_of_an_endpoint_holds_its_direction_in_bit_4() -> None:
    addresses = [*range(0x10), *range(0x80, 0x90)]

    assert [endpoint_index(address) for address in addresses] == list(range(32))
    assert [endpoint_address(index) for index in range(32)] == addresses


@pytest.mark.parametrize(
    ("ours", "theirs", "both"),
    [
        (0x7E, 0xFF, 0x7E),
        (0xFF, 0xFF, 0xFF),
        (0xFF, 0x00, 0x00),
        (0xFF, 0xEF, 0xEE),  # BULK_STREAMS needs EP_INFO_MAX_PACKET_SIZE
        (0x11, 0x10, 0x10),
        (0x11, 0x01, 0x00),
        (0x180, 0x1FF, 0x180),
    ],
)
def test_a_capability_counts_if_both_ends_announce_it(ours: int, theirs: int, both: int) -> None:
    assert negotiate(Capability(ours), Capability(theirs)) == Capability(both)
    assert negotiate(Capability(theirs), Capability(ours)) == Capability(both)


def test_answers_repeat_their_requests() -> None:
    read = BulkPacket(7, 0x82, 100, stream_id=3)
    write = BulkPacket(8, 0x01, data=b"abc")
    get = ControlPacket(9, 0x80, 6, 0x80, 0x0100, 0, 18)
    interrupt = InterruptPacket(0x03, b"ab", 4)

    assert read.answer(b"xy") == BulkPacket(7, 0x82, 2, Status.SUCCESS, 3, b"xy")
    assert read.answer() == BulkPacket(7, 0x82, 0, Status.SUCCESS, 3)
    assert write.answer() == BulkPacket(8, 0x01, 3)
    assert write.answer(status=Status.STALL) == BulkPacket(8, 0x01, 0, Status.STALL)
    assert get.answer(b"x") == ControlPacket(9, 0x80, 6, 0x80, 0x0100, 0, 1, data=b"x")
    assert interrupt.answer() == InterruptPacket(0x03, b"", 4, 2)
    assert interrupt.answer(status=Status.STALL) == InterruptPacket(0x03, b"", 4, 0, Status.STALL)


def test_data_is_in_no_repr() -> None:
    packets = [packet for _, packet, _, _ in VECTORS if getattr(packet, "data", b"")]

    assert packets
    for packet in packets:
        assert "b'" not in repr(packet)
