# SPDX-License-Identifier: Apache-2.0
"""The bulk-IN endpoint of the reader: messages that wait to be read, piece by piece.

Source: Universal Serial Bus Specification Rev 2.0, 5.8.3 (a transfer ends with a short packet);
USB CCID Rev 1.1, 3.1 (one message, one transfer).

A host reads a message in as many pieces as it likes, and no piece holds bytes of two messages. A
piece that was given to the host but never reached it is given back, and is read again.
"""

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Piece:
    """Bytes of one message.

    Attributes:
        position: of its first byte among all bytes that were ever put into the endpoint.
        data: the bytes, left out of the repr.
        ends: whether the message ends with them.
    """

    position: int
    data: bytes = field(repr=False, compare=False)
    ends: bool = field(default=True, compare=False)

    @property
    def end(self) -> int:
        """The position behind its last byte."""
        return self.position + len(self.data)


class BulkIn:
    """The messages that the host has not read yet."""

    def __init__(self) -> None:
        # In the order of their positions; none is continued by the one behind it.
        self._pieces: list[Piece] = []
        self._end = 0
        self._begin = 0

    def __len__(self) -> int:
        return len(self._pieces)

    def put(self, message: bytes) -> None:
        """Adds a message of at least one byte."""
        piece = Piece(self._end, message)
        self._end = piece.end
        self._pieces.append(piece)

    def take(self, size: int) -> Piece | None:
        """Gives the next bytes of one message, at most `size`; None if there are none."""
        if not self._pieces:
            return None
        piece = self._pieces.pop(0)
        if len(piece.data) <= size:
            return piece
        rest = Piece(piece.position + size, piece.data[size:], piece.ends)
        self._pieces.insert(0, rest)
        return Piece(piece.position, piece.data[:size], ends=False)

    def give_back(self, piece: Piece) -> None:
        """Takes back what the host has not seen, to its old place, unless `clear` came between."""
        if piece.position >= self._begin:
            self._pieces.insert(bisect(self._pieces, piece), piece)
            self._pieces = list(_joined(self._pieces))

    def clear(self) -> None:
        """Forgets all messages, and all pieces that are not given back yet."""
        self._pieces.clear()
        self._begin = self._end


def _joined(pieces: list[Piece]) -> Iterator[Piece]:
    """Puts pieces together of which one continues the other."""
    before, *others = pieces
    for piece in others:
        if not before.ends and before.end == piece.position:
            before = Piece(before.position, before.data + piece.data, piece.ends)
        else:
            yield before
            before = piece
    yield before
