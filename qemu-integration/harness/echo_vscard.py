# SPDX-License-Identifier: Apache-2.0
"""The least that a card behind ccid-card-passthru can be: every command gets 9000.

    python echo_vscard.py SOCKET

A baseline of the measurements. It knows QEMU's messages by their numbers and nothing of ccidd.
"""

from __future__ import annotations

import socketserver
import struct
import sys

_HEADER = struct.Struct(">III")
_INIT, _READER_ADD, _ATR, _APDU = 1, 3, 5, 7


class _Card(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self._send(_INIT, b"VSCD" + bytes([0, 0, 0, 2]) + bytes(4))
        while self._receive() not in {_INIT, None}:
            pass
        self._send(_READER_ADD, b"")
        self._receive()
        self._send(_ATR, bytes.fromhex("3B00"))
        self._receive()
        while (message := self._receive()) is not None:
            if message == _APDU:
                self._send(_APDU, b"\x90\x00")

    def _send(self, message: int, payload: bytes) -> None:
        self.wfile.write(_HEADER.pack(message, 0, len(payload)) + payload)

    def _receive(self) -> int | None:
        """Return a message's type; None at the end."""
        header = self.rfile.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return None
        message, _reader, length = _HEADER.unpack(header)
        self.rfile.read(length)
        return int(message)


if __name__ == "__main__":
    with socketserver.UnixStreamServer(sys.argv[1], _Card) as server:
        print("event=ready", flush=True)
        server.serve_forever()
