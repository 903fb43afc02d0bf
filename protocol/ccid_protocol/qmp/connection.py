# SPDX-License-Identifier: Apache-2.0
"""The two ends of a connection.

Source: QEMU, docs/interop/qmp-spec.rst, "Protocol Specification".
"""

import json
from typing import Final

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.events import ConnectionClosed, NeedData
from ccid_protocol.qmp.jsonstream import JSON, JSONStream, MalformedError
from ccid_protocol.qmp.messages import (
    BadRequest,
    Error,
    Greeting,
    Message,
    Request,
    decode_message,
    decode_request,
    message_as_json,
    with_id,
)

MAX_REQUEST: Final = 1 << 16
"""Bytes of the longest request that a server takes, if nothing else is said."""

MAX_RESPONSE: Final = 1 << 24
"""Bytes of the longest message that a client takes, if nothing else is said."""


class ServerConnection:
    """The server's end of a connection, without the I/O.

    Args:
        max_size: bytes of the longest request.
    """

    def __init__(self, max_size: int = MAX_REQUEST) -> None:
        self._stream = JSONStream(max_size)
        self._greeted = False

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the client; `b""` means that it closed the connection."""
        self._stream.receive_data(data)

    def next_event(self) -> Request | BadRequest | ConnectionClosed | NeedData:
        """Gives the next request, or what is none.

        Raises:
            RemoteProtocolError: A request is too long or too deep, or the connection was closed
                within one. The connection is of no more use, and every later call raises the same.
        """
        try:
            value = self._stream.next_value()
        except MalformedError as error:
            return BadRequest(str(error))
        if isinstance(value, ConnectionClosed | NeedData):
            return value
        return decode_request(value.content)

    def send(self, message: Message) -> bytes:
        """Gives the bytes of a message, to be written to the client whole and in this order.

        Raises:
            LocalProtocolError: The first message is no greeting and no error, or a later one is a
                greeting, or it cannot be written in JSON; nothing changes.
        """
        if not _may_come(message, greeted=self._greeted):
            raise LocalProtocolError("the greeting is the first message, and no other is one")
        encoded = _encode(message_as_json(message)) + b"\r\n"
        self._greeted = self._greeted or isinstance(message, Greeting)
        return encoded


class ClientConnection:
    """The client's end of a connection, without the I/O.

    Args:
        max_size: bytes of the longest message that the server may send.
    """

    def __init__(self, max_size: int = MAX_RESPONSE) -> None:
        self._stream = JSONStream(max_size)
        self._greeted = False
        self._failure: RemoteProtocolError | None = None

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the server; `b""` means that it closed the connection."""
        self._stream.receive_data(data)

    def next_event(self) -> Message | ConnectionClosed | NeedData:
        """Gives the next message of the server.

        Raises:
            RemoteProtocolError: The server broke the protocol. The connection is of no more use,
                and every later call raises the same.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._next_event()
        except MalformedError as error:
            self._failure = RemoteProtocolError(f"{error}")
        except RemoteProtocolError as error:
            self._failure = error
        raise self._failure

    def send(self, request: Request) -> bytes:
        """Gives the bytes of a request, to be written to the server whole and in this order.

        Raises:
            LocalProtocolError: It cannot be written in JSON.
        """
        members: dict[str, JSON] = {"execute": request.execute, "arguments": request.arguments}
        return _encode(with_id(members, request.id)) + b"\n"

    def _next_event(self) -> Message | ConnectionClosed | NeedData:
        value = self._stream.next_value()
        if isinstance(value, ConnectionClosed | NeedData):
            return value
        message = decode_message(value.content)
        if not _may_come(message, greeted=self._greeted):
            raise RemoteProtocolError("the greeting is not the first message, or not the only one")
        self._greeted = self._greeted or isinstance(message, Greeting)
        return message


def _may_come(message: Message, *, greeted: bool) -> bool:
    """Whether a message may come now; a server that takes no more clients says so in an error."""
    if isinstance(message, Error):
        return True
    return isinstance(message, Greeting) is not greeted


def _encode(value: JSON) -> bytes:
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        # Its text may tell what could not be written.
        raise LocalProtocolError(f"no JSON: {type(error).__name__}") from None
