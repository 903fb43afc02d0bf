# SPDX-License-Identifier: Apache-2.0
"""Confines this process: all that there is of the sandbox, in its order, and what came of it."""

import enum
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from ccidd.dumps import forbid_dumps
from ccidd.errors import UserError
from ccidd.service.sandbox.landlock import landlock_abi, restrict
from ccidd.service.sandbox.needs import Needs
from ccidd.service.sandbox.privileges import drop_capabilities, forbid_new_privileges
from ccidd.service.sandbox.seccomp import allow_calls, find_library

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

    def check(self, who: str, needs: Needs) -> None:
        """Checks that what is needed is granted.

        Args:
            who: what needs it, for people.
            needs: what it needs.

        Raises:
            UserError: It is not granted.
        """
        beyond = None if self.granted is None else needs.beyond(self.granted)
        if beyond is not None:
            raise UserError(
                f"{who} needs {beyond}, which is outside of the sandbox that ccidd made when it"
                " started: restart ccidd"
            )

    def as_json(self) -> Mapping[str, object]:
        """Tells of it in JSON, for query-status."""
        return {
            "mode": self.mode.value,
            "in-force": list(self.in_force),
            "missing": dict(self.missing),
        }


NOT_CONFINED: Final = Confinement(Mode.OFF, missing={"sandbox": "--sandbox=off"})


def confine(needs: Needs, mode: Mode) -> Confinement:
    """Gives up for good what is not needed, and says in the log what that leaves.

    Called before there is any other thread, or child process: none would be confined.

    Args:
        needs: what is needed.
        mode: what was asked for.

    Raises:
        UserError: It does not work here, and the mode is `ON`.
    """
    if mode is Mode.OFF:
        log.warning("not_confined", reason="--sandbox=off")
        return NOT_CONFINED
    if threading.active_count() > 1:
        raise RuntimeError("there are other threads already")
    if mode is Mode.ON:
        _check_support()
    in_force, missing = [], {}
    for name, apply in _parts(needs):
        try:
            apply()
        except OSError as error:
            missing[name] = _reason(error)
            if mode is Mode.ON:
                raise UserError(_refusal(name, missing[name])) from error
        else:
            in_force.append(name)
    granted = needs if {"landlock", "seccomp"} & set(in_force) else None
    confinement = Confinement(mode, granted, tuple(in_force), missing)
    if missing:
        log.warning("confined_in_part", in_force=",".join(in_force), **_as_fields(missing))
    else:
        log.debug("confined", by=",".join(in_force))
    return confinement


def _parts(needs: Needs) -> list[tuple[str, Callable[[], None]]]:
    """The parts in their order: seccomp comes last, as it knows nothing of the others' calls."""
    return [
        ("no-dumps", forbid_dumps),
        ("no-new-privileges", forbid_new_privileges),
        ("landlock", partial(restrict, needs)),
        ("no-capabilities", drop_capabilities),
        ("seccomp", partial(allow_calls, programs=needs.programs, internet=needs.internet)),
    ]


def _check_support() -> None:
    """Checks what can be without any lasting effect.

    Raises:
        UserError: Something is missing.
    """
    for name, probe in (("landlock", landlock_abi), ("seccomp", find_library)):
        try:
            probe()
        except OSError as error:
            raise UserError(_refusal(name, _reason(error))) from error


def _refusal(name: str, reason: str) -> str:
    return f"--sandbox=on: there is no {name}: {reason}; --sandbox=auto does without"


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def _as_fields(missing: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("-", "_"): reason for name, reason in missing.items()}
