# SPDX-License-Identifier: Apache-2.0
"""The service manager's end of what ccidd tells it."""

import socket
from typing import Final

SECONDS: Final = 60.0


class Manager:
    """A service manager that listens.

    Attributes:
        address: where.
        descriptors: what it was given to keep, by name.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.descriptors: dict[str, int] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)

    def heard(self) -> list[str]:
        """Gives what it was told; descriptors to keep stay to be told of."""
        self._socket.setblocking(False)
        datagrams: list[str] = []
        while True:
            try:
                if self._socket.recv(8, socket.MSG_PEEK) == b"FDSTORE=":
                    return datagrams
                datagrams.append(self._receive())
            except BlockingIOError:
                return datagrams

    def wait_for(self, assignment: str) -> str:
        """Waits until it is told something, and gives all of that datagram."""
        self._socket.settimeout(SECONDS)
        while assignment not in (text := self._receive()).splitlines():
            pass
        return text

    def _receive(self) -> str:
        data, descriptors, _flags, _address = socket.recv_fds(self._socket, 1000, 1)
        text = data.decode()
        values = dict(line.split("=", 1) for line in text.splitlines())
        for descriptor in descriptors:
            self.descriptors[values["FDNAME"]] = descriptor
        return text

    def close(self) -> None:
        """Stops listening."""
        self._socket.close()
