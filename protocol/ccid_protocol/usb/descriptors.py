# SPDX-License-Identifier: Apache-2.0
"""USB descriptors: what a device says of itself.

Source: Universal Serial Bus Specification Rev 2.0, 9.5 and 9.6. Integers are little-endian.
"""

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Self

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError

LANGUAGE_ENGLISH_US: Final = 0x0409
"""The LANGID of English (United States)."""

MAX_STRING_UNITS: Final = 126
"""UTF-16 code units of the longest string descriptor: bLength counts at most 254 bytes of them."""

# 9.6.1, table 9-8: bLength, bDescriptorType, bcdUSB, bDeviceClass, bDeviceSubClass,
# bDeviceProtocol, bMaxPacketSize0, idVendor, idProduct, bcdDevice, iManufacturer, iProduct,
# iSerialNumber, bNumConfigurations
_DEVICE: Final = struct.Struct("<BBHBBBBHHHBBBB")
# 9.6.2, table 9-9: bLength, bDescriptorType, bcdUSB, bDeviceClass, bDeviceSubClass,
# bDeviceProtocol, bMaxPacketSize0, bNumConfigurations, bReserved
_DEVICE_QUALIFIER: Final = struct.Struct("<BBHBBBBBB")
# 9.6.3, table 9-10: bLength, bDescriptorType, wTotalLength, bNumInterfaces, bConfigurationValue,
# iConfiguration, bmAttributes, bMaxPower
_CONFIGURATION: Final = struct.Struct("<BBHBBBBB")
# 9.6.5, table 9-12: bLength, bDescriptorType, bInterfaceNumber, bAlternateSetting, bNumEndpoints,
# bInterfaceClass, bInterfaceSubClass, bInterfaceProtocol, iInterface
_INTERFACE: Final = struct.Struct("<BBBBBBBBB")
# 9.6.6, table 9-13: bLength, bDescriptorType, bEndpointAddress, bmAttributes, wMaxPacketSize,
# bInterval
_ENDPOINT: Final = struct.Struct("<BBBBHB")

# Bit 7 of a configuration's bmAttributes is always set.
_CONFIGURATION_RESERVED_ONE: Final = 0x80


class DescriptorType(enum.IntEnum):
    """The bDescriptorType values of 9.4, table 9-5."""

    DEVICE = 1
    CONFIGURATION = 2
    STRING = 3
    INTERFACE = 4
    ENDPOINT = 5
    DEVICE_QUALIFIER = 6
    OTHER_SPEED_CONFIGURATION = 7
    INTERFACE_POWER = 8


class TransferType(enum.IntEnum):
    """What an endpoint does: bits 1 and 0 of its bmAttributes."""

    CONTROL = 0
    ISOCHRONOUS = 1
    BULK = 2
    INTERRUPT = 3


class ConfigurationAttributes(enum.IntFlag):
    """The bits of a configuration's bmAttributes that a device chooses."""

    NONE = 0
    REMOTE_WAKEUP = 0x20
    SELF_POWERED = 0x40


@dataclass(frozen=True, slots=True)
class DeviceDescriptor:
    """What a device is (9.6.1).

    Attributes:
        vendor_id: idVendor.
        product_id: idProduct.
        release: bcdDevice, the device's release number in binary-coded decimal.
        usb_release: bcdUSB, the release of USB that the device keeps to.
        device_class: bDeviceClass; 0 where each interface names its own.
        subclass: bDeviceSubClass.
        protocol: bDeviceProtocol.
        max_packet_size: bMaxPacketSize0: bytes of endpoint zero's packets, 8, 16, 32 or 64.
        manufacturer: index of the string with the maker's name, 0 for none.
        product: index of the string with the device's name, 0 for none.
        serial_number: index of the string with the serial number, 0 for none.
        configurations: how many configurations there are.
    """

    vendor_id: int
    product_id: int
    release: int = 0
    usb_release: int = 0x0200
    device_class: int = 0
    subclass: int = 0
    protocol: int = 0
    max_packet_size: int = 64
    manufacturer: int = 0
    product: int = 0
    serial_number: int = 0
    configurations: int = 1

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Reads a device descriptor.

        Raises:
            RemoteProtocolError: Its length or type is not a device descriptor's.
        """
        fields = _unpack(_DEVICE, DescriptorType.DEVICE, raw)
        usb_release, device_class, subclass, protocol, packet_size, *identity = fields
        vendor_id, product_id, release, manufacturer, product, serial_number, count = identity
        return cls(
            *(vendor_id, product_id, release),
            *(usb_release, device_class, subclass, protocol, packet_size),
            *(manufacturer, product, serial_number, count),
        )

    def encode(self) -> bytes:
        """Gives the descriptor's 18 bytes.

        Raises:
            LocalProtocolError: A field does not fit its bytes, or no endpoint zero has packets of
                that size.
        """
        _check_max_packet_size_0(self.max_packet_size)
        return _pack_descriptor(
            _DEVICE,
            DescriptorType.DEVICE,
            self.usb_release,
            self.device_class,
            self.subclass,
            self.protocol,
            self.max_packet_size,
            self.vendor_id,
            self.product_id,
            self.release,
            self.manufacturer,
            self.product,
            self.serial_number,
            self.configurations,
        )


@dataclass(frozen=True, slots=True)
class DeviceQualifier:
    """What a device that knows high speed would be at its other speed (9.6.2).

    A device that knows full speed only answers the request for it with a STALL.

    Attributes:
        usb_release: bcdUSB.
        device_class: bDeviceClass.
        subclass: bDeviceSubClass.
        protocol: bDeviceProtocol.
        max_packet_size: bMaxPacketSize0: bytes of endpoint zero's packets at the other speed.
        configurations: how many configurations there are at the other speed.
    """

    usb_release: int = 0x0200
    device_class: int = 0
    subclass: int = 0
    protocol: int = 0
    max_packet_size: int = 64
    configurations: int = 1

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Reads a device qualifier.

        Raises:
            RemoteProtocolError: Its length or type is not a device qualifier's.
        """
        *fields, _reserved = _unpack(_DEVICE_QUALIFIER, DescriptorType.DEVICE_QUALIFIER, raw)
        return cls(*fields)

    def encode(self) -> bytes:
        """Gives the descriptor's 10 bytes.

        Raises:
            LocalProtocolError: A field does not fit its bytes, or no endpoint zero has packets of
                that size.
        """
        _check_max_packet_size_0(self.max_packet_size)
        return _pack_descriptor(
            _DEVICE_QUALIFIER,
            DescriptorType.DEVICE_QUALIFIER,
            self.usb_release,
            self.device_class,
            self.subclass,
            self.protocol,
            self.max_packet_size,
            self.configurations,
            0,
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of an interface (9.6.6).

    Attributes:
        address: bEndpointAddress: number 1 to 15, and 80h for an endpoint that sends to the host.
        attributes: bmAttributes: a `TransferType`; isochronous endpoints have more bits.
        max_packet_size: wMaxPacketSize: bytes of the longest packet; bits 12 and 11 count
            additional transactions at high speed.
        interval: bInterval, for interrupt endpoints at full speed in frames of 1 ms.
        class_descriptors: class or vendor descriptors that follow this one, each whole.
    """

    address: int
    attributes: int
    max_packet_size: int
    interval: int = 0
    class_descriptors: tuple[bytes, ...] = ()

    @property
    def transfer_type(self) -> TransferType:
        """What the endpoint does."""
        return TransferType(self.attributes & 3)

    def encode(self) -> bytes:
        """Gives the descriptor's 7 bytes and the class descriptors that follow it.

        Raises:
            LocalProtocolError: A field does not fit its bytes, the address is none of an
                endpoint's, or an endpoint that is polled has no interval.
        """
        if self.address & 0x70 or not self.address & 0x0F:
            raise LocalProtocolError(f"endpoint with the address {self.address:02X}")
        polled = self.transfer_type in {TransferType.ISOCHRONOUS, TransferType.INTERRUPT}
        if polled and not self.interval:
            raise LocalProtocolError(f"endpoint {self.address:02X} is polled at no interval")
        descriptor = _pack_descriptor(
            _ENDPOINT,
            DescriptorType.ENDPOINT,
            self.address,
            self.attributes,
            self.max_packet_size,
            self.interval,
        )
        return descriptor + _join(self.class_descriptors)


@dataclass(frozen=True, slots=True)
class Interface:
    """One setting of an interface, with all that belongs to it (9.6.5).

    Attributes:
        number: bInterfaceNumber.
        interface_class: bInterfaceClass.
        subclass: bInterfaceSubClass.
        protocol: bInterfaceProtocol.
        alternate_setting: bAlternateSetting.
        name: index of the string that names the interface, 0 for none.
        class_descriptors: class or vendor descriptors, each whole; they stand between the
            interface's descriptor and those of its endpoints.
        endpoints: its endpoints besides endpoint zero.
    """

    number: int
    interface_class: int
    subclass: int = 0
    protocol: int = 0
    alternate_setting: int = 0
    name: int = 0
    class_descriptors: tuple[bytes, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()

    def encode(self) -> bytes:
        """Gives the interface's descriptor and all those that belong to it.

        Raises:
            LocalProtocolError: A field does not fit its bytes, or a descriptor is not allowed.
        """
        descriptor = _pack_descriptor(
            _INTERFACE,
            DescriptorType.INTERFACE,
            self.number,
            self.alternate_setting,
            len(self.endpoints),
            self.interface_class,
            self.subclass,
            self.protocol,
            self.name,
        )
        endpoints = b"".join(endpoint.encode() for endpoint in self.endpoints)
        return descriptor + _join(self.class_descriptors) + endpoints


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration and everything in it: what GET_DESCRIPTOR(CONFIGURATION) gives (9.6.3).

    Attributes:
        interfaces: its interfaces, the settings of one behind each other.
        value: bConfigurationValue, by which SET_CONFIGURATION chooses it; not 0.
        attributes: whether it has power of its own, and can wake up the host.
        max_power: milliamperes drawn from the bus, an even number up to 510.
        name: index of the string that names the configuration, 0 for none.
    """

    interfaces: tuple[Interface, ...]
    value: int = 1
    attributes: ConfigurationAttributes = ConfigurationAttributes.NONE
    max_power: int = 100
    name: int = 0

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Reads a configuration descriptor and all that follow it.

        Raises:
            RemoteProtocolError: Lengths or counts do not agree, or a descriptor stands where it
                may not.
        """
        descriptors = list(_split(raw))
        if not descriptors:
            raise RemoteProtocolError("configuration descriptor of 0 bytes")
        total, count, value, name, attributes, power = _unpack(
            _CONFIGURATION, DescriptorType.CONFIGURATION, descriptors[0]
        )
        if total != len(raw):
            raise RemoteProtocolError(f"configuration of {len(raw)} bytes that announces {total}")
        interfaces = _decode_interfaces(descriptors[1:])
        if len({interface.number for interface in interfaces}) != count:
            raise RemoteProtocolError(f"configuration that announces {count} interfaces")
        flags = ConfigurationAttributes(attributes & ~_CONFIGURATION_RESERVED_ONE)
        return cls(interfaces, value, flags, 2 * power, name)

    def encode(self) -> bytes:
        """Gives the configuration's descriptor and all those of its interfaces.

        Raises:
            LocalProtocolError: A field does not fit its bytes, or a descriptor is not allowed.
        """
        if not self.value:
            raise LocalProtocolError("configuration 0 is that of a device not configured")
        if self.max_power % 2:
            raise LocalProtocolError(f"bMaxPower counts 2 mA, not {self.max_power} mA")
        interfaces = b"".join(interface.encode() for interface in self.interfaces)
        descriptor = _pack_descriptor(
            _CONFIGURATION,
            DescriptorType.CONFIGURATION,
            _CONFIGURATION.size + len(interfaces),
            len({interface.number for interface in self.interfaces}),
            self.value,
            self.name,
            _CONFIGURATION_RESERVED_ONE | self.attributes,
            self.max_power // 2,
        )
        return descriptor + interfaces


def encode_string(text: str) -> bytes:
    """Gives the descriptor of a string in UTF-16LE (9.6.7).

    Raises:
        LocalProtocolError: It is longer than 126 UTF-16 code units, or no Unicode text.
    """
    try:
        units = text.encode("utf-16-le")
    except UnicodeEncodeError as error:
        raise LocalProtocolError("a string that is no Unicode text") from error
    if len(units) > 2 * MAX_STRING_UNITS:
        raise LocalProtocolError(f"a string of {len(units) // 2} UTF-16 code units")
    return bytes([2 + len(units), DescriptorType.STRING]) + units


def decode_string(raw: bytes) -> str:
    """Reads the descriptor of a string.

    Raises:
        RemoteProtocolError: Its length or type is not a string descriptor's, or it is not UTF-16.
    """
    units = _decode_string_body(raw)
    try:
        return units.decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("string descriptor that is not UTF-16") from error


def encode_languages(languages: tuple[int, ...]) -> bytes:
    """Gives string descriptor zero: the LANGIDs that the other strings can be had in (9.6.7).

    Raises:
        LocalProtocolError: There are more than 126, or one does not fit 16 bits.
    """
    if len(languages) > MAX_STRING_UNITS:
        raise LocalProtocolError(f"a table of {len(languages)} languages")
    table = _pack(struct.Struct(f"<{len(languages)}H"), *languages)
    return bytes([2 + len(table), DescriptorType.STRING]) + table


def decode_languages(raw: bytes) -> tuple[int, ...]:
    """Reads string descriptor zero.

    Raises:
        RemoteProtocolError: Its length or type is not a string descriptor's.
    """
    table = _decode_string_body(raw)
    return struct.unpack(f"<{len(table) // 2}H", table)


def _decode_string_body(raw: bytes) -> bytes:
    if len(raw) < 2 or len(raw) % 2 or raw[0] != len(raw) or raw[1] != DescriptorType.STRING:
        raise RemoteProtocolError(f"{len(raw)} bytes that are no string descriptor")
    return raw[2:]


def _decode_interfaces(descriptors: list[bytes]) -> tuple[Interface, ...]:
    interfaces: list[Interface] = []
    announced: list[int] = []
    for raw in descriptors:
        if raw[1] == DescriptorType.INTERFACE:
            number, setting, count, interface_class, subclass, protocol, name = _unpack(
                _INTERFACE, DescriptorType.INTERFACE, raw
            )
            interfaces.append(Interface(number, interface_class, subclass, protocol, setting, name))
            announced.append(count)
        elif not interfaces:
            raise RemoteProtocolError(f"descriptor of type {raw[1]:02X} before any interface")
        else:
            interfaces[-1] = _with_descriptor(interfaces[-1], raw)
    for interface, count in zip(interfaces, announced, strict=True):
        if len(interface.endpoints) != count:
            raise RemoteProtocolError(
                f"interface {interface.number} of {len(interface.endpoints)} endpoints"
                f" that announces {count}"
            )
    return tuple(interfaces)


def _with_descriptor(interface: Interface, raw: bytes) -> Interface:
    """Adds a descriptor that is no interface's to the interface that it follows."""
    if raw[1] == DescriptorType.ENDPOINT:
        address, attributes, size, interval = _unpack(_ENDPOINT, DescriptorType.ENDPOINT, raw)
        endpoint = Endpoint(address, attributes, size, interval)
        return replace(interface, endpoints=(*interface.endpoints, endpoint))
    if not interface.endpoints:
        return replace(interface, class_descriptors=(*interface.class_descriptors, raw))
    *others, last = interface.endpoints
    last = replace(last, class_descriptors=(*last.class_descriptors, raw))
    return replace(interface, endpoints=(*others, last))


def _split(raw: bytes) -> Iterator[bytes]:
    """Separates descriptors that follow each other, by their bLength."""
    position = 0
    while position < len(raw):
        end = position + raw[position]
        if end < position + 2 or end > len(raw):
            raise RemoteProtocolError(
                f"descriptor of {raw[position]} bytes where {len(raw) - position} are left"
            )
        yield raw[position:end]
        position = end


def _join(descriptors: tuple[bytes, ...]) -> bytes:
    for descriptor in descriptors:
        if len(descriptor) < 2 or descriptor[0] != len(descriptor):
            raise LocalProtocolError(f"a class descriptor of {len(descriptor)} bytes says another")
        if descriptor[1] in {DescriptorType.INTERFACE, DescriptorType.ENDPOINT}:
            raise LocalProtocolError("an interface or endpoint given as a class descriptor")
    return b"".join(descriptors)


def _check_max_packet_size_0(size: int) -> None:
    if size not in {8, 16, 32, 64}:
        raise LocalProtocolError(f"endpoint zero with packets of {size} bytes")


def _pack(layout: struct.Struct, *fields: int) -> bytes:
    try:
        return layout.pack(*fields)
    except struct.error as error:
        raise LocalProtocolError(f"a field that does not fit its bytes: {error}") from error


def _pack_descriptor(layout: struct.Struct, kind: DescriptorType, *fields: int) -> bytes:
    return _pack(layout, layout.size, kind, *fields)


def _unpack(layout: struct.Struct, kind: DescriptorType, raw: bytes) -> tuple[int, ...]:
    """Reads the fields behind bLength and bDescriptorType, which must be those of `kind`."""
    if len(raw) != layout.size or raw[0] != layout.size or raw[1] != kind:
        raise RemoteProtocolError(f"{len(raw)} bytes that are no descriptor of type {kind.name}")
    return layout.unpack(raw)[2:]
