# SPDX-License-Identifier: Apache-2.0
"""JSON values out of a stream of bytes, as QEMU's servers find them.

Source: RFC 8259; QEMU, docs/interop/qmp-spec.rst ("Protocol Specification", and "Forcing the JSON
parser into known-good state") and tests/qtest/qmp-test.c.

Values need nothing between them that their brackets do not say. A string may stand in single
quotes, and a backslash before a single quote in a string stands for the quote. What is no JSON is
told apart, and what comes behind it is read anew: behind the bracket that closes the text, or
behind a byte that JSON has nowhere, such as 0xFF, or a line end within a string.

Refused as well are a key that comes twice, a number that is neither a finite double nor an integer
of 64 bits, and half a surrogate pair. A text that is too long or too deep ends the stream.
"""

import enum
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

from ccid_protocol.errors import RemoteProtocolError
from ccid_protocol.events import NEED_DATA, ConnectionClosed, NeedData

JSON: TypeAlias = bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"] | None
"""A JSON value, as Python's json has it."""

MAX_DEPTH: Final = 64
"""How many brackets may be open at a time."""

_MIN_INTEGER: Final = -1 << 63
_MAX_INTEGER: Final = (1 << 64) - 1

_SPACE: Final = re.compile(rb"[ \t\r\n]+")
# Numbers and literal names; which of them there are is the parser's matter.
_WORD: Final = re.compile(rb"[-+.0-9A-Za-z]*")
# 0xFE and 0xFF are in no UTF-8, and end a string that somebody left open.
_IN_DOUBLE: Final = re.compile(rb'[^"\\\x00-\x1f\xfe\xff]*')
_IN_SINGLE: Final = re.compile(rb"[^'\"\\\x00-\x1f\xfe\xff]*")

_DOUBLE: Final = ord('"')
_SINGLE: Final = ord("'")
_BACKSLASH: Final = ord("\\")
_SEPARATORS: Final = b",:"
# What they do to the count of those that are open.
_BRACES: Final = {ord("{"): 1, ord("}"): -1}
_BRACKETS: Final = {ord("["): 1, ord("]"): -1}


class MalformedError(Exception):
    """A text that is no JSON; what is behind it may be."""


@dataclass(frozen=True, slots=True)
class Value:
    """A JSON text, read."""

    content: JSON


class _Lexing(enum.Enum):
    """What the bytes that were read last have begun."""

    NOTHING = enum.auto()
    WORD = enum.auto()
    STRING_IN_DOUBLE = enum.auto()
    STRING_IN_SINGLE = enum.auto()


_QUOTES: Final = {_DOUBLE: _Lexing.STRING_IN_DOUBLE, _SINGLE: _Lexing.STRING_IN_SINGLE}


class JSONStream:
    """Finds JSON texts in a stream, and reads them.

    Each byte is looked at once, however small the pieces are in which the stream comes.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._buffer = bytearray()
        self._closed = False
        self._failure: RemoteProtocolError | None = None
        self._begin_text()

    def _begin_text(self) -> None:
        # The text as strict JSON, as far as it has come.
        self._text = bytearray()
        self._size = 0
        self._lexing = _Lexing.NOTHING
        self._is_escaped = False
        # QEMU counts them apart, and a text ends with the first that closes too much.
        self._braces = 0
        self._brackets = 0

    def receive_data(self, data: bytes) -> None:
        """Takes bytes; `b""` means that the stream has ended."""
        if data:
            self._buffer += data
        else:
            self._closed = True

    def next_value(self) -> Value | ConnectionClosed | NeedData:
        """Gives the next value.

        Raises:
            RemoteProtocolError: There will be none any more.
            MalformedError: A text was none.
        """
        if self._failure is not None:
            raise self._failure
        try:
            text = self._next_text()
        except RemoteProtocolError as error:
            self._failure = error
            self._buffer.clear()
            raise
        return text if isinstance(text, ConnectionClosed | NeedData) else Value(_load(text))

    def _next_text(self) -> bytes | ConnectionClosed | NeedData:
        while self._buffer:
            ends = self._read_piece()
            if self._size > self._max_size:
                raise RemoteProtocolError(f"a text of more than {self._max_size} bytes")
            if ends:
                return self._end_text()
        if not self._closed:
            return NEED_DATA
        if self._lexing is _Lexing.WORD and not self._braces and not self._brackets:
            return self._end_text()
        if self._size:
            raise RemoteProtocolError("connection closed in the middle of a text")
        return ConnectionClosed()

    def _end_text(self) -> bytes:
        text = bytes(self._text)
        self._begin_text()
        return text

    def _read_piece(self) -> bool:
        """Reads as much as is of one kind, and tells whether the text ends with it."""
        match self._lexing:
            case _Lexing.NOTHING:
                return self._read_token()
            case _Lexing.WORD:
                self._keep(_WORD)
                if not self._buffer:
                    return False
                self._lexing = _Lexing.NOTHING
                return not self._is_open
            case _:
                return self._read_string()

    def _read_token(self) -> bool:
        if space := _SPACE.match(self._buffer):
            del self._buffer[: space.end()]
            if self._is_open:
                self._text += b" "
                self._size += space.end()
            return False
        if _WORD.fullmatch(self._buffer, 0, 1):
            self._lexing = _Lexing.WORD
            return False
        byte = self._take()
        if byte in _QUOTES:
            self._lexing = _QUOTES[byte]
        elif byte in _BRACES:
            self._braces += _BRACES[byte]
        elif byte in _BRACKETS:
            self._brackets += _BRACKETS[byte]
        elif byte not in _SEPARATORS:
            self._give_up()
        if self._braces + self._brackets > MAX_DEPTH:
            raise RemoteProtocolError(f"a text with more than {MAX_DEPTH} open brackets")
        self._text.append(_DOUBLE if byte == _SINGLE else byte)
        return self._lexing is _Lexing.NOTHING and not self._is_open

    def _read_string(self) -> bool:
        in_single = self._lexing is _Lexing.STRING_IN_SINGLE
        if not self._is_escaped:
            self._keep(_IN_SINGLE if in_single else _IN_DOUBLE)
            if not self._buffer:
                return False
        byte = self._take()
        if self._is_escaped:
            if not 0x20 <= byte < 0xFE:
                self._give_up()
            self._is_escaped = False
            # Strict JSON has no such escape.
            self._text += b"'" if byte == _SINGLE else bytes((_BACKSLASH, byte))
        elif byte == _BACKSLASH:
            self._is_escaped = True
        elif byte == (_SINGLE if in_single else _DOUBLE):
            self._text.append(_DOUBLE)
            self._lexing = _Lexing.NOTHING
            return not self._is_open
        elif byte == _DOUBLE:
            self._text += b'\\"'
        else:
            self._give_up()
        return False

    @property
    def _is_open(self) -> bool:
        """Whether the text has brackets that are yet to be closed."""
        return min(self._braces, self._brackets) >= 0 and self._braces + self._brackets > 0

    def _keep(self, pattern: re.Pattern[bytes]) -> None:
        """Takes what matches into the text."""
        match = pattern.match(self._buffer)
        assert match is not None
        self._text += match[0]
        self._size += match.end()
        del self._buffer[: match.end()]

    def _take(self) -> int:
        """Takes a byte out of the buffer."""
        byte = self._buffer[0]
        del self._buffer[:1]
        self._size += 1
        return byte

    def _give_up(self) -> NoReturn:
        """Forgets the text."""
        self._begin_text()
        raise MalformedError("this is no JSON: there is a byte that stands nowhere in it")


def _load(text: bytes) -> JSON:
    """Reads a JSON text.

    Raises:
        MalformedError: It is none, or has something in it that is refused.
    """
    try:
        value: JSON = json.loads(
            text.decode(),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
        if b"\\u" in text:
            # Half a surrogate pair is in no UTF-8.
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise MalformedError("this is no JSON: a string is no UTF-8") from None
    except json.JSONDecodeError as error:
        # The text of the exception does without the text that was read.
        raise MalformedError(f"this is no JSON: {error.msg[:1].lower()}{error.msg[1:]}") from None
    except ValueError as error:
        raise MalformedError(f"this is no JSON: {error}") from None
    return value


def _object(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key comes twice in an object")
    return members


def _integer(digits: str) -> int:
    # More digits than any of 64 bits are not read at all: that takes time.
    number = int(digits) if len(digits) <= len(str(_MIN_INTEGER)) else _MAX_INTEGER + 1
    if not _MIN_INTEGER <= number <= _MAX_INTEGER:
        raise ValueError("an integer has more than 64 bits")
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no numbers")
