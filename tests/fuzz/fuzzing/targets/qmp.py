# SPDX-License-Identifier: Apache-2.0
"""QMP: either end against a peer that sends anything."""

from ccid_protocol import ConnectionClosed, NeedData, RemoteProtocolError
from ccid_protocol.qmp import (
    BadRequest,
    ClientConnection,
    Greeting,
    Request,
    Return,
    ServerConnection,
)
from fuzzing.failure import check_stays
from fuzzing.script import Script

_MAX_SIZE = 2000


def run(data: bytes) -> None:
    """Feeds the input, in pieces, to the end that its first byte chooses."""
    script = Script(data)
    is_client = bool(script.number() & 1)
    connection = ClientConnection(_MAX_SIZE) if is_client else ServerConnection(_MAX_SIZE)
    try:
        if isinstance(connection, ClientConnection):
            _feed_client(connection, script)
        else:
            _feed_server(connection, script)
    except RemoteProtocolError as failure:
        check_stays(connection, failure)


def _feed_server(server: ServerConnection, script: Script) -> None:
    server.send(Greeting({}))
    for piece in script.pieces():
        server.receive_data(piece)
        while not isinstance(event := server.next_event(), NeedData):
            if isinstance(event, ConnectionClosed):
                return
            # What a response repeats can be written, and read by a client.
            client = ClientConnection()
            client.receive_data(ServerConnection().send(Greeting({})))
            client.next_event()
            client.receive_data(server.send(Return({}, event.id)))
            assert client.next_event() == Return({}, event.id)
            if isinstance(event, Request):
                again = ServerConnection()
                again.receive_data(client.send(event))
                assert again.next_event() == event
            else:
                assert isinstance(event, BadRequest)
                assert event.description.isprintable()
        _check_memory(server)


def _feed_client(client: ClientConnection, script: Script) -> None:
    for piece in script.pieces():
        client.receive_data(piece)
        while not isinstance(event := client.next_event(), NeedData):
            if isinstance(event, ConnectionClosed):
                return
        _check_memory(client)


def _check_memory(connection: ServerConnection | ClientConnection) -> None:
    assert not connection._stream._buffer
    assert len(connection._stream._text) <= 2 * _MAX_SIZE
