# SPDX-License-Identifier: Apache-2.0
"""The least that a CCID reader behind QEMU's usb-redir can be: every command gets 9000.

    python echo_usbredir.py SOCKET

A baseline of the measurements: one slot with a card that never goes, and extended APDUs. It knows
usb redirection and CCID by their numbers and nothing of ccidd.
"""

from __future__ import annotations

import socketserver
import struct
import sys
from collections import deque

# USB redirection. Hello has a 32-bit id in its header, all that follows a 64-bit one.
_HELLO = struct.Struct("<III64sI")
_HEADER = struct.Struct("<IIQ")
_CONTROL = struct.Struct("<BBBBHHH")
_BULK = struct.Struct("<BBHIH")
_CONNECT, _RESET, _INTERFACE_INFO, _EP_INFO = 1, 3, 4, 5
_CONFIGURATION_STATUS, _ALT_STATUS, _INTERRUPT_STATUS = 8, 11, 17
_CANCEL, _CONTROL_PACKET, _BULK_PACKET = 21, 100, 101
_SUCCESS, _CANCELLED, _STALL = 0, 1, 4
_CAPABILITIES = 0x7E  # what xHCI wants among them: packet sizes, 64-bit ids, 32-bit bulk lengths

# The device: full speed, one interface, an identity from libccid's list.
_FULL_SPEED, _VENDOR, _PRODUCT, _RELEASE = 1, 0x0E0F, 0x0004, 0x0100
_BULK_OUT, _BULK_IN, _INTERRUPT_IN = 0x01, 0x82, 0x83
_GET_DESCRIPTOR = 6
# Requests that are answered with a status: the answer's type, and what follows the status in it.
_SETTINGS = {
    **dict.fromkeys((6, 7), (_CONFIGURATION_STATUS, [1])),
    **dict.fromkeys((9, 10), (_ALT_STATUS, [0, 0])),
    **dict.fromkeys((15, 16), (_INTERRUPT_STATUS, [_INTERRUPT_IN])),
}
_CLASS_DESCRIPTOR = struct.pack(
    "<BBHBBIIIBIIBIIIIIBBHBB",
    *(54, 0x21, 0x0110, 0, 7, 3, 4000, 4000, 0, 10752, 344086, 0, 254, 0, 0),
    *(0x000404BA, 65554, 0xFF, 0xFF, 0, 0, 1),  # dwFeatures: extended APDUs, all automatic
)
_DESCRIPTORS = {
    0x0100: struct.pack(
        "<BBHBBBBHHHBBBB", 18, 1, 0x0110, 0, 0, 0, 64, _VENDOR, _PRODUCT, _RELEASE, 0, 0, 0, 1
    ),
    0x0200: struct.pack("<BBHBBBBB", 9, 2, 9 + 9 + 54 + 3 * 7, 1, 1, 0, 0x80, 50)
    + bytes([9, 4, 0, 0, 3, 0x0B, 0, 0, 0])
    + _CLASS_DESCRIPTOR
    + struct.pack("<BBBBHB", 7, 5, _BULK_OUT, 2, 64, 0)
    + struct.pack("<BBBBHB", 7, 5, _BULK_IN, 2, 64, 0)
    + struct.pack("<BBBBHB", 7, 5, _INTERRUPT_IN, 3, 8, 16),
}
# By endpoint, OUT before IN, 16 of each: 0 control, 2 bulk, 3 interrupt.
_ENDPOINT_TYPES = bytes([0, 2, *[255] * 14, 0, 255, 2, 3, *[255] * 12])
_INTERVALS = bytes([*[0] * 19, 16])
_PACKET_SIZES = [*[64] * 19, 8, *[64] * 12]

# CCID: bMessageType, the last byte of the header and the data with which each message is answered.
_MESSAGE = struct.Struct("<BIBBBBB")
_ATR = bytes.fromhex("3B800181")
_T1_PARAMETERS = bytes.fromhex("1110004D002000")
_ANSWERS = {
    0x62: (0x80, 0, _ATR),
    0x63: (0x81, 0, b""),
    0x65: (0x81, 0, b""),
    0x6F: (0x80, 0, b"\x90\x00"),
    **dict.fromkeys((0x61, 0x6C, 0x6D), (0x82, 1, _T1_PARAMETERS)),
}


class _Reader(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self._command = b""
        self._reads: deque[int] = deque()
        self._responses: deque[bytes] = deque()
        self.rfile.read(_HELLO.size)
        connect = struct.pack("<BBBBHHH", _FULL_SPEED, 0, 0, 0, _VENDOR, _PRODUCT, _RELEASE)
        self.wfile.write(_HELLO.pack(0, 68, 0, b"echo", _CAPABILITIES))
        self.wfile.write(_tables() + _packet(_CONNECT, 0, connect))
        while len(header := self.rfile.read(_HEADER.size)) == _HEADER.size:
            kind, length, identifier = _HEADER.unpack(header)
            if answer := self._answer(kind, identifier, self.rfile.read(length)):
                self.wfile.write(answer)

    def _answer(self, kind: int, identifier: int, body: bytes) -> bytes:
        if kind == _BULK_PACKET:
            return self._transfer(identifier, body)
        if kind == _CONTROL_PACKET:
            return _control(identifier, body)
        if kind == _RESET:
            self._command = b""
            self._reads.clear()
            self._responses.clear()
        elif kind == _CANCEL and identifier in self._reads:
            self._reads.remove(identifier)
            return _bulk(identifier, _BULK_IN, _CANCELLED, 0)
        elif kind in _SETTINGS:
            kind, content = _SETTINGS[kind]
            tables = _tables() if kind == _CONFIGURATION_STATUS else b""
            return tables + _packet(kind, identifier, bytes([_SUCCESS, *content]))
        return b""

    def _transfer(self, identifier: int, body: bytes) -> bytes:
        answer = b""
        if body[0] == _BULK_IN:
            self._reads.append(identifier)
        else:
            answer = _bulk(identifier, _BULK_OUT, _SUCCESS, len(body) - _BULK.size)
            self._take(body[_BULK.size :])
        while self._reads and self._responses:
            response = self._responses.popleft()
            answer += _bulk(self._reads.popleft(), _BULK_IN, _SUCCESS, len(response), response)
        return answer

    def _take(self, data: bytes) -> None:
        """Take a message of the host, or a piece of one: UHCI sends 64 bytes at a time."""
        self._command += data
        if len(self._command) < _MESSAGE.size:
            return
        kind, length, slot, seq, *_ = _MESSAGE.unpack_from(self._command)
        if len(self._command) < _MESSAGE.size + length:
            return
        self._command = b""
        status = 0 if kind in _ANSWERS else 0x40
        kind, last, data = _ANSWERS.get(kind, (0x81, 0, b""))
        self._responses.append(_MESSAGE.pack(kind, len(data), slot, seq, status, 0, last) + data)


def _packet(kind: int, identifier: int, body: bytes) -> bytes:
    return _HEADER.pack(kind, len(body), identifier) + body


def _bulk(identifier: int, endpoint: int, status: int, length: int, data: bytes = b"") -> bytes:
    header = _BULK.pack(endpoint, status, length & 0xFFFF, 0, length >> 16)
    return _packet(_BULK_PACKET, identifier, header + data)


def _control(identifier: int, body: bytes) -> bytes:
    """Answer a request on endpoint zero: there are descriptors to read, and no more."""
    endpoint, request, request_type, _, value, index, length = _CONTROL.unpack_from(body)
    status, data = _SUCCESS, b""
    if endpoint:
        wanted = _DESCRIPTORS.get(value, b"") if request == _GET_DESCRIPTOR else b""
        status, data = (_SUCCESS if wanted else _STALL), wanted[:length]
        length = len(data)
    header = _CONTROL.pack(endpoint, request, request_type, status, value, index, length)
    return _packet(_CONTROL_PACKET, identifier, header + data)


def _tables() -> bytes:
    """Return what is sent before the device is plugged in, and for each configuration set."""
    interfaces = struct.pack("<I32s32s32s32s", 1, b"", b"\x0b", b"", b"")
    endpoints = struct.pack("<32s32s32s32H", _ENDPOINT_TYPES, _INTERVALS, b"", *_PACKET_SIZES)
    return _packet(_INTERFACE_INFO, 0, interfaces) + _packet(_EP_INFO, 0, endpoints)


if __name__ == "__main__":
    with socketserver.UnixStreamServer(sys.argv[1], _Reader) as server:
        print("event=ready", flush=True)
        server.serve_forever()
