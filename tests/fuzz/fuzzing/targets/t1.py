# SPDX-License-Identifier: Apache-2.0
"""T=1: single blocks, and each end against an other end that sends anything."""

from collections.abc import Iterator
from contextlib import suppress
from functools import reduce
from operator import xor

from ccid_protocol import RemoteProtocolError
from ccid_protocol.t1 import (
    CARD_WORKS,
    CardEnd,
    CommandReady,
    InterfaceDevice,
    decode,
    encode,
)
from ccid_protocol.t1.end import End
from fuzzing.script import Script

_MAX_APDU = 1000
_MAX_BLOCK = 258


def run(data: bytes) -> None:
    """Reads blocks out of the input for the end that its first byte chooses."""
    script = Script(data)
    kind = script.number()
    if kind & 2:
        _feed_interface_device(script, ifsc=script.number() % 254 + 1)
    else:
        _feed_card(script)


def _blocks(script: Script) -> Iterator[bytes]:
    """Gives the pieces, most of them with a right LRC, which no chance would find."""
    for piece in script.pieces():
        if piece[:1] == b"\xff":
            yield piece[1:]
        else:
            yield piece + bytes([reduce(xor, piece, 0)])


def _check_block(raw: bytes) -> None:
    with suppress(RemoteProtocolError):
        assert encode(decode(raw)) == raw


def _check(end: End, sent: bytes) -> None:
    assert len(sent) <= _MAX_BLOCK
    decode(sent)
    assert len(end._incoming) <= _MAX_APDU + _MAX_BLOCK
    assert len(end._outgoing) <= _MAX_APDU


def _feed_card(script: Script) -> None:
    """Each block has an answer, and each command that is given out can be answered."""
    card = CardEnd(max_command=_MAX_APDU)
    for raw in _blocks(script):
        _check_block(raw)
        answer = card.receive_block(raw)
        if answer is CARD_WORKS:
            assert card.works
            answer = card.send_response(bytes(300))
        elif isinstance(answer, CommandReady):
            assert card.works
            assert len(answer.apdu) <= _MAX_APDU
            longer = answer.apdu[:1] == b"\x80"
            answer = card.request_extension() if longer else card.send_response(answer.apdu + b"90")
        _check(card, answer)


def _feed_interface_device(script: Script, ifsc: int) -> None:
    """An exchange ends, or is given up; nothing makes it go on for ever."""
    device = InterfaceDevice(ifsc, max_response=_MAX_APDU)
    waits = False
    with suppress(RemoteProtocolError):
        for raw in _blocks(script):
            _check_block(raw)
            if not waits:
                _check(device, device.send_command(bytes(600)))
                waits = True
            answer = device.time_out() if not raw[:-1] else device.receive_block(raw)
            if isinstance(answer, bytes):
                _check(device, answer)
            else:
                waits = False
            assert 1 <= device.waiting_time_multiplier <= 255
