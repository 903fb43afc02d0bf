# SPDX-License-Identifier: Apache-2.0
"""The least that a card behind ccid-card-passthru can be: every command gets 9000.

    python echo.py SOCKET

The baseline of the measurements. It knows QEMU's messages by their numbers and nothing of ccidd.
"""

from __future__ import annotations

import socket
import struct
import sys

_HEADER = struct.Struct(">III")
_INIT, _READER_ADD, _ATR, _APDU = 1, 3, 5, 7


def main() -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[1])
        listening.listen()
        print("event=ready", flush=True)
        while True:
            connection, _address = listening.accept()
            with connection:
                _serve(connection)


def _serve(connection: socket.socket) -> None:
    _send(connection, _INIT, b"VSCD" + bytes([0, 0, 0, 2]) + bytes(4))
    while _receive(connection)[0] != _INIT:
        pass
    for message, payload in ((_READER_ADD, b""), (_ATR, bytes.fromhex("3B00"))):
        _send(connection, message, payload)
        _receive(connection)
    while message := _receive(connection)[0]:
        if message == _APDU:
            _send(connection, _APDU, b"\x90\x00")


def _send(connection: socket.socket, message: int, payload: bytes) -> None:
    connection.sendall(_HEADER.pack(message, 0, len(payload)) + payload)


def _receive(connection: socket.socket) -> tuple[int, bytes]:
    """Return a message's type and payload; type 0 at the end."""
    header = connection.recv(_HEADER.size, socket.MSG_WAITALL)
    if len(header) < _HEADER.size:
        return 0, b""
    message, _reader, length = _HEADER.unpack(header)
    return message, connection.recv(length, socket.MSG_WAITALL) if length else b""


if __name__ == "__main__":
    main()
