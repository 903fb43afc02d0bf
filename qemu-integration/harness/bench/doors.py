# SPDX-License-Identifier: Apache-2.0
"""The front doors, and a host at each that is as quick as Python can be.

What a host says to set the card up is made by the codecs; what it says again and again is bytes
that are ready, and its answers are read by their length alone. So the host's own time is small.
"""

from __future__ import annotations

import itertools
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from ccid_protocol import ccid, usbredir, vscard
from ccid_protocol.events import ConnectionClosed, NeedData
from harness import echo_usbredir, echo_vscard
from harness.ccidd import passthru, redirected
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

SELECT_PIV: Final = bytes.fromhex("00A4040C09A00000030800001000")
SUCCESS: Final = b"\x90\x00"

_BULK_OUT: Final = 0x01
_BULK_IN: Final = 0x82
_READ_SIZE: Final = 65556  # as libccid does
_READ_OF_ANY_SIZE: Final = 65536

_T = TypeVar("_T")


@dataclass(frozen=True)
class Exchange:
    """One command as bytes.

    Attributes:
        steps: What is sent, each with the bytes of its answer.
        success: What the last answer ends with.
    """

    steps: tuple[tuple[bytes, int], ...]
    success: bytes


class Host:
    """A host that has a card in each slot, powered on.

    Args:
        path: ccidd's socket.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))

    def close(self) -> None:
        """Go."""
        self._socket.close()

    def exchange(self, data: bytes, size: int) -> bytes:
        """Send bytes, and return so many bytes of the answer."""
        self._socket.sendall(data)
        answer = b""
        while len(answer) < size:
            received = self._socket.recv(size - len(answer))
            if not received:
                raise HarnessError("a connection was closed while it was measured")
            answer += received
        return answer

    def times(self, exchange: Exchange, count: int) -> list[float]:
        """Carry a command out again and again; return the seconds that each took."""
        times = []
        for _ in range(count):
            answer = b""
            start = time.perf_counter()
            for data, size in exchange.steps:
                answer = self.exchange(data, size)
            times.append(time.perf_counter() - start)
            if not answer.endswith(exchange.success):
                raise HarnessError(f"an answer was {answer.hex()}")
        return times


class VscardHost(Host):
    """QEMU's usb-ccid."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        connection = vscard.Connection(vscard.Role.HOST)
        message: vscard.Message = vscard.Flush()
        while not isinstance(message, vscard.ATR):
            while isinstance(event := connection.next_event(), NeedData):
                connection.receive_data(self._socket.recv(_READ_OF_ANY_SIZE))
            if isinstance(event, ConnectionClosed):
                raise HarnessError("a connection was closed before it was measured")
            message = event
            if isinstance(message, vscard.Init):
                self._socket.sendall(connection.send(vscard.Init()))
            elif connection.unanswered is not None:
                self._socket.sendall(connection.send(vscard.Error(vscard.ErrorCode.SUCCESS, 0)))
        self._connection = connection

    def select(self) -> Exchange:
        """Return the exchange of `SELECT_PIV`."""
        command = self._connection.send(vscard.APDU(SELECT_PIV))
        return Exchange(((command, len(command) - len(SELECT_PIV) + len(SUCCESS)),), SUCCESS)


class UsbredirHost(Host):
    """QEMU's usb-redir, for a guest with libccid: one request at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection = usbredir.Connection(usbredir.Role.GUEST)
        self._numbers = itertools.count()
        self._until(usbredir.DeviceConnect, self._connection.hello)
        configure = usbredir.SetConfiguration(next(self._numbers), 1)
        self._until(usbredir.ConfigurationStatus, configure)

    def _until(self, kind: type[_T], request: usbredir.Packet) -> _T:
        self.send(request)
        # A hello and the tables come before what they belong to.
        while not isinstance(event := self.next_packet(), kind):
            pass
        return event

    def ask(self, command: ccid.Command) -> ccid.Response:
        """Send a message of CCID, and return the answer that is final."""
        data = ccid.encode(command)
        write = usbredir.BulkPacket(next(self._numbers), _BULK_OUT, data=data)
        self._until(usbredir.BulkPacket, write)
        while True:
            packet = self._until(usbredir.BulkPacket, self.read())
            response = ccid.decode_response(packet.data)
            if response.command_status is not ccid.CommandStatus.TIME_EXTENSION:
                return response

    def transmit(self, command: bytes, slot: int = 0) -> bytes:
        """Have the card in a slot carry out a command."""
        answer = self.ask(ccid.XfrBlock(slot, next(self._numbers) & 0xFF, command))
        assert isinstance(answer, ccid.DataBlock), answer
        return answer.data

    def power_on(self, slot: int = 0) -> None:
        """Power the card in a slot."""
        answer = self.ask(ccid.IccPowerOn(slot, 0))
        if not isinstance(answer, ccid.DataBlock) or not answer.data:
            raise HarnessError(f"a card has no ATR: {answer}")

    def send(self, packet: usbredir.Packet) -> None:
        """Send a packet, and wait for nothing."""
        self._socket.sendall(self._connection.send(packet))

    def next_packet(self) -> usbredir.Event:
        """Wait for ccidd's next packet."""
        while isinstance(event := self._connection.next_event(), NeedData):
            self._connection.receive_data(self._socket.recv(_READ_OF_ANY_SIZE))
        if isinstance(event, ConnectionClosed):
            raise HarnessError("a connection was closed while it was measured")
        return event

    def read(self) -> usbredir.BulkPacket:
        """Make the packet with which an answer is read."""
        return usbredir.BulkPacket(next(self._numbers), _BULK_IN, _READ_SIZE)

    def write(self, slot: int, seq: int, command: bytes) -> usbredir.BulkPacket:
        """Make the packet with which a command is written."""
        data = ccid.encode(ccid.XfrBlock(slot, seq, command))
        return usbredir.BulkPacket(next(self._numbers), _BULK_OUT, data=data)

    def select(self) -> Exchange:
        """Return the exchange of `SELECT_PIV`: the same two packets again and again."""
        self.power_on()
        if self.transmit(SELECT_PIV) != SUCCESS:
            raise HarnessError("the card has no PIV application")
        write = self._connection.send(self.write(0, 0, SELECT_PIV))
        read = self._connection.send(self.read())
        head = len(read)
        answer = head + len(ccid.encode(ccid.DataBlock(0, 0, ccid.IccStatus.ACTIVE, data=SUCCESS)))
        return Exchange(((write, head), (read, answer)), SUCCESS)


@dataclass(frozen=True)
class FrontDoor:
    """One of ccidd's front doors.

    Attributes:
        name: Its name as ccidd's option --transport has it.
        echo: The program that is its baseline in a guest.
        devices: Returns QEMU's options for the socket.
        host: Connects to it.
    """

    name: str
    echo: ModuleType
    devices: Callable[[str], list[str]]
    host: Callable[[Path], VscardHost | UsbredirHost]


VSCARD: Final = FrontDoor("vscard", echo_vscard, passthru, VscardHost)
USBREDIR: Final = FrontDoor("usbredir", echo_usbredir, redirected, UsbredirHost)
DOORS: Final = (VSCARD, USBREDIR)
