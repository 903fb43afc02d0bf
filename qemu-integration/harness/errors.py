# SPDX-License-Identifier: Apache-2.0
"""What the harness raises, for a person to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class HarnessError(Exception):
    """The harness cannot do what it was asked: the message says what is wrong and what to do."""


def tail(path: Path, lines: int = 40) -> str:
    """Return the end of a log for an error's text.

    Args:
        path: The log; one that does not exist reads as empty.
        lines: How many lines at most.
    """
    if not path.exists():
        return f"--- {path}: not written\n"
    text = path.read_text(encoding="utf-8", errors="backslashreplace")
    shown = "\n".join(text.splitlines()[-lines:])
    return f"--- {path}\n{shown}\n"
