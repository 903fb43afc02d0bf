# SPDX-License-Identifier: Apache-2.0
import struct

from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.usbredir import (
    GUEST_CAPABILITIES,
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
    StartBulkReceiving,
    StartInterruptReceiving,
    StartIsoStream,
    StopBulkReceiving,
    StopInterruptReceiving,
    StopIsoStream,
    negotiate,
)
from ccid_protocol.usbredir.codec import Codec

DEVICE, GUEST = Role.DEVICE, Role.GUEST


def decode(codec: Codec, data: bytes, sender: Role) -> Packet:
    head = codec.decode_header(data, sender)
    return codec.decode(head, data[codec.header_size :], sender)


def packet_id_form(codec: Codec) -> str:
    return "Q" if Capability.IDS_64BITS in codec.capabilities else "I"


u8 = st.integers(0, 0xFF)
to_device = st.integers(0, 0x7F)
to_host = st.integers(0x80, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
out_address = st.integers(0, 15)
in_address = st.integers(0x80, 0x8F)
address = out_address | in_address
blob = st.binary(max_size=300)
capability_sets = st.integers(0, 0xFF).map(lambda n: negotiate(Capability(n), Capability(n)))


def endpoints() -> st.SearchStrategy[dict[int, Endpoint]]:
    any_endpoint = st.builds(
        Endpoint, st.sampled_from(EndpointType), st.integers(1, 255), u8, u16, u32
    )
    control = st.builds(Endpoint, st.just(EndpointType.CONTROL), u8, u8, u16, u32)
    fixed = st.fixed_dictionaries({0x00: control, 0x80: control})
    others = st.dictionaries(address, any_endpoint)
    return st.builds(lambda some, zero: {**some, **zero}, others, fixed)


device_packets: st.SearchStrategy[Packet] = st.one_of(
    st.builds(DeviceConnect, u8, u8, u8, u8, u16, u16, u16),
    st.builds(DeviceDisconnect),
    st.builds(
        InterfaceInfo,
        st.lists(st.builds(Interface, u8, u8, u8, u8), max_size=32).map(tuple),
    ),
    st.builds(EpInfo, endpoints()),
    st.builds(ConfigurationStatus, u32, u8, u8),
    st.builds(AltSettingStatus, u32, u8, u8, u8),
    st.builds(IsoStreamStatus, u32, u8, address),
    st.builds(InterruptReceivingStatus, u32, u8, in_address),
    st.builds(BulkStreamsStatus, u32, u32, u32, u8),
    st.builds(BulkReceivingStatus, u32, u32, in_address, u8),
    st.builds(FilterFilter, st.text("0123456789,|-x", max_size=300)),
    st.builds(ControlPacket, u32, out_address, u8, to_device, u16, u16, u16, u8),
    st.builds(
        lambda request, data, status: request.answer(data, status=status),
        st.builds(ControlPacket, u32, in_address, u8, to_host, u16, u16),
        blob,
        u8,
    ),
    st.builds(BulkPacket, u32, out_address, u16, u8, u32),
    st.builds(lambda i, a, s, n, d: BulkPacket(i, a, 0, s, n, d), u32, in_address, u8, u32, blob),
    st.builds(IsoPacket, in_address, blob, u32, u8),
    st.builds(lambda i, a, s, d: InterruptPacket(a, d, i, 0, s), u32, in_address, u8, blob),
    st.builds(InterruptPacket, out_address, st.just(b""), u32, u16, u8),
    st.builds(BufferedBulkPacket, in_address, blob, u32, u32, u8),
)
guest_packets: st.SearchStrategy[Packet] = st.one_of(
    st.builds(Reset),
    st.builds(SetConfiguration, u32, u8),
    st.builds(GetConfiguration, u32),
    st.builds(SetAltSetting, u32, u8, u8),
    st.builds(GetAltSetting, u32, u8),
    st.builds(StartIsoStream, u32, address, u8, u8),
    st.builds(StopIsoStream, u32, address),
    st.builds(StartInterruptReceiving, u32, in_address),
    st.builds(StopInterruptReceiving, u32, in_address),
    st.builds(AllocBulkStreams, u32, u32, u32),
    st.builds(FreeBulkStreams, u32, u32),
    st.builds(CancelDataPacket, u32),
    st.builds(FilterReject),
    st.builds(DeviceDisconnectAck),
    st.builds(StartBulkReceiving, u32, u32, u32, in_address, u8),
    st.builds(StopBulkReceiving, u32, u32, in_address),
    st.builds(ControlPacket, u32, in_address, u8, to_host, u16, u16, u16),
    st.builds(BulkPacket, u32, in_address, u16, st.just(0), u32),
    st.builds(lambda i, a, n, d: BulkPacket(i, a, 0, 0, n, d), u32, out_address, u32, blob),
    st.builds(IsoPacket, out_address, blob, u32),
    st.builds(InterruptPacket, out_address, blob, u32),
)


@given(
    st.tuples(st.just(DEVICE), device_packets) | st.tuples(st.just(GUEST), guest_packets),
    st.sampled_from(
        [
            GUEST_CAPABILITIES,
            GUEST_CAPABILITIES ^ Capability.IDS_64BITS,
            GUEST_CAPABILITIES ^ Capability.BULK_LENGTH_32BITS,
        ]
    ),
)
def test_what_is_encoded_is_decoded(sent: tuple[Role, Packet], capabilities: Capability) -> None:
    sender, packet = sent
    codec = Codec(capabilities)

    assert decode(codec, codec.encode(packet, sender), sender) == packet


@given(
    st.tuples(st.just(DEVICE), device_packets) | st.tuples(st.just(GUEST), guest_packets),
    capability_sets,
)
def test_whatever_is_encoded_is_accepted_under_the_same_capabilities(
    sent: tuple[Role, Packet], capabilities: Capability
) -> None:
    sender, packet = sent
    codec = Codec(capabilities)
    try:
        data = codec.encode(packet, sender)
    except LocalProtocolError:
        return

    assert type(decode(codec, data, sender)) is type(packet)


@given(
    capability_sets,
    st.sampled_from(Role),
    st.sampled_from(PacketType) | u32,
    st.binary(max_size=400),
    u32,
)
def test_arbitrary_packets_raise_only_remote_protocol_errors(
    capabilities: Capability, sender: Role, packet_type: int, body: bytes, packet_id: int
) -> None:
    codec = Codec(capabilities)
    header = struct.pack(f"<II{packet_id_form(codec)}", packet_type, len(body), packet_id)
    try:
        packet = decode(codec, header + body, sender)
    except RemoteProtocolError:
        return
    assert type(decode(codec, codec.encode(packet, sender), sender)) is type(packet)


@given(capability_sets, st.sampled_from(Role), st.sampled_from(PacketType), st.data())
def test_arbitrary_contents_of_the_right_length_raise_only_remote_protocol_errors(
    capabilities: Capability, sender: Role, packet_type: PacketType, data: st.DataObject
) -> None:
    codec = Codec(capabilities)
    size = codec._structs[packet_type].size
    body = data.draw(st.binary(min_size=size, max_size=size))
    header = struct.pack(f"<II{packet_id_form(codec)}", packet_type, size, 1)
    try:
        packet = decode(codec, header + body, sender)
    except RemoteProtocolError:
        return
    if not isinstance(packet, Hello):
        assert decode(codec, codec.encode(packet, sender), sender) == packet
