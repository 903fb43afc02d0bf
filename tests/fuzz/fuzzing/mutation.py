# SPDX-License-Identifier: Apache-2.0
"""New inputs out of those that are kept, without knowing the code.

It finds less than atheris does, but needs nothing, and gives the same inputs for the same seed.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final

MAX_SIZE: Final = 4096

_MOST_CHANGES: Final = 6
_LONGEST_PIECE: Final = 80
# Where fields begin, end, and change their meaning.
_NUMBERS: Final = (0, 1, 2, 9, 10, 53, 54, 63, 64, 65, 127, 128, 254, 255, 256, 374, 32767, 65535)


def inputs(seed: str, corpus: Sequence[bytes]) -> Iterator[bytes]:
    """Gives inputs without end."""
    rng = random.Random(seed)  # noqa: S311 (no secret depends on it)
    while True:
        data = bytearray(rng.choice(corpus))
        for _ in range(rng.randint(1, _MOST_CHANGES)):
            rng.choice(_CHANGES)(rng, data, corpus)
        yield bytes(data[:MAX_SIZE])


def _place(rng: random.Random, data: bytearray) -> slice:
    start = rng.randint(0, len(data))
    return slice(start, start + rng.randint(0, min(_LONGEST_PIECE, len(data) - start)))


def _flip(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_number(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    size = rng.choice((1, 1, 2, 2, 4))
    number = rng.choice(_NUMBERS) & (1 << 8 * size) - 1
    start = rng.randint(0, max(0, len(data) - size))
    data[start : start + size] = number.to_bytes(size, rng.choice(("big", "little")))


def _insert_anything(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    start = rng.randint(0, len(data))
    data[start:start] = rng.randbytes(rng.randint(1, 8))


def _remove(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    del data[_place(rng, data)]


def _repeat(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    place = _place(rng, data)
    data[place.start : place.start] = data[place] * rng.randint(1, 4)


def _move(rng: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    place = _place(rng, data)
    piece = data[place]
    del data[place]
    start = rng.randint(0, len(data))
    data[start:start] = piece


def _splice(rng: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    other = bytearray(rng.choice(corpus))
    start = rng.randint(0, len(data))
    data[start:start] = other[_place(rng, other)]


def _join(rng: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    other = rng.choice(corpus)
    data[rng.randint(0, len(data)) :] = other[rng.randint(0, len(other)) :]


_CHANGES: Final[tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...]] = (
    _flip,
    _set_number,
    _insert_anything,
    _remove,
    _repeat,
    _move,
    _splice,
    _join,
)
