# SPDX-License-Identifier: Apache-2.0
"""What those who connect to a control socket may do: a property of the socket."""

import enum
from collections.abc import Sequence
from typing import Final

from ccidd.service.configtable import suggestion
from ccidd.service.where import Where


class Role(enum.Flag):
    """What a command or an event is for; a socket may have several."""

    OBSERVE = enum.auto()
    """Seeing everything that is no secret, and changing nothing."""

    OPERATE = enum.auto()
    """Cards, readers, PINs, the log and the end of the service."""

    AGENT = enum.auto()
    """Answering what guests' use of cards asks a person: PINs and consent."""


NAMES: Final = {
    "observe": Role.OBSERVE,
    "operate": Role.OPERATE | Role.OBSERVE,
    "agent": Role.AGENT,
}
"""The roles by their names in options: who operates observes as well."""

DEFAULT: Final = NAMES["operate"] | NAMES["agent"]
"""What a socket is for, if nothing is said."""


def parse_roles(text: str, where: Where) -> Role:
    """Reads names of roles that are joined by "+".

    Args:
        text: the names.
        where: what gave them, for people.

    Raises:
        UserError: There is no such role.
    """
    roles = Role(0)
    for name in text.split("+"):
        if name not in NAMES:
            what = suggestion(name, NAMES) or f"; there are {', '.join(NAMES)}"
            raise where.error(f"there is no role {name!r}{what}", "role")
        roles |= NAMES[name]
    return roles


def role_names(roles: Role) -> Sequence[str]:
    """Gives the names of the roles of a socket, or of those that a command is for."""
    return [role.name.lower() for role in roles if role.name is not None]
