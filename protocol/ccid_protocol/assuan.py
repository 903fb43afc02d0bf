# SPDX-License-Identifier: Apache-2.0
"""Assuan: how a program talks to a pinentry, seen from the client's end.

Source: the libassuan manual 2.5, chapter 3 ("Implementation"), and the behaviour of libassuan
2.5 and pinentry 1.2. The codes of errors are those of libgpg-error's err-codes.h.

The server speaks first and says OK. After that the client sends a command, a line of text, and the
server ends it with OK or ERR. Before that end it may

* send data, in lines "D …" that together are one stream; "%", CR and LF are percent-escaped there
  (%25, %0D, %0A),
* tell how it gets on, in lines "S KEYWORD …",
* ask back, with "INQUIRE KEYWORD …": the client answers with data and END, or with CAN.

Comments, "# …", and empty lines mean nothing and are dropped. Text is UTF-8.

Data may be a PIN. It is in no repr and no text of an exception.
"""

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.events import NEED_DATA, ConnectionClosed, NeedData

MAX_LINE: Final = 1000
"""Bytes of the longest line that may be sent, its LF included."""

_MAX_RECEIVED_LINE: Final = 1002
"""Bytes of the longest line that is accepted: libassuan does not count CR and LF."""

_COMMAND_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]*", re.ASCII)
_ERROR_CODE: Final = re.compile(rb"\d{1,10}")
_ESCAPED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_UNSAFE_IN_DATA: Final = re.compile(rb"[%\r\n]")
# The manual calls for CR, LF, "%" and a "\" at the end; NUL would end a string in C.
_UNSAFE_IN_ARGUMENT: Final = re.compile(rb"[%\x00-\x1f\x7f]|\\\Z")


class ErrorCode(enum.IntEnum):
    """What went wrong: the lower 16 bits of an error's code."""

    TIMEOUT = 62
    CANCELED = 99
    NOT_CONFIRMED = 114
    UNKNOWN_OPTION = 174
    FULLY_CANCELED = 198
    ASS_UNKNOWN_CMD = 275


@dataclass(frozen=True, slots=True)
class Ok:
    """The command is done, or, as the first line of all, the server is ready.

    Attributes:
        text: for people.
    """

    text: str = ""


@dataclass(frozen=True, slots=True)
class Err:
    """The command failed.

    Attributes:
        code: the whole number, of up to 32 bits: in its upper byte what part of the software
            speaks (5 is a pinentry).
        text: for people.
    """

    code: int
    text: str = ""

    @property
    def error(self) -> int:
        """What went wrong: an `ErrorCode`, or a number that is not listed there."""
        return self.code & 0xFFFF


@dataclass(frozen=True, slots=True)
class Status:
    """The server tells something while it works on the command."""

    keyword: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a stream of data.

    Attributes:
        data: the bytes, without escapes. They may be a PIN, so they are left out of the repr.
    """

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Inquire:
    """The server needs data: answer with any number of `Data` and an `End`, or with a `Cancel`."""

    keyword: str
    parameters: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """A command to the server.

    Attributes:
        name: upper-case letters, digits and underscores.
        argument: what follows it; percent-escapes are for `send` to make.
    """

    name: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """The end of the data that was inquired for."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """There is no answer to the inquiry; the server ends the command."""


Response: TypeAlias = Ok | Err | Status | Data | Inquire
Request: TypeAlias = Command | Data | End | Cancel


class _State(enum.Enum):
    """Whose turn it is."""

    GREETING = enum.auto()
    """The server's, to say that it is ready."""
    IDLE = enum.auto()
    """The client's, to send a command."""
    BUSY = enum.auto()
    """The server's, to answer the command."""
    INQUIRED = enum.auto()
    """The client's, to answer an inquiry."""


class Connection:
    """The client's end of an Assuan connection, without the I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._closed = False
        self._failure: RemoteProtocolError | None = None
        self._state = _State.GREETING

    def receive_data(self, data: bytes) -> None:
        """Takes bytes from the server; `b""` means that it closed the connection."""
        if data:
            self._buffer += data
        else:
            self._closed = True

    def next_event(self) -> Response | ConnectionClosed | NeedData:
        """Gives the next response of the server.

        Returns:
            A response, `ConnectionClosed` when the server closed while it owed no answer, or
            `NEED_DATA`.

        Raises:
            RemoteProtocolError: The server broke the protocol. The connection is of no more use,
                and every later call raises the same.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._next_event()
        except RemoteProtocolError as error:
            self._failure = error
            self._buffer.clear()
            raise

    def send(self, request: Request) -> bytes:
        """Gives the bytes of a request, to be written to the server whole and in this order.

        Raises:
            LocalProtocolError: The client may not send that now, or it does not fit a line;
                nothing changes.
        """
        turn = _State.IDLE if isinstance(request, Command) else _State.INQUIRED
        if self._state is not turn:
            raise LocalProtocolError(f"{type(request).__name__} while {self._state.name.lower()}")
        encoded = _encode(request)
        if not isinstance(request, Data):
            self._state = _State.BUSY
        return encoded

    def _next_event(self) -> Response | ConnectionClosed | NeedData:
        while (line := self._next_line()) is not None:
            if line and not line.startswith(b"#"):
                response = _decode(line)
                self._accept(response)
                return response
        if not self._closed:
            return NEED_DATA
        if self._buffer:
            raise RemoteProtocolError("connection closed in the middle of a line")
        if self._state is not _State.IDLE:
            raise RemoteProtocolError(f"connection closed while {self._state.name.lower()}")
        return ConnectionClosed()

    def _next_line(self) -> bytes | None:
        """Takes a whole line, without its end, from the buffer."""
        end = self._buffer.find(b"\n")
        if (len(self._buffer) if end < 0 else end + 1) > _MAX_RECEIVED_LINE:
            raise RemoteProtocolError(f"a line of more than {_MAX_RECEIVED_LINE} bytes")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.removesuffix(b"\r")

    def _accept(self, response: Response) -> None:
        """Holds a response against whose turn it is."""
        final = isinstance(response, Ok | Err)
        if self._state is not _State.BUSY and not (final and self._state is _State.GREETING):
            raise RemoteProtocolError(f"{type(response).__name__} while {self._state.name.lower()}")
        if final:
            self._state = _State.IDLE
        elif isinstance(response, Inquire):
            self._state = _State.INQUIRED


def _decode(line: bytes) -> Response:
    keyword, _space, rest = line.partition(b" ")
    match keyword:
        case b"OK":
            return Ok(_text(rest))
        case b"ERR":
            code, _space, text = rest.partition(b" ")
            if not _ERROR_CODE.fullmatch(code) or int(code) >= 1 << 32:
                raise RemoteProtocolError("ERR without a code of 32 bits")
            return Err(int(code), _text(text))
        case b"S":
            word, _space, text = rest.partition(b" ")
            return Status(_text(word), _text(text))
        case b"D":
            if _BAD_ESCAPE.search(rest):
                raise RemoteProtocolError("D with a percent sign that escapes nothing")
            return Data(_ESCAPED.sub(lambda escape: bytes([int(escape[1], 16)]), rest))
        case b"INQUIRE":
            word, _space, text = rest.partition(b" ")
            return Inquire(_text(word), _text(text))
    raise RemoteProtocolError(f"a line of {len(line)} bytes that is no response")


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _encode(request: Request) -> bytes:
    match request:
        case Command(name, argument):
            return _encode_command(name, argument)
        case Data(data):
            return b"".join(_data_lines(data))
        case End():
            return b"END\n"
        case Cancel():
            return b"CAN\n"


def _encode_command(name: str, argument: str) -> bytes:
    if not _COMMAND_NAME.fullmatch(name):
        raise LocalProtocolError("a command's name is upper-case letters, digits and underscores")
    try:
        escaped = _UNSAFE_IN_ARGUMENT.sub(_escape, argument.encode())
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"the argument of {name} cannot be written in UTF-8") from error
    line = name.encode() + (b" " + escaped if escaped else b"") + b"\n"
    if len(line) > MAX_LINE:
        raise LocalProtocolError(f"{name} is a line of {len(line)} bytes")
    return line


def _data_lines(data: bytes) -> Iterator[bytes]:
    # Each byte may take three, beside "D " and LF.
    step = (MAX_LINE - 3) // 3
    for start in range(0, len(data), step):
        yield b"D " + _UNSAFE_IN_DATA.sub(_escape, data[start : start + step]) + b"\n"


def _escape(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % ord(match[0])
