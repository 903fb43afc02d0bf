# SPDX-License-Identifier: Apache-2.0
"""Assuan: the client's end against a pinentry that says anything."""

from contextlib import suppress

from ccid_protocol import ConnectionClosed, LocalProtocolError, NeedData, RemoteProtocolError
from ccid_protocol.assuan import Command, Connection, Data, End, Inquire
from fuzzing.failure import check_stays
from fuzzing.script import Script

_MAX_LINE = 1002


def run(data: bytes) -> None:
    """Feeds the input, in pieces; the client asks whenever it may."""
    script = Script(data)
    connection = Connection()
    try:
        for piece in script.pieces():
            connection.receive_data(piece)
            while not isinstance(event := connection.next_event(), NeedData):
                if isinstance(event, ConnectionClosed):
                    return
                if isinstance(event, Inquire):
                    connection.send(Data(b"%\r\n1234"))
                    connection.send(End())
                else:
                    with suppress(LocalProtocolError):  # unless it is the server's turn
                        connection.send(Command("GETPIN"))
            assert len(connection._buffer) <= _MAX_LINE
    except RemoteProtocolError as failure:
        check_stays(connection, failure)
