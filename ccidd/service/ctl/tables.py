# SPDX-License-Identifier: Apache-2.0
"""What a control socket returns, for people: tables and lists that fit a terminal."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ccid_protocol.qmp import JSON

_GAP: Final = "  "
_CUT: Final = "…"
_NOTHING: Final = "-"
_NARROWEST: Final = 8
"""No column is made narrower than that, however narrow the terminal is."""


def terminal_width() -> int | None:
    """Gives the columns of the terminal on standard output; None if there is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        return None


def printable(text: str) -> str:
    """Gives a text in one line, without what could drive a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def shown(value: JSON) -> str:
    """Gives any value in one line."""
    match value:
        case bool():
            text = "yes" if value else "no"
        case float():
            text = f"{value:.10g}"
        case Mapping():
            text = " ".join(f"{name}={shown(each)}" for name, each in value.items())
        case [*items]:
            text = ", ".join(map(shown, items))
        case None:
            text = ""
        case _:
            text = f"{value}"
    return printable(text) or _NOTHING


def table(rows: Sequence[JSON], width: int | None) -> list[str]:
    """Makes a table, with a heading.

    Args:
        rows: objects, whose members are columns; what is none stands alone in its line.
        width: columns of the terminal, in which lines are to fit; None for any length.
    """
    if not all(isinstance(row, Mapping) for row in rows):
        return [_cut(shown(row), width) for row in rows]
    objects = [row for row in rows if isinstance(row, Mapping)]
    names = list(dict.fromkeys(name for row in objects for name in row))
    cells = [
        [printable(name).upper() for name in names],
        *([shown(row.get(name)) for name in names] for row in objects),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if width is not None:
        widths = _narrowed(widths, width)
    return [_line(line, widths) for line in cells]


def members(value: Mapping[str, JSON], width: int | None, indent: str = "") -> list[str]:
    """Lists the members of an object, one a line, and those of objects in it below them."""
    lines = []
    longest = max((len(name) for name, each in value.items() if not _is_large(each)), default=0)
    inner = None if width is None else width - len(indent + _GAP)
    for name, each in value.items():
        if not _is_large(each):
            lines.append(_cut(f"{indent}{printable(name):{longest}}{_GAP}{shown(each)}", width))
            continue
        lines.append(f"{indent}{printable(name)}:")
        if isinstance(each, Mapping):
            lines += members(each, width, indent + _GAP)
        elif isinstance(each, Sequence):
            lines += [f"{indent}{_GAP}{row}" for row in table(each, inner)]
    return lines


def _is_large(value: JSON) -> bool:
    """Whether a value is an object, or a list of some."""
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, Sequence) and any(isinstance(item, Mapping) for item in value)


def whole(value: JSON, width: int | None) -> str:
    """Shows whatever a command has returned; nothing if there is nothing to show."""
    match value:
        case Mapping():
            return _joined(members(value, width))
        case str():
            return printable(value)
        case Sequence():
            return _joined(table(value, width)) if value else "none"
        case _:
            return shown(value)


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _narrowed(widths: Sequence[int], total: int) -> list[int]:
    """Takes from the widest columns what does not fit."""
    narrowed = list(widths)
    room = total - len(_GAP) * (len(widths) - 1)
    while sum(narrowed) > room and max(narrowed) > _NARROWEST:
        narrowed[narrowed.index(max(narrowed))] -= 1
    return narrowed


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (f"{_cut(cell, width):{width}}" for cell, width in zip(cells, widths, strict=True))
    return _GAP.join(padded).rstrip()


def _cut(line: str, width: int | None) -> str:
    if width is None or len(line) <= width:
        return line
    return line[: max(0, width - len(_CUT))] + _CUT
