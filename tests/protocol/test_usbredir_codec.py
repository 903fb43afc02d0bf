# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from typing import get_args

import pytest

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.usbredir import (
    DEVICE_CAPABILITIES,
    GUEST_CAPABILITIES,
    NO_CAPABILITIES,
    BulkPacket,
    Capability,
    ControlPacket,
    DeviceConnect,
    Endpoint,
    EndpointType,
    EpInfo,
    Hello,
    InterruptPacket,
    Packet,
    Role,
    Speed,
    Status,
    endpoint_address,
    endpoint_index,
    negotiate,
)
from ccid_protocol.usbredir.codec import Codec
from usbredir_vectors import (
    CCID_ENDPOINTS,
    DEVICE,
    GUEST,
    VECTORS,
    decode,
    header,
    name,
    plain_codec,
    without_sizes,
)


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
