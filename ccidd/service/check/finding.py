# SPDX-License-Identifier: Apache-2.0
"""What a check finds: each finding is one line."""

import enum
from dataclasses import dataclass

from ccidd.errors import UserError
from ccidd.service.state import OlderStateError
from ccidd.service.where import PlacedError


class Severity(enum.Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """ccidd serves all the same, or it cannot be told from here whether it does."""
    ERROR = "error"
    """ccidd does not serve, or a guest cannot use what it serves."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is so.

    Attributes:
        severity: how bad it is.
        where: the file with the key in it, the option, or the thing itself.
        text: what was found, and what to do.
    """

    severity: Severity
    where: str
    text: str

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{self.severity.value:7}  {place}{self.text}"


def ok(where: object, text: str) -> Finding:
    """Makes a finding that all is well."""
    return Finding(Severity.OK, f"{where}", text)


def warning(where: object, text: str) -> Finding:
    """Makes a warning."""
    return Finding(Severity.WARNING, f"{where}", text)


def error(where: object, text: str) -> Finding:
    """Makes an error."""
    return Finding(Severity.ERROR, f"{where}", text)


def refusal(refused: UserError, severity: Severity | None = None, where: object = "") -> Finding:
    """Makes a finding of what serving would have ended with.

    Args:
        refused: what was raised.
        severity: how bad it is; by default an error, unless it is only that it cannot be told.
        where: where it is, if that is not said yet.
    """
    if severity is None:
        is_open = isinstance(refused, OlderStateError)
        severity = Severity.WARNING if is_open else Severity.ERROR
    if isinstance(refused, PlacedError) and refused.place:
        return Finding(severity, refused.place, refused.text)
    return Finding(severity, f"{where}", f"{refused}")
