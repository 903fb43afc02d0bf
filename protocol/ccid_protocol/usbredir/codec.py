# SPDX-License-Identifier: Apache-2.0
"""Packets of usb redirection to bytes, and back.

Source: the USB Network Redirection protocol description, version 0.7, and what libusbredirparser
0.13 and 0.15 verify. Integers are unsigned and little-endian, and nothing is padded. A packet is a
header (type, length of what follows, id), the fields of its type, and for some types a tail.

QEMU aborts when it gets a packet that it does not expect, or one of another length, with anything
behind it. So a `Codec` is made for capabilities that do not change any more, and encodes no packet
that the peer's parser would refuse.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, Final, NamedTuple, TypeAlias, cast

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.usbredir.constants import (
    MAX_INTERFACES,
    Capability,
    EndpointType,
    PacketType,
    Role,
    Status,
    endpoint_address,
    endpoint_index,
    is_in,
)
from ccid_protocol.usbredir.data import (
    BufferedBulkPacket,
    BulkPacket,
    ControlPacket,
    InterruptPacket,
    IsoPacket,
)
from ccid_protocol.usbredir.layouts import LAYOUTS, Field, Layout
from ccid_protocol.usbredir.packets import (
    Endpoint,
    EpInfo,
    FilterFilter,
    Hello,
    Interface,
    InterfaceInfo,
    Packet,
)

MAX_BULK: Final = 128 * 1024
"""Bytes of bulk data in one packet: twice the largest CCID message. QEMU would allow 128 MiB."""

# usb_redir_header: type, length, id
_HEADER_32BIT_ID: Final = struct.Struct("<III")
_HEADER_64BIT_ID: Final = struct.Struct("<IIQ")

_VERSION_SIZE: Final = 64
_ENDPOINTS: Final = 32
_NO_ENDPOINT: Final = 255
_CONTROL_ENDPOINT: Final = (endpoint_index(0x00), endpoint_index(0x80))
_ENDPOINT_TYPES: Final = frozenset({*EndpointType, _NO_ENDPOINT})
_INTERFACE_INFO_COLUMNS: Final = (
    "number",
    "interface_class",
    "interface_subclass",
    "interface_protocol",
)
_EP_INFO_COLUMNS: Final = ("type", "interval", "interface", "max_packet_size", "max_streams")
_PERIODIC: Final = (EndpointType.ISO, EndpointType.INTERRUPT)

_LAYOUT_OF_TYPE: Final[Mapping[int, Layout]] = {layout.packet_type: layout for layout in LAYOUTS}
_LAYOUT_OF_CLASS: Final = {layout.packet: layout for layout in LAYOUTS}
_ATTRIBUTES: Final = {
    layout.packet: frozenset(attribute.name for attribute in fields(layout.packet))
    for layout in LAYOUTS
}

# The values of the fields by name; one of an array is a tuple.
_Values: TypeAlias = dict[str, Any]


class Header(NamedTuple):
    """The header of a packet.

    Attributes:
        type: a `PacketType`, or anything else.
        length: bytes that follow the header.
        id: the id, of 32 or 64 bits.
    """

    type: int
    length: int
    id: int


class Codec:
    """Encodes and decodes packets under given capabilities.

    Args:
        capabilities: those that both ends announced (`negotiate`); none before that is known.
        max_bulk: bytes of bulk data in one packet, either way.
    """

    def __init__(self, capabilities: Capability, max_bulk: int = MAX_BULK) -> None:
        self.capabilities: Final = capabilities
        self.max_bulk: Final = max_bulk
        self._header: Final = (
            _HEADER_64BIT_ID if Capability.IDS_64BITS in capabilities else _HEADER_32BIT_ID
        )
        self._fields: Final = {
            layout.packet_type: tuple(
                field for field in layout.fields if field.needs in capabilities
            )
            for layout in LAYOUTS
        }
        self._structs: Final = {
            packet_type: struct.Struct("<" + "".join(field.form for field in present))
            for packet_type, present in self._fields.items()
        }

    @property
    def header_size(self) -> int:
        """Bytes of a header: 16 with 64-bit ids, else 12."""
        return self._header.size

    def decode_header(self, data: bytes | bytearray, sender: Role) -> Header:
        """Reads the header that `data`, of `header_size` bytes at least, starts with.

        Raises:
            RemoteProtocolError: There is no such packet, the sender may not send it or not under
                these capabilities, or it cannot have that length.
        """
        header = Header(*self._header.unpack_from(data))
        layout = _LAYOUT_OF_TYPE.get(header.type)
        if layout is None:
            raise RemoteProtocolError(f"packet of unknown type {header.type}")
        name = layout.packet.__name__
        if sender not in layout.senders:
            raise RemoteProtocolError(f"{name}, which a {sender.value} does not send")
        if layout.needs not in self.capabilities:
            raise RemoteProtocolError(f"{name} without the capability {layout.needs.name}")
        tail = header.length - self._structs[layout.packet_type].size
        if not 0 <= tail <= self._max_tail(layout):
            raise RemoteProtocolError(f"{name} of {header.length} bytes")
        return header

    def decode(self, header: Header, body: bytes, sender: Role) -> Packet:
        """Reads a packet.

        Args:
            header: the header, as `decode_header` gave it.
            body: the `header.length` bytes behind it.
            sender: who sent it.

        Raises:
            RemoteProtocolError: Its fields or its tail are not as they must be.
        """
        if header.type == PacketType.BULK_PACKET:
            bulk = self._decode_bulk(header, body, sender)
            if bulk is not None:
                return bulk
        layout = _LAYOUT_OF_TYPE[header.type]
        fixed = self._structs[layout.packet_type]
        values = _join(self._fields[layout.packet_type], fixed.unpack_from(body))
        tail = body[fixed.size :]
        if sender is Role.GUEST and "status" in values:
            # It means nothing in a request, and QEMU leaves there what its memory held.
            values["status"] = Status.SUCCESS
        fault = _find_fault(layout, values, tail, sender)
        if fault is not None:
            raise RemoteProtocolError(f"{layout.packet.__name__} {fault}")
        return _assemble(layout, header.id, values, tail)

    def encode(self, packet: Packet, sender: Role) -> bytes:
        """Gives a packet's bytes, header included. That of a hello has always 12 bytes.

        Raises:
            LocalProtocolError: The sender may not send this packet or not under these capabilities,
                or a value does not fit or is not allowed.
        """
        if isinstance(packet, BulkPacket):
            bulk = self._encode_bulk(packet, sender)
            if bulk is not None:
                return bulk
        layout = _LAYOUT_OF_CLASS[type(packet)]
        name = layout.packet.__name__
        if sender not in layout.senders:
            raise LocalProtocolError(f"a {sender.value} does not send {name}")
        if layout.needs not in self.capabilities:
            raise LocalProtocolError(f"{name} without the capability {layout.needs.name}")
        values, tail = _disassemble(layout, packet)
        fault = _find_fault(layout, values, tail, sender)
        if fault is None and len(tail) > self._max_tail(layout):
            fault = f"with {len(tail)} bytes of data"
        if fault is not None:
            raise LocalProtocolError(f"{name} {fault}")
        header = _HEADER_32BIT_ID if layout.packet_type is PacketType.HELLO else self._header
        fixed = self._structs[layout.packet_type]
        try:
            return (
                header.pack(layout.packet_type, fixed.size + len(tail), getattr(packet, "id", 0))
                + fixed.pack(*_split(self._fields[layout.packet_type], values))
                + tail
            )
        except struct.error as error:
            raise LocalProtocolError(f"{name} with a value that does not fit: {error}") from None

    # Each command of a guest is four bulk packets, and the general way takes most of their time.
    # What is not right with one is said there.

    def _decode_bulk(self, header: Header, body: bytes, sender: Role) -> BulkPacket | None:
        """Reads a bulk packet in the short way; None where anything is not as it must be."""
        fixed = self._structs[PacketType.BULK_PACKET]
        endpoint, status, length, stream_id, *high = fixed.unpack_from(body)
        if high:
            length |= high[0] << 16
        data = body[fixed.size :]
        expected = length if is_in(endpoint) is (sender is Role.DEVICE) else 0
        if not _is_address(endpoint) or len(data) != expected:
            return None
        if sender is Role.GUEST:
            status = Status.SUCCESS
        return BulkPacket(header.id, endpoint, length, status, stream_id, data)

    def _encode_bulk(self, packet: BulkPacket, sender: Role) -> bytes | None:
        """Gives a bulk packet's bytes in the short way, as `_decode_bulk` reads them."""
        data, length = packet.data, packet.length
        expected = length if is_in(packet.endpoint) is (sender is Role.DEVICE) else 0
        if not _is_address(packet.endpoint) or not len(data) == expected <= self.max_bulk:
            return None
        fixed = self._structs[PacketType.BULK_PACKET]
        lengths: tuple[int, ...] = (length & 0xFFFF, packet.stream_id, length >> 16)
        if Capability.BULK_LENGTH_32BITS not in self.capabilities:
            lengths = (length, packet.stream_id)
        try:
            return (
                self._header.pack(PacketType.BULK_PACKET, fixed.size + len(data), packet.id)
                + fixed.pack(packet.endpoint, packet.status, *lengths)
                + data
            )
        except struct.error:
            return None

    def _max_tail(self, layout: Layout) -> int:
        return self.max_bulk if layout.max_tail is None else layout.max_tail


# --- between the values of the fields by name and those of a struct, where an array has many ---


def _split(present: tuple[Field, ...], values: _Values) -> Iterator[int | bytes]:
    for name, form, _ in present:
        if name == "length_high":
            yield values["length"] >> 16
        elif name == "length" and present[-1].name == "length_high":
            yield values["length"] & 0xFFFF
        elif form.startswith("32"):
            yield from values[name]
        else:
            yield values[name]


def _join(present: tuple[Field, ...], flat: tuple[Any, ...]) -> _Values:
    values: _Values = {}
    position = 0
    for name, form, _ in present:
        if form.startswith("32"):
            values[name] = flat[position : position + 32]
            position += 32
        else:
            values[name] = flat[position]
            position += 1
    if "length_high" in values:
        values["length"] |= values.pop("length_high") << 16
    return values


# --- what holds for a packet in both directions ---


def _find_fault(layout: Layout, values: _Values, tail: bytes, sender: Role) -> str | None:
    """Says what is wrong with a packet, None if nothing is."""
    if layout.packet is Hello and len(tail) % 4:
        return f"with {len(tail)} bytes of capabilities"
    if layout.packet is FilterFilter and not (
        tail.isascii() and tail.find(b"\0") == len(tail) - 1 >= 0
    ):
        return "whose text is not ASCII that ends in its one zero"
    if layout.packet is InterfaceInfo and values["interface_count"] > MAX_INTERFACES:
        return f"with {values['interface_count']} interfaces"
    if layout.packet is EpInfo:
        return _find_ep_info_fault(values["type"], values["interval"])
    if "endpoint" in values:
        return _find_endpoint_fault(layout, values, tail, sender)
    return None


def _find_ep_info_fault(types: tuple[int, ...], intervals: tuple[int, ...]) -> str | None:
    for index in _CONTROL_ENDPOINT:
        if types[index] != EndpointType.CONTROL:
            return "without the control endpoint"
    for index, (endpoint_type, interval) in enumerate(zip(types, intervals, strict=True)):
        address = endpoint_address(index)
        if endpoint_type not in _ENDPOINT_TYPES:
            return f"with the type {endpoint_type} for endpoint {address:02X}"
        if endpoint_type in _PERIODIC and not interval:
            return f"without an interval for endpoint {address:02X}"
    return None


def _find_endpoint_fault(layout: Layout, values: _Values, tail: bytes, sender: Role) -> str | None:
    endpoint: int = values["endpoint"]
    if not _is_address(endpoint):
        return f"for the impossible endpoint {endpoint:02X}"
    if layout.in_only and not is_in(endpoint):
        return f"for endpoint {endpoint:02X}, which is not IN"
    if layout.packet is ControlPacket and is_in(endpoint) is not is_in(values["requesttype"]):
        return f"whose bmRequestType goes against endpoint {endpoint:02X}"
    if layout.max_tail == 0:
        return None
    return _find_data_fault(layout, values, tail, sender)


def _find_data_fault(layout: Layout, values: _Values, tail: bytes, sender: Role) -> str | None:
    endpoint: int = values["endpoint"]
    if is_in(endpoint) is (sender is Role.DEVICE):
        if len(tail) != values["length"]:
            return f"with {len(tail)} bytes of data, not {values['length']}"
    elif tail:
        return f"with data for endpoint {endpoint:02X} in the wrong direction"
    # In that direction only transfers have a packet, which asks for data or acknowledges some.
    elif layout.packet is IsoPacket or (layout.packet is InterruptPacket and is_in(endpoint)):
        return f"for endpoint {endpoint:02X} in the wrong direction"
    return None


def _is_address(endpoint: int) -> bool:
    return not endpoint & ~0x8F


# --- between packets, and the values of their fields with the tail ---


def _disassemble(layout: Layout, packet: Packet) -> tuple[_Values, bytes]:
    match packet:
        case Hello():
            return {"version": _encode_version(packet.version)}, _encode_words(packet.capabilities)
        case InterfaceInfo():
            return _disassemble_interfaces(packet.interfaces), b""
        case EpInfo():
            return _disassemble_endpoints(packet.endpoints), b""
        case FilterFilter():
            try:
                return {}, packet.rules.encode("ascii") + b"\0"
            except UnicodeEncodeError:
                raise LocalProtocolError("FilterFilter whose text is not ASCII") from None
        case IsoPacket() | BufferedBulkPacket():
            extra = {"length": len(packet.data)}
        case _:
            extra = {}
    values: _Values = {
        field.name: getattr(packet, field.name)
        for field in layout.fields
        if field.name in _ATTRIBUTES[layout.packet]
    }
    return values | extra, getattr(packet, "data", b"")


def _assemble(layout: Layout, packet_id: int, values: _Values, tail: bytes) -> Packet:
    match layout.packet_type:
        case PacketType.HELLO:
            version = values["version"].partition(b"\0")[0].decode("utf-8", "backslashreplace")
            return Hello(version, Capability(int.from_bytes(tail, "little")))
        case PacketType.INTERFACE_INFO:
            return InterfaceInfo(_assemble_interfaces(values))
        case PacketType.EP_INFO:
            return EpInfo(_assemble_endpoints(values))
        case PacketType.FILTER_FILTER:
            return FilterFilter(tail[:-1].decode("ascii"))
        case _:
            pass
    attributes = _ATTRIBUTES[layout.packet]
    candidates = values | {"id": packet_id, "data": tail}
    make = cast("Callable[..., Packet]", layout.packet)
    return make(**{name: value for name, value in candidates.items() if name in attributes})


def _encode_version(version: str) -> bytes:
    encoded = version.encode("utf-8", "backslashreplace")
    if len(encoded) >= _VERSION_SIZE or b"\0" in encoded:
        raise LocalProtocolError(f"Hello with the version {version!r}")
    return encoded


def _encode_words(capabilities: Capability) -> bytes:
    words = max(1, (capabilities.value.bit_length() + 31) // 32)
    return capabilities.value.to_bytes(4 * words, "little")


def _disassemble_interfaces(interfaces: tuple[Interface, ...]) -> _Values:
    rows = [
        (i.number, i.interface_class, i.interface_subclass, i.interface_protocol)
        for i in interfaces
    ]
    rows += [(0, 0, 0, 0)] * (MAX_INTERFACES - len(rows))
    columns = dict(zip(_INTERFACE_INFO_COLUMNS, zip(*rows, strict=True), strict=True))
    return {"interface_count": len(interfaces), **columns}


def _assemble_interfaces(values: _Values) -> tuple[Interface, ...]:
    columns = (values[name] for name in _INTERFACE_INFO_COLUMNS)
    rows = tuple(Interface(*row) for row in zip(*columns, strict=True))
    return rows[: values["interface_count"]]


def _disassemble_endpoints(endpoints: Mapping[int, Endpoint]) -> _Values:
    rows = [(_NO_ENDPOINT, 0, 0, 0, 0)] * _ENDPOINTS
    for address, e in endpoints.items():
        if not _is_address(address):
            raise LocalProtocolError(f"EpInfo with the impossible endpoint {address:02X}")
        rows[endpoint_index(address)] = (
            e.type,
            e.interval,
            e.interface,
            e.max_packet_size,
            e.max_streams,
        )
    return dict(zip(_EP_INFO_COLUMNS, zip(*rows, strict=True), strict=True))


def _assemble_endpoints(values: _Values) -> dict[int, Endpoint]:
    absent = (0,) * _ENDPOINTS
    columns = (values.get(name, absent) for name in _EP_INFO_COLUMNS)
    return {
        endpoint_address(index): Endpoint(EndpointType(endpoint_type), *rest)
        for index, (endpoint_type, *rest) in enumerate(zip(*columns, strict=True))
        if endpoint_type != _NO_ENDPOINT
    }
