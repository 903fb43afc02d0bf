# SPDX-License-Identifier: Apache-2.0
"""What a codec neither encodes nor decodes."""

import pytest

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.usbredir import (
    DEVICE_CAPABILITIES,
    GUEST_CAPABILITIES,
    NO_CAPABILITIES,
    AllocBulkStreams,
    BufferedBulkPacket,
    BulkPacket,
    BulkReceivingStatus,
    BulkStreamsStatus,
    CancelDataPacket,
    Capability,
    ConfigurationStatus,
    ControlPacket,
    DeviceConnect,
    DeviceDisconnectAck,
    DevicePacket,
    Endpoint,
    EndpointType,
    EpInfo,
    FilterFilter,
    FilterReject,
    FreeBulkStreams,
    GuestPacket,
    Hello,
    Interface,
    InterfaceInfo,
    InterruptPacket,
    InterruptReceivingStatus,
    IsoPacket,
    Packet,
    PacketType,
    Role,
    StartBulkReceiving,
    StartInterruptReceiving,
    StartIsoStream,
    StopBulkReceiving,
    StopInterruptReceiving,
)
from ccid_protocol.usbredir.codec import Codec
from usbredir_vectors import (
    CCID_ENDPOINTS,
    CONTROL,
    DEVICE,
    GUEST,
    PLAIN,
    VECTORS,
    decode,
    header,
    name,
    plain_codec,
)

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
