# SPDX-License-Identifier: Apache-2.0
"""The state directory: is it there, and can it be used."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ccidd.service.check.finding import Finding, error, ok
from ccidd.service.state import KeyFile, ReadOnlyState, State
from ccidd.service.state.statekey import load_key


@dataclass(frozen=True, slots=True)
class StatePlace:
    """Where a state is, or is to be.

    Attributes:
        directory: the state directory.
        key_file: the file with its key; None for the one that ccidd makes.
    """

    directory: Path
    key_file: KeyFile | None

    @property
    def exists(self) -> bool:
        """Whether it is there already."""
        return State.exists(self.directory)

    def open(self) -> ReadOnlyState:
        """Opens it, to be looked at.

        Raises:
            UserError: It is not there, or cannot be used.
        """
        return ReadOnlyState(self.directory, self.key_file)


def look_at_state(place: StatePlace) -> Iterator[Finding]:
    """Looks at a state directory.

    Raises:
        UserError: It cannot be used.
    """
    directory = place.directory
    if not place.exists:
        if place.key_file is not None:
            load_key(place.key_file)
        yield _look_at_what_is_to_be(directory)
        return
    with place.open() as state:
        cards = state.cards()
    named = [card.name for card in cards if card.name is not None]
    yield ok("state", f"{directory} can be used; cards: {', '.join(named) or 'none'}")


def _look_at_what_is_to_be(directory: Path) -> Finding:
    there = next(each for each in (directory, *directory.absolute().parents) if each.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        return ok("state", f"there is none yet; it will be made in {directory}")
    return error("state", f"{directory} cannot be made in {there}; give --state-dir=DIR")
