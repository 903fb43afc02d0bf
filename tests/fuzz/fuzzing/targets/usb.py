# SPDX-License-Identifier: Apache-2.0
"""USB: descriptors, the class descriptor of a CCID reader, and requests."""

from contextlib import suppress

from ccid_protocol import LocalProtocolError, RemoteProtocolError
from ccid_protocol.ccid import (
    ClassDescriptor,
    decode_control_request,
    decode_rates,
    encode_control_request,
    encode_rates,
)
from ccid_protocol.usb import (
    Configuration,
    DeviceDescriptor,
    DeviceQualifier,
    SetupPacket,
    decode_languages,
    decode_string,
    encode_languages,
    encode_string,
)
from fuzzing.script import Script


def run(data: bytes) -> None:
    """Reads the input as what its first byte chooses, and writes it again."""
    script = Script(data)
    check = script.choice(
        (_check_setup, _check_descriptor, _check_configuration, _check_texts, _check_class)
    )
    with suppress(RemoteProtocolError):
        check(script.rest())


def _check_setup(raw: bytes) -> None:
    setup = SetupPacket.decode(raw)
    assert setup.encode() == raw
    assert (setup.kind, setup.recipient) == (raw[0] >> 5 & 3, raw[0] & 0x1F)
    request = decode_control_request(setup)
    if request is not None:
        assert decode_control_request(encode_control_request(request)) == request


def _check_descriptor(raw: bytes) -> None:
    kind = DeviceDescriptor if raw[:1] == b"\x12" else DeviceQualifier
    descriptor = kind.decode(raw)
    with suppress(LocalProtocolError):  # what is read may be inconsistent
        assert kind.decode(descriptor.encode()) == descriptor


def _check_configuration(raw: bytes) -> None:
    configuration = Configuration.decode(raw)
    with suppress(LocalProtocolError):
        assert Configuration.decode(configuration.encode()) == configuration


def _check_texts(raw: bytes) -> None:
    with suppress(RemoteProtocolError):
        assert decode_languages(encode_languages(decode_languages(raw))) == decode_languages(raw)
    with suppress(RemoteProtocolError):
        assert decode_rates(encode_rates(decode_rates(raw))) == decode_rates(raw)
    text = decode_string(raw)
    with suppress(LocalProtocolError):
        assert decode_string(encode_string(text)) == text


def _check_class(raw: bytes) -> None:
    descriptor = ClassDescriptor.decode(raw)
    assert 1 <= descriptor.slots <= 256
    with suppress(LocalProtocolError):
        assert ClassDescriptor.decode(descriptor.encode()) == descriptor
