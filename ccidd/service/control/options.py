# SPDX-License-Identifier: Apache-2.0
"""The values of `--control`: PATH,OPTION=VALUE,..., and the descriptors that systemd passes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ccidd.service.allow import group_number, parse_mode
from ccidd.service.configtable import Table
from ccidd.service.control.roles import DEFAULT, NAMES, Role, parse_roles
from ccidd.service.options import OptionHelp, describe_options, parse_options, split
from ccidd.service.where import COMMAND_LINE, Where
from ccidd.transport.listening import OWNER_ONLY

CONTROL_OPTIONS: Final[Mapping[str, OptionHelp]] = {
    "role": OptionHelp(
        "observe|operate|agent",
        "what those who connect may do: see, or also change things, or answer requests; several"
        " joined by +; default: operate+agent",
    ),
    "mode": OptionHelp("MODE", "the mode of the socket, in octal; default: 0600"),
    "group": OptionHelp("GROUP", "the group that it belongs to, with mode=0660 for example"),
}

_ROLES_HELP: Final[Mapping[str, str]] = {
    "observe": "sees everything that is no secret, and changes nothing",
    "operate": "observes, and has to do with cards, readers, PINs, the log and the end of ccidd",
    "agent": "answers when a PIN or a person's consent is asked for",
}

SYSTEMD_ROLES: Final[Mapping[str, Role]] = {
    "control": DEFAULT,
    **{f"control-{name}": roles for name, roles in NAMES.items()},
}
"""What the sockets from systemd are for whose descriptors have these names."""


@dataclass(frozen=True, slots=True)
class ControlOptions:
    """A control socket that there is to be.

    Attributes:
        path: where to make it.
        fd: instead, an inherited one.
        roles: what it is for.
        mode: the mode of the file at `path`.
        group: the group of that file, by its name or number.
    """

    path: Path | None = None
    fd: int | None = None
    roles: Role = DEFAULT
    mode: int = OWNER_ONLY
    group: str | None = None


def parse_control(text: str) -> ControlOptions:
    """Reads the value of a `--control`.

    Raises:
        UserError: There is no path, or an option is unknown, given twice, or has no such value.
    """
    place, *assignments = split(text)
    return make_control(place, assignments)


def make_control(
    place: str, assignments: Sequence[str], where: Where | None = None
) -> ControlOptions:
    """Makes the options of a control socket.

    Args:
        place: its path.
        assignments: OPTION=VALUE each.
        where: what gave them; None for the command line.

    Raises:
        UserError: As `parse_control`.
    """
    where = where or COMMAND_LINE.within(f"control={place}")
    if not place or "=" in place:
        raise where.error("the path of the socket comes first")
    values = parse_options(where, "--control", assignments, CONTROL_OPTIONS)
    (role,) = values.get("role", ("operate+agent",))
    (mode,) = values.get("mode", (f"{OWNER_ONLY:04o}",))
    (group,) = values.get("group", (None,))
    roles = parse_roles(role, where)
    with where.naming("mode"):
        number = parse_mode(mode)
    if group is not None:
        with where.naming("group"):
            group_number(group)
    return ControlOptions(Path(place), roles=roles, mode=number, group=group)


def read_control(table: Table) -> tuple[ControlOptions, ...]:
    """Reads the key `control` of a configuration file.

    Args:
        table: what it is in.

    Raises:
        UserError: As `parse_control`, or it is no list of strings and tables.
    """
    return tuple(
        _read(each, table.where.within(f"control[{index}]"))
        for index, each in enumerate(table.texts_or_tables("control"))
    )


def _read(socket: str | Table, where: Where) -> ControlOptions:
    if isinstance(socket, str):
        place, *assignments = split(socket)
    else:
        place = socket.text("path") or socket.refuse("path", "there: where to make the socket")
        assignments = socket.assignments(without={"path"})
    return make_control(place, assignments, where)


def control_help() -> str:
    """What `--control=help` prints."""
    title = "--control=PATH,OPTION=VALUE,...   (a comma in a value is written twice)"
    roles = [f"  {name:8} {what}" for name, what in _ROLES_HELP.items()]
    return "\n".join([title, "", *describe_options(CONTROL_OPTIONS), "", "Roles:", *roles])


def take_control_fds(
    systemd_fds: Sequence[tuple[str, int]],
) -> tuple[list[ControlOptions], list[tuple[str, int]]]:
    """Tells the control sockets from the others that systemd passed.

    Args:
        systemd_fds: the name and the descriptor of each.

    Returns:
        The control sockets, and the others.
    """
    sockets = [
        ControlOptions(fd=fd, roles=SYSTEMD_ROLES[name])
        for name, fd in systemd_fds
        if name in SYSTEMD_ROLES
    ]
    return sockets, [(name, fd) for name, fd in systemd_fds if name not in SYSTEMD_ROLES]
