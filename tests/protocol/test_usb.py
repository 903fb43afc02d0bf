# SPDX-License-Identifier: Apache-2.0
"""USB 2.0, chapter 9: descriptors and setup packets."""

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ccid_protocol import LocalProtocolError, RemoteProtocolError
from ccid_protocol.usb import (
    LANGUAGE_ENGLISH_US,
    Configuration,
    ConfigurationAttributes,
    DescriptorType,
    DeviceDescriptor,
    DeviceQualifier,
    DeviceStatus,
    Endpoint,
    EndpointStatus,
    FeatureSelector,
    Interface,
    Recipient,
    RequestKind,
    SetupPacket,
    Speed,
    StandardRequest,
    TransferType,
    decode_languages,
    decode_string,
    encode_languages,
    encode_string,
)

# What QEMU 7.2's usb-ccid gives a guest (observed).
DEVICE = bytes.fromhex("1201100100000040e6083344000001020301")
CLASS_DESCRIPTOR = bytes.fromhex(
    "36211001000701000000a00f000000000100008025000000c2010000fe000000000000000000"
    "0000fe04010012000100ffff00000101"
)
CONFIGURATION = (
    bytes.fromhex("09025d00010100e03209040000030b000004")
    + CLASS_DESCRIPTOR
    + bytes.fromhex("070581034000ff0705820240000007050302400000")
)
QEMU_DEVICE = DeviceDescriptor(
    vendor_id=0x08E6,
    product_id=0x4433,
    usb_release=0x0110,
    manufacturer=1,
    product=2,
    serial_number=3,
)
QEMU_CONFIGURATION = Configuration(
    interfaces=(
        Interface(
            number=0,
            interface_class=0x0B,
            name=4,
            class_descriptors=(CLASS_DESCRIPTOR,),
            endpoints=(
                Endpoint(0x81, TransferType.INTERRUPT, 64, 255),
                Endpoint(0x82, TransferType.BULK, 64),
                Endpoint(0x03, TransferType.BULK, 64),
            ),
        ),
    ),
    attributes=ConfigurationAttributes.SELF_POWERED | ConfigurationAttributes.REMOTE_WAKEUP,
    max_power=100,
)

one_byte = st.integers(0, 255)
words = st.integers(0, 0xFFFF)
class_descriptors = st.lists(
    st.builds(
        lambda kind, rest: bytes([2 + len(rest), kind]) + rest,
        st.integers(0x20, 0x7F),
        st.binary(max_size=10),
    ),
    max_size=2,
).map(tuple)
endpoints = st.builds(
    Endpoint,
    address=st.integers(1, 15) | st.integers(0x81, 0x8F),
    attributes=st.sampled_from(TransferType),
    max_packet_size=words,
    interval=st.integers(1, 255),
    class_descriptors=class_descriptors,
)
interfaces = st.builds(
    Interface,
    number=one_byte,
    interface_class=one_byte,
    subclass=one_byte,
    protocol=one_byte,
    alternate_setting=one_byte,
    name=one_byte,
    class_descriptors=class_descriptors,
    endpoints=st.lists(endpoints, max_size=3).map(tuple),
)
configurations = st.builds(
    Configuration,
    interfaces=st.lists(interfaces, max_size=3).map(tuple),
    value=st.integers(1, 255),
    attributes=st.integers(0, 3).map(lambda bits: ConfigurationAttributes(bits << 5)),
    max_power=st.integers(0, 255).map(lambda power: 2 * power),
    name=one_byte,
)
setups = st.builds(SetupPacket, one_byte, one_byte, words, words, words)


def test_the_descriptors_that_qemu_gives_are_read_and_given_again() -> None:
    assert DeviceDescriptor.decode(DEVICE) == QEMU_DEVICE
    assert QEMU_DEVICE.encode() == DEVICE
    assert Configuration.decode(CONFIGURATION) == QEMU_CONFIGURATION
    assert QEMU_CONFIGURATION.encode() == CONFIGURATION


def test_a_device_is_usb_2_0_without_strings_unless_it_says_more() -> None:
    raw = bytes.fromhex("1201 0002 00 00 00 40 E608 3344 0000 00 00 00 01")
    assert DeviceDescriptor(0x08E6, 0x4433).encode() == raw
    assert Configuration(()).encode() == bytes.fromhex("0902 0900 00 01 00 80 32")


def test_a_device_qualifier_has_ten_bytes() -> None:
    raw = bytes.fromhex("0A06 0002 00 00 00 40 01 00")
    assert DeviceQualifier().encode() == raw
    assert DeviceQualifier.decode(raw) == DeviceQualifier()


def test_alternate_settings_of_an_interface_count_as_one() -> None:
    settings = tuple(Interface(0, 0x0B, alternate_setting=i) for i in range(3))
    configuration = Configuration((*settings, Interface(1, 0x0B)))
    raw = configuration.encode()
    assert (raw[4], int.from_bytes(raw[2:4], "little"), len(raw)) == (2, 45, 45)
    assert Configuration.decode(raw) == configuration


@given(configurations)
def test_a_configuration_survives_its_encoding(configuration: Configuration) -> None:
    assert Configuration.decode(configuration.encode()) == configuration


@given(
    st.builds(
        DeviceDescriptor,
        *(words, words, words, words, one_byte, one_byte, one_byte),
        st.sampled_from([8, 16, 32, 64]),
        *(one_byte, one_byte, one_byte, one_byte),
    )
)
def test_a_device_descriptor_survives_its_encoding(descriptor: DeviceDescriptor) -> None:
    assert DeviceDescriptor.decode(descriptor.encode()) == descriptor


@given(
    st.builds(
        DeviceQualifier,
        *(words, one_byte, one_byte, one_byte),
        st.sampled_from([8, 16, 32, 64]),
        one_byte,
    )
)
def test_a_device_qualifier_survives_its_encoding(qualifier: DeviceQualifier) -> None:
    assert DeviceQualifier.decode(qualifier.encode()) == qualifier


@given(st.integers(0, len(CONFIGURATION) - 1), one_byte)
@example(0, 0)
@example(0, 1)
def test_a_changed_configuration_is_read_or_refused(position: int, value: int) -> None:
    raw = CONFIGURATION[:position] + bytes([value]) + CONFIGURATION[position + 1 :]
    again = None
    with contextlib.suppress(RemoteProtocolError, LocalProtocolError):
        again = Configuration.decode(raw).encode()
    # A bit of bmAttributes is always set.
    assert again in {None, raw[:7] + bytes([raw[7] | 0x80]) + raw[8:]}


@given(st.binary(max_size=60))
@example(b"")
@example(bytes.fromhex("0902090000010080320000"))
def test_whatever_comes_only_the_protocol_error_leaves_the_decoders(raw: bytes) -> None:
    decoders: tuple[Any, ...] = (
        DeviceDescriptor.decode,
        DeviceQualifier.decode,
        Configuration.decode,
        SetupPacket.decode,
        decode_string,
        decode_languages,
    )
    for decode in decoders:
        with contextlib.suppress(RemoteProtocolError):
            decode(raw)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "0 bytes"),
        ("09", "9 bytes where 1 are left"),
        ("0902 0900 00 01 00 80 32 00", "0 bytes where 1 are left"),
        ("0902 0A00 00 01 00 80 32", "of 9 bytes that announces 10"),
        ("0902 0900 01 01 00 80 32", "announces 1 interfaces"),
        ("0802 0800 00 01 00 80", "no descriptor of type CONFIGURATION"),
        ("0904 000000 000000 00", "no descriptor of type CONFIGURATION"),
        ("0902 0B00 00 01 00 80 32 0221", "type 21 before any interface"),
        ("0902 1000 00 01 00 80 32 07058103400001", "type 05 before any interface"),
        ("0902 1200 01 01 00 80 32 090400 00 01 0B0000 00", "interface 0 of 0 endpoints"),
        ("0902 1100 01 01 00 80 32 080400 00 00 0B0000", "no descriptor of type INTERFACE"),
        (
            "0902 1800 01 01 00 80 32 090400 00 01 0B0000 00 060581034000",
            "no descriptor of type ENDPOINT",
        ),
    ],
)
def test_a_configuration_that_does_not_add_up_is_refused(raw: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        Configuration.decode(bytes.fromhex(raw))


@pytest.mark.parametrize(
    "configuration",
    [
        replace(QEMU_CONFIGURATION, value=0),
        replace(QEMU_CONFIGURATION, value=256),
        replace(QEMU_CONFIGURATION, max_power=101),
        replace(QEMU_CONFIGURATION, max_power=512),
        Configuration((Interface(256, 0x0B),)),
        Configuration((Interface(0, 0x0B, class_descriptors=(b"\3\x21",)),)),
        Configuration((Interface(0, 0x0B, class_descriptors=(b"",)),)),
        Configuration((Interface(0, 0x0B, class_descriptors=(b"\2\4",)),)),
        Configuration((Interface(0, 0x0B, class_descriptors=(b"\2\5",)),)),
        Configuration((Interface(0, 0x0B, endpoints=(Endpoint(0x80, 2, 64),)),)),
        Configuration((Interface(0, 0x0B, endpoints=(Endpoint(0x11, 2, 64),)),)),
        Configuration((Interface(0, 0x0B, endpoints=(Endpoint(0x101, 2, 64),)),)),
        Configuration((Interface(0, 0x0B, endpoints=(Endpoint(0x81, 3, 64),)),)),
        Configuration((Interface(0, 0x0B, endpoints=(Endpoint(0x81, 1, 64),)),)),
        Configuration((Interface(0, 0x0B, endpoints=(Endpoint(0x81, 2, 0x10000),)),)),
        Configuration((Interface(0, 0x0B, class_descriptors=(b"\xff" * 255,) * 257),)),
    ],
)
def test_a_configuration_that_cannot_be_is_not_given(configuration: Configuration) -> None:
    with pytest.raises(LocalProtocolError):
        configuration.encode()


@pytest.mark.parametrize(
    "descriptor",
    [
        DeviceDescriptor(0x10000, 0),
        DeviceDescriptor(0, 0, max_packet_size=63),
        DeviceDescriptor(0, 0, configurations=256),
        DeviceQualifier(max_packet_size=0),
        DeviceQualifier(configurations=-1),
    ],
)
def test_a_device_that_cannot_be_is_not_given(
    descriptor: DeviceDescriptor | DeviceQualifier,
) -> None:
    with pytest.raises(LocalProtocolError):
        descriptor.encode()


@pytest.mark.parametrize("raw", [b"", DEVICE[:-1], DEVICE + b"\0", b"\x12\2" + DEVICE[2:]])
def test_what_is_no_device_descriptor_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        DeviceDescriptor.decode(raw)


def test_a_string_is_utf_16le() -> None:
    raw = bytes.fromhex("0A03 5100 4500 3DD8 D1DC")
    assert encode_string("QE\U0001f4d1") == raw
    assert decode_string(raw) == "QE\U0001f4d1"
    assert encode_string("") == b"\2\3"


def test_the_languages_are_a_table_of_words() -> None:
    assert encode_languages((LANGUAGE_ENGLISH_US,)) == bytes.fromhex("0403 0904")
    assert len(encode_languages((0x0409,) * 126)) == 254
    assert decode_languages(bytes.fromhex("0603 0904 0704")) == (0x0409, 0x0407)


@given(st.text(max_size=63))
def test_a_string_survives_its_encoding(text: str) -> None:
    assert decode_string(encode_string(text)) == text


@given(st.lists(words, max_size=126).map(tuple))
def test_a_table_of_languages_survives_its_encoding(languages: tuple[int, ...]) -> None:
    assert decode_languages(encode_languages(languages)) == languages


def test_what_does_not_fit_a_string_descriptor_is_not_given() -> None:
    assert len(encode_string("x" * 126)) == 254
    for text in ("x" * 127, "\ud800"):
        with pytest.raises(LocalProtocolError):
            encode_string(text)
    for languages in ((0,) * 127, (0x10000,)):
        with pytest.raises(LocalProtocolError):
            encode_languages(languages)


@pytest.mark.parametrize("raw", ["", "03", "0203 00", "0303 00", "0403 00", "0201", "0403 00D8"])
def test_what_is_no_string_descriptor_is_refused(raw: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_string(bytes.fromhex(raw))


def test_a_setup_packet_names_the_descriptor_it_asks_for() -> None:
    setup = SetupPacket.decode(bytes.fromhex("80 06 0203 0904 FF00"))
    assert setup == SetupPacket(0x80, StandardRequest.GET_DESCRIPTOR, 0x0302, 0x0409, 255)
    assert setup.device_to_host
    assert setup.kind is RequestKind.STANDARD
    assert setup.recipient == Recipient.DEVICE
    assert (setup.descriptor_type, setup.descriptor_index) == (DescriptorType.STRING, 2)


def test_the_numbers_are_those_of_chapter_9() -> None:
    assert list(StandardRequest) == [0, 1, 3, 5, 6, 7, 8, 9, 10, 11, 12]
    assert list(FeatureSelector) == [0, 1, 2]
    assert list(DescriptorType) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert list(TransferType) == [0, 1, 2, 3]
    assert list(DeviceStatus) == [1, 2]
    assert list(EndpointStatus) == [1]
    # As usbredir counts them.
    assert list(Speed) == [0, 1, 2]


def test_a_setup_packet_tells_who_defines_it_and_for_whom() -> None:
    class_request = SetupPacket.decode(bytes.fromhex("21 01 0000 0000 0000"))
    assert not class_request.device_to_host
    assert class_request.kind is RequestKind.CLASS
    assert class_request.recipient == Recipient.INTERFACE
    vendor_request = SetupPacket(0xC2, 0)
    assert vendor_request.kind is RequestKind.VENDOR
    assert vendor_request.recipient == Recipient.ENDPOINT
    assert SetupPacket(0x1F, 0).recipient == 0x1F


@given(setups)
def test_a_setup_packet_survives_its_encoding(setup: SetupPacket) -> None:
    assert SetupPacket.decode(setup.encode()) == setup
    assert setup.kind in RequestKind


@pytest.mark.parametrize("size", [0, 7, 9])
def test_a_setup_packet_has_eight_bytes(size: int) -> None:
    with pytest.raises(RemoteProtocolError):
        SetupPacket.decode(bytes(size))


@pytest.mark.parametrize(
    "setup", [SetupPacket(256, 0), SetupPacket(0, -1), SetupPacket(0, 0, 0x10000)]
)
def test_a_setup_packet_that_cannot_be_is_not_given(setup: SetupPacket) -> None:
    with pytest.raises(LocalProtocolError):
        setup.encode()
