# SPDX-License-Identifier: Apache-2.0
"""CCID messages out of the packets of a bulk endpoint."""

from ccid_protocol import NeedData
from ccid_protocol.ccid import BadMessage, MessageReader, RuntTransfer, encode
from fuzzing.script import Script

_MAX_MESSAGE = 1000


def run(data: bytes) -> None:
    """Feeds packets; each makes two events at most, and nothing is kept beyond a message."""
    script = Script(data)
    reader = MessageReader(_MAX_MESSAGE, extended_apdu=bool(script.number() & 1))
    for piece in script.pieces():
        reader.receive_packet(piece)
        assert len(reader._events) <= 2
        assert len(reader._buffer) < _MAX_MESSAGE
        while not isinstance(event := reader.next_event(), NeedData):
            if isinstance(event, RuntTransfer):
                assert 1 <= event.size <= 9
            elif not isinstance(event, BadMessage):
                assert len(encode(event)) <= _MAX_MESSAGE
