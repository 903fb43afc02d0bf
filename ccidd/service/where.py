# SPDX-License-Identifier: Apache-2.0
"""Where something was configured, as messages begin with it.

On the command line that is the option, `--card=piv`; in a file, the file and the keys that lead
there, `ccidd.toml: readers.alice.cards[0]`. What opens cards and readers is given it with their
options, so that it need not know which of the two it is.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from ccidd.errors import UserError


class PlacedError(UserError):
    """A `UserError` whose text begins with where something was configured.

    Args:
        place: where; empty for the command line itself.
        text: what is wrong, and what to do.
    """

    def __init__(self, place: str, text: str) -> None:
        super().__init__(f"{place}: {text}" if place else text)
        self.place: Final = place
        self.text: Final = text


@dataclass(frozen=True, slots=True)
class Where:
    """The command line, or an option of it, or a file, or a table in it.

    Attributes:
        text: what messages begin with; empty for the command line itself.
        joint: what is between it and the name of an option; None if the names of options say
            nothing there.
    """

    text: str
    joint: str | None

    def __str__(self) -> str:
        return self.text

    def of(self, option: str) -> str:
        """Names an option there: `--card=piv: pin-file`, or `FILE: readers.a.cards[0].pin-file`."""
        return self.text if self.joint is None else f"{self.text}{self.joint}{option}"

    def name(self, option: str) -> str:
        """Names an option for somebody who knows the place already."""
        return option if self.text else self.of(option)

    def within(self, option: str) -> Self:
        """Gives the place that an option is, which has options itself."""
        return type(self)(self.of(option), "." if self.text else ": ")

    def error(self, text: str, option: str | None = None) -> PlacedError:
        """Makes an error.

        Args:
            text: what is wrong, and what to do.
            option: the option that is wrong, if it is one alone.
        """
        return PlacedError(self.text if option is None else self.of(option), text)

    @contextlib.contextmanager
    def naming(self, option: str | None = None) -> Iterator[None]:
        """Has what is raised say where, unless it does already.

        Raises:
            PlacedError: In the place of another `UserError`.
        """
        try:
            yield
        except PlacedError:
            raise
        except UserError as error:
            raise self.error(str(error), option) from error


COMMAND_LINE: Final = Where("", "--")
"""The command line, where there is no file."""

READER: Final = COMMAND_LINE.within("reader")
"""The option `--reader`."""


def in_file(file: object) -> Where:
    """Gives the place that a file is."""
    return Where(f"{file}", ": ")
