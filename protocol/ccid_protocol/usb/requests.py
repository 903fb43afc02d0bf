# SPDX-License-Identifier: Apache-2.0
"""USB device requests: what arrives at a device's endpoint zero.

Source: Universal Serial Bus Specification Rev 2.0, 9.3 (setup packet) and 9.4 (standard requests).
Integers are little-endian.
"""

import enum
import struct
from dataclasses import dataclass
from typing import Final, Self

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError

# 9.3, table 9-2: bmRequestType, bRequest, wValue, wIndex, wLength
_SETUP: Final = struct.Struct("<BBHHH")


class Speed(enum.IntEnum):
    """The signalling rates of USB 2.0, numbered as usbredir's device_connect does."""

    LOW = 0
    FULL = 1
    HIGH = 2


class StandardRequest(enum.IntEnum):
    """The bRequest values of 9.4, table 9-4."""

    GET_STATUS = 0
    CLEAR_FEATURE = 1
    SET_FEATURE = 3
    SET_ADDRESS = 5
    GET_DESCRIPTOR = 6
    SET_DESCRIPTOR = 7
    GET_CONFIGURATION = 8
    SET_CONFIGURATION = 9
    GET_INTERFACE = 10
    SET_INTERFACE = 11
    SYNCH_FRAME = 12


class FeatureSelector(enum.IntEnum):
    """What SET_FEATURE and CLEAR_FEATURE name in wValue (9.4, table 9-6)."""

    ENDPOINT_HALT = 0
    DEVICE_REMOTE_WAKEUP = 1
    TEST_MODE = 2


class DeviceStatus(enum.IntFlag):
    """The bits of a device's answer to GET_STATUS (9.4.5, figure 9-4)."""

    SELF_POWERED = 1
    REMOTE_WAKEUP = 2


class EndpointStatus(enum.IntFlag):
    """The bit of an endpoint's answer to GET_STATUS (9.4.5, figure 9-6)."""

    HALT = 1


class RequestKind(enum.IntEnum):
    """Who defines a request: bits 6 and 5 of bmRequestType."""

    STANDARD = 0
    CLASS = 1
    VENDOR = 2
    RESERVED = 3


class Recipient(enum.IntEnum):
    """What a request is meant for: bits 4 to 0 of bmRequestType."""

    DEVICE = 0
    INTERFACE = 1
    ENDPOINT = 2
    OTHER = 3


@dataclass(frozen=True, slots=True)
class SetupPacket:
    """The eight bytes that begin every control transfer (9.3).

    Attributes:
        request_type: bmRequestType: direction, kind and recipient.
        request: bRequest: a `StandardRequest`, or a number that a class or vendor defines.
        value: wValue.
        index: wIndex: an interface, an endpoint or a language, as the request has it.
        length: wLength: the bytes that the host sends, or the most that it takes.
    """

    request_type: int
    request: int
    value: int = 0
    index: int = 0
    length: int = 0

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Reads a setup packet.

        Raises:
            RemoteProtocolError: There are not eight bytes.
        """
        if len(raw) != _SETUP.size:
            raise RemoteProtocolError(f"setup packet of {len(raw)} bytes")
        return cls(*_SETUP.unpack(raw))

    def encode(self) -> bytes:
        """Gives the eight bytes.

        Raises:
            LocalProtocolError: A field does not fit its bytes.
        """
        fields = (self.request_type, self.request, self.value, self.index, self.length)
        try:
            return _SETUP.pack(*fields)
        except struct.error as error:
            raise LocalProtocolError(f"a field that does not fit its bytes: {error}") from error

    @property
    def device_to_host(self) -> bool:
        """Whether the data stage, if there is one, goes to the host."""
        return bool(self.request_type & 0x80)

    @property
    def kind(self) -> RequestKind:
        """Who defines the request."""
        return RequestKind(self.request_type >> 5 & 3)

    @property
    def recipient(self) -> int:
        """A `Recipient`, or a reserved number (4 to 31)."""
        return self.request_type & 0x1F

    @property
    def descriptor_type(self) -> int:
        """The descriptor that GET_DESCRIPTOR asks for: a `DescriptorType` or a class's own."""
        return self.value >> 8

    @property
    def descriptor_index(self) -> int:
        """Which one of several strings or configurations GET_DESCRIPTOR asks for."""
        return self.value & 0xFF
