# SPDX-License-Identifier: Apache-2.0
"""CCID messages: single ones of each direction, and what a PIN request asks for."""

from contextlib import suppress

from ccid_protocol import LocalProtocolError, RemoteProtocolError
from ccid_protocol.ccid import (
    BadMessage,
    Secure,
    decode_command,
    decode_notification,
    decode_pin_request,
    decode_response,
    encode,
    encode_notification,
)
from ccid_protocol.ccid.secure import PinModification, PinVerification
from fuzzing.script import Script

_PIN = b"1234567890123456"


def run(data: bytes) -> None:
    """Reads the input as what its first byte chooses, and writes it again."""
    script = Script(data)
    check = script.choice((_check_command, _check_response, _check_notification, _check_pin))
    with suppress(RemoteProtocolError):
        check(script.rest())


def _check_command(raw: bytes) -> None:
    for extended in (False, True):
        command = decode_command(raw, extended_apdu=extended)
        if isinstance(command, BadMessage):
            assert 0 <= command.error <= 0xFF
            assert (command.message_type, command.slot, command.seq) == (raw[0], raw[5], raw[6])
            continue
        again = encode(command)
        assert decode_command(again, extended_apdu=extended) == command
        if isinstance(command, Secure):
            with suppress(RemoteProtocolError):
                _check_pin(command.data)


def _check_response(raw: bytes) -> None:
    response = decode_response(raw)
    assert decode_response(encode(response)) == response


def _check_notification(raw: bytes) -> None:
    slots = raw[0] % 20 + 1 if raw else 1
    notification = decode_notification(raw[1:], slots)
    assert encode_notification(notification) == raw[1:]


def _check_pin(raw: bytes) -> None:
    request = decode_pin_request(raw)
    assert decode_pin_request(request.encode()) == request
    if not isinstance(request, PinVerification | PinModification):
        return
    for digits in range(len(_PIN) + 1):
        pin = _PIN[:digits]
        with suppress(LocalProtocolError):
            command = request.command(pin)
            assert request.accepts(pin)
            assert 4 <= len(command) <= 4 + 1 + 255 + 1
