# SPDX-License-Identifier: Apache-2.0
"""What holds for a connection whose peer broke the protocol."""

from typing import Protocol

from ccid_protocol import RemoteProtocolError


class _Receiver(Protocol):
    def receive_data(self, data: bytes) -> None: ...

    def next_event(self) -> object: ...


def check_stays(connection: _Receiver, failure: RemoteProtocolError) -> None:
    """Once it has failed it fails in the same way each time, whatever else comes."""
    again = None
    connection.receive_data(b"more")
    try:
        connection.next_event()
    except RemoteProtocolError as error:
        again = error
    assert again is failure
