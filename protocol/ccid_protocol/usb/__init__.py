# SPDX-License-Identifier: Apache-2.0
"""Chapter 9 of USB 2.0: what a device is asked on endpoint zero, and what it says of itself.

Only the bytes are here: what a device does with a request is another package's matter.
"""

from ccid_protocol.usb.descriptors import (
    LANGUAGE_ENGLISH_US,
    MAX_STRING_UNITS,
    Configuration,
    ConfigurationAttributes,
    DescriptorType,
    DeviceDescriptor,
    DeviceQualifier,
    Endpoint,
    Interface,
    TransferType,
    decode_languages,
    decode_string,
    encode_languages,
    encode_string,
)
from ccid_protocol.usb.requests import (
    DeviceStatus,
    EndpointStatus,
    FeatureSelector,
    Recipient,
    RequestKind,
    SetupPacket,
    Speed,
    StandardRequest,
)

__all__ = [
    "LANGUAGE_ENGLISH_US",
    "MAX_STRING_UNITS",
    "Configuration",
    "ConfigurationAttributes",
    "DescriptorType",
    "DeviceDescriptor",
    "DeviceQualifier",
    "DeviceStatus",
    "Endpoint",
    "EndpointStatus",
    "FeatureSelector",
    "Interface",
    "Recipient",
    "RequestKind",
    "SetupPacket",
    "Speed",
    "StandardRequest",
    "TransferType",
    "decode_languages",
    "decode_string",
    "encode_languages",
    "encode_string",
]
