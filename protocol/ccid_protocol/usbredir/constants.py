# SPDX-License-Identifier: Apache-2.0
"""The numbers of usb redirection: roles, capabilities, packet types, statuses, endpoints.

Source: the USB Network Redirection protocol description, version 0.7.
"""

import enum
from typing import Final

ENDPOINT_IN: Final = 0x80
"""The bit of an endpoint address that says: from the device to the guest."""

MAX_INTERFACES: Final = 32
"""Interfaces that interface_info has room for."""


def is_in(endpoint: int) -> bool:
    """Whether data of this endpoint goes from the device to the guest."""
    return bool(endpoint & ENDPOINT_IN)


def endpoint_index(address: int) -> int:
    """Gives an endpoint's place in ep_info and in bit masks: OUT 0 to 15, then IN 0 to 15."""
    return (address & ENDPOINT_IN) >> 3 | address & 0x0F


def endpoint_address(index: int) -> int:
    """Gives the address of the endpoint at a place from 0 to 31."""
    return (index & 0x10) << 3 | index & 0x0F


class Role(enum.Enum):
    """Which end of the connection one is."""

    DEVICE = "device"
    """The end that has the USB device ("usb-host" in the protocol's text): ccidd."""
    GUEST = "guest"
    """The end that uses the device ("usb-guest"): QEMU."""

    @property
    def peer(self) -> "Role":
        """The other end."""
        return Role.GUEST if self is Role.DEVICE else Role.DEVICE


class Capability(enum.IntFlag, boundary=enum.KEEP):
    """What an end can do. Each counts only if both ends announce it. Unknown bits are kept."""

    BULK_STREAMS = 1 << 0
    CONNECT_DEVICE_VERSION = 1 << 1
    FILTER = 1 << 2
    DEVICE_DISCONNECT_ACK = 1 << 3
    EP_INFO_MAX_PACKET_SIZE = 1 << 4
    IDS_64BITS = 1 << 5
    BULK_LENGTH_32BITS = 1 << 6
    BULK_RECEIVING = 1 << 7


NO_CAPABILITIES: Final = Capability(0)

DEVICE_CAPABILITIES: Final = Capability(0x7E)
"""What a device announces by default: all but bulk streams (0) and bulk receiving (7)."""

GUEST_CAPABILITIES: Final = Capability(0xFF)
"""What QEMU announces: everything."""


def negotiate(ours: Capability, theirs: Capability) -> Capability:
    """Gives the capabilities that count in a session: those that both ends announced.

    An end that announces BULK_STREAMS must announce EP_INFO_MAX_PACKET_SIZE too. Where it does not,
    its BULK_STREAMS is void, as it is for libusbredirparser.
    """
    common = ours & theirs
    if Capability.EP_INFO_MAX_PACKET_SIZE not in common and Capability.BULK_STREAMS in common:
        common ^= Capability.BULK_STREAMS
    return common


class PacketType(enum.IntEnum):
    """The type field of a header."""

    HELLO = 0
    DEVICE_CONNECT = 1
    DEVICE_DISCONNECT = 2
    RESET = 3
    INTERFACE_INFO = 4
    EP_INFO = 5
    SET_CONFIGURATION = 6
    GET_CONFIGURATION = 7
    CONFIGURATION_STATUS = 8
    SET_ALT_SETTING = 9
    GET_ALT_SETTING = 10
    ALT_SETTING_STATUS = 11
    START_ISO_STREAM = 12
    STOP_ISO_STREAM = 13
    ISO_STREAM_STATUS = 14
    START_INTERRUPT_RECEIVING = 15
    STOP_INTERRUPT_RECEIVING = 16
    INTERRUPT_RECEIVING_STATUS = 17
    ALLOC_BULK_STREAMS = 18
    FREE_BULK_STREAMS = 19
    BULK_STREAMS_STATUS = 20
    CANCEL_DATA_PACKET = 21
    FILTER_REJECT = 22
    FILTER_FILTER = 23
    DEVICE_DISCONNECT_ACK = 24
    START_BULK_RECEIVING = 25
    STOP_BULK_RECEIVING = 26
    BULK_RECEIVING_STATUS = 27
    CONTROL_PACKET = 100
    BULK_PACKET = 101
    ISO_PACKET = 102
    INTERRUPT_PACKET = 103
    BUFFERED_BULK_PACKET = 104


class Status(enum.IntEnum):
    """How a request ended. A number that is not listed here means an error as well."""

    SUCCESS = 0
    CANCELLED = 1
    INVAL = 2
    IOERROR = 3
    STALL = 4
    TIMEOUT = 5
    BABBLE = 6


class Speed(enum.IntEnum):
    """The speed of a device."""

    LOW = 0
    FULL = 1
    HIGH = 2
    SUPER = 3
    UNKNOWN = 255


class EndpointType(enum.IntEnum):
    """The transfer type of an endpoint, numbered as in USB descriptors."""

    CONTROL = 0
    ISO = 1
    BULK = 2
    INTERRUPT = 3
