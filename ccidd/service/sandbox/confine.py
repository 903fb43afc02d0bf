# SPDX-License-Identifier: Apache-2.0
"""Confines ccidd, and says what came of it."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from ccidd.errors import UserError
from ccidd.service.sandbox.needs import Needs
from ccidd.service.sandbox.parts import missing_support, put_in_force

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Mode(enum.Enum):
    """The values of `--sandbox`."""

    AUTO = "auto"
    """As much as works here."""
    ON = "on"
    """All, or nothing starts."""
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Confinement:
    """What confines this process.

    Attributes:
        mode: what was asked for.
        granted: what it may use; None where nothing keeps it from anything.
        in_force: the parts that are in force.
        missing: why each of the others is not.
    """

    mode: Mode
    granted: Needs | None = None
    in_force: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    def check(self, needs: Needs) -> None:
        """Checks that what is needed is granted.

        Raises:
            UserError: It is not.
        """
        beyond = None if self.granted is None else needs.beyond(self.granted)
        if beyond is not None:
            raise UserError(
                f"{beyond} is outside of the sandbox that ccidd made when it started; restart ccidd"
            )


NOT_CONFINED: Final = Confinement(Mode.OFF, missing={"sandbox": "--sandbox=off"})


def check_support(mode: Mode) -> None:
    """Checks that what was asked for can be had, as far as that is known without trying.

    Raises:
        UserError: It cannot.
    """
    if mode is Mode.ON:
        _check_complete(missing_support())


def confine(needs: Needs, mode: Mode) -> Confinement:
    """Gives up for good what is not needed, and says in the log where something is left.

    Called before there is any other thread, which would not be confined.

    Args:
        needs: what is needed.
        mode: what was asked for.

    Raises:
        UserError: It does not work here, and the mode is `ON`.
    """
    if mode is Mode.OFF:
        log.warning("not_confined", reason="--sandbox=off")
        return NOT_CONFINED
    in_force, missing = put_in_force(needs)
    if mode is Mode.ON:
        _check_complete(missing)
    if missing:
        reasons = {name.replace("-", "_"): reason for name, reason in missing.items()}
        log.warning("confined_in_part", in_force=",".join(in_force), **reasons)
    else:
        log.debug("confined", by=",".join(in_force))
    granted = needs if {"landlock", "seccomp"} & set(in_force) else None
    return Confinement(mode, granted, tuple(in_force), missing)


def _check_complete(missing: Mapping[str, str]) -> None:
    for name, reason in missing.items():
        raise UserError(f"--sandbox=on: there is no {name}: {reason}; --sandbox=auto does without")
