# SPDX-License-Identifier: Apache-2.0
"""A table of a configuration file: its values by their types, and messages that say where."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, NoReturn, Self, TypeVar

from ccidd.service.where import Where

_T = TypeVar("_T")


def suggestion(word: str, known: Collection[str]) -> str:
    """Gives what a misspelt word may have been meant to be, as the end of a message."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


class Table:
    """A table.

    Args:
        where: the file, or the file and the keys that lead to the table.
        values: what is in it.
        known: the keys that it may have; None if their names are free, or checked elsewhere.

    Raises:
        UserError: There is a key that is not known.
    """

    def __init__(
        self, where: Where, values: Mapping[str, object], known: Collection[str] | None = None
    ) -> None:
        self.where: Final = where
        self._values = values
        if known is None:
            return
        for key in values:
            if key not in known:
                what = suggestion(key, known) or f"; known are {', '.join(known)}"
                raise where.error(f"there is no key {key!r} here{what}")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def text(self, key: str) -> str | None:
        """Gives a string that is not empty; None if the key is not there."""
        value = self._typed(key, str, "a string")
        if value is not None and (not value or "\0" in value):
            self.refuse(key, "a string that is not empty")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Gives the strings of a list, or the one that stands in its place."""
        value = self._values.get(key, [])
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str) and text and "\0" not in text for text in texts):
            self.refuse(key, "a string that is not empty, or a list of them")
        return tuple(texts)

    def path(self, key: str) -> Path | None:
        """Gives a path."""
        value = self.text(key)
        return None if value is None else Path(value)

    def number(self, key: str) -> int | None:
        """Gives an integer."""
        if isinstance(self._values.get(key), bool):
            self.refuse(key, "a number")
        return self._typed(key, int, "a number")

    def switch(self, key: str) -> bool:
        """Gives true or false, and false if the key is not there."""
        return bool(self._typed(key, bool, "true or false"))

    def choice(self, key: str, choices: Collection[str]) -> str | None:
        """Gives one of some strings."""
        value = self.text(key)
        if value is not None and value not in choices:
            self.refuse(key, f"one of {', '.join(choices)}{suggestion(value, choices)}")
        return value

    def table(self, key: str, known: Collection[str] | None = None) -> Self:
        """Gives a table in it; an empty one if the key is not there."""
        value = self._typed(key, dict, "a table") or {}
        return type(self)(self.where.within(key), value, known)

    def tables(self, key: str) -> list[Self]:
        """Gives the tables of a list."""
        tables = []
        for index, value in enumerate(self._typed(key, list, "a list of tables") or []):
            if not isinstance(value, dict):
                self.refuse(f"{key}[{index}]", "a table")
            tables.append(type(self)(self.where.within(f"{key}[{index}]"), value))
        return tables

    def texts_or_tables(self, key: str) -> list[str | Self]:
        """Gives the strings and tables of a list."""
        values = self._typed(key, list, "a list of strings or tables") or []
        each: list[str | Self] = []
        for index, value in enumerate(values):
            if isinstance(value, dict):
                each.append(type(self)(self.where.within(f"{key}[{index}]"), value))
            elif isinstance(value, str) and value and "\0" not in value:
                each.append(value)
            else:
                self.refuse(f"{key}[{index}]", "a string that is not empty, or a table")
        return each

    def assignments(self, *, without: Collection[str] = ()) -> list[str]:
        """Gives all as the command line has it: OPTION=VALUE, more than once for a list."""
        return [
            f"{key}={self._on_command_line(key, value)}"
            for key, values in self._values.items()
            if key not in without
            for value in (values if isinstance(values, list) else [values])
        ]

    def _on_command_line(self, key: str, value: object) -> str:
        if isinstance(value, bool):
            return "on" if value else "off"
        if not isinstance(value, str | int | float):
            self.refuse(key, "a string, a number, true or false, or a list of them")
        return f"{value}"

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Says what a value should be.

        Raises:
            UserError: In any case.
        """
        raise self.where.error(f"this is to be {expected}", key)

    def _typed(self, key: str, kind: type[_T], expected: str) -> _T | None:
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, kind):
            self.refuse(key, expected)
        return value
