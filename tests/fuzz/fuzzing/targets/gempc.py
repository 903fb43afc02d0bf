# SPDX-License-Identifier: Apache-2.0
"""GemPC Twin's framing: either end of a line on which there is anything."""

from functools import reduce
from operator import xor

from ccid_protocol import ConnectionClosed, NeedData
from ccid_protocol.gempc import BadFrame, Connection, Message, Role
from fuzzing.script import Script

_MAX_FRAME = 2 + 271 + 1


def run(data: bytes) -> None:
    """Feeds the input, in pieces, to an end that its first byte chooses; noise ends nothing."""
    script = Script(data)
    flags = script.number()
    connection = Connection(Role.HOST if flags & 1 else Role.READER, echo=bool(flags & 2))
    for piece in script.pieces():
        # A piece that begins with FF is a message that gets its frame here.
        framed = b"\x03\x06" + piece[1:]
        is_raw = piece[:1] != b"\xff"
        connection.receive_data(piece if is_raw else framed + bytes([reduce(xor, framed)]))
        while not isinstance(event := connection.next_event(), NeedData):
            if isinstance(event, ConnectionClosed):
                return
            if isinstance(event, Message):
                _check_message(event)
            if isinstance(event, Message | BadFrame):
                connection.acknowledge(event)
        assert len(connection._buffer) < _MAX_FRAME
        if not piece[1:] and connection.time_out() is not None:
            assert not connection._buffer


def _check_message(message: Message) -> None:
    sender, receiver = Connection(Role.HOST), Connection(Role.READER)
    receiver.receive_data(sender.send(message))
    assert receiver.next_event() == message
