# SPDX-License-Identifier: Apache-2.0
"""VSCARD: either end against a peer that sends anything."""

from ccid_protocol import ConnectionClosed, NeedData, RemoteProtocolError
from ccid_protocol.vscard import (
    APDU,
    MAX_PAYLOAD,
    MAX_PENDING_APDUS,
    Connection,
    Error,
    Init,
    Message,
    Role,
    encode,
)
from fuzzing.failure import check_stays
from fuzzing.script import Script

_MAX_MESSAGE = 12 + MAX_PAYLOAD


def run(data: bytes) -> None:
    """Feeds the input, in pieces, to the end that its first byte chooses."""
    script = Script(data)
    connection = Connection(script.choice((Role.CLIENT, Role.HOST)))
    connection.send(Init())
    try:
        for piece in script.pieces():
            connection.receive_data(piece)
            while not isinstance(event := connection.next_event(), NeedData):
                if isinstance(event, ConnectionClosed):
                    return
                _take(connection, event)
            assert len(connection._buffer) < _MAX_MESSAGE
    except RemoteProtocolError as failure:
        check_stays(connection, failure)


def _take(connection: Connection, event: Message) -> None:
    raw = encode(event)
    again = Connection(connection.our_role)
    again.receive_data(raw)
    assert again._extract_message() == event
    assert connection.pending_apdus <= MAX_PENDING_APDUS
    if connection.our_role is Role.CLIENT and isinstance(event, APDU) and connection.is_open:
        if connection.pending_apdus > MAX_PENDING_APDUS - 2:
            connection.send(APDU(b"\x90\x00"))
    elif connection.our_role is Role.HOST and connection.unanswered is not None:
        connection.send(Error(0))
