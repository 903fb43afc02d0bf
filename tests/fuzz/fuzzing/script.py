# SPDX-License-Identifier: Apache-2.0
"""Bytes that are read as a series of choices and pieces.

A piece is its length in two bytes, big-endian, and so many bytes; the last one may be shorter. So
every input is a script, and a byte more or less moves little.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

_T = TypeVar("_T")

_LENGTH_SIZE: Final = 2


class Script:
    """Reads an input from its beginning; behind its end there are zeros and empty pieces."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bool__(self) -> bool:
        return bool(self._data)

    def take(self, size: int) -> bytes:
        """Gives the next bytes, fewer where the input ends."""
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def number(self, size: int = 1) -> int:
        """Gives an unsigned number of so many bytes, big-endian."""
        return int.from_bytes(self.take(size))

    def choice(self, among: Sequence[_T]) -> _T:
        """Gives one of several."""
        return among[self.number() % len(among)]

    def piece(self) -> bytes:
        """Gives the next piece."""
        return self.take(self.number(_LENGTH_SIZE))

    def pieces(self) -> Iterator[bytes]:
        """Gives all pieces to the end of the input."""
        while self:
            yield self.piece()

    def rest(self) -> bytes:
        """Gives all that is left."""
        return self.take(len(self._data))


def written(*pieces: bytes) -> bytes:
    """Gives the pieces as they stand in an input."""
    return b"".join(len(piece).to_bytes(_LENGTH_SIZE) + piece for piece in pieces)
