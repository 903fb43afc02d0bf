# SPDX-License-Identifier: Apache-2.0
"""Whether there is a place for the agents that a configuration asks."""

from ccidd.service.configuration import Configuration
from ccidd.service.control.roles import Role
from ccidd.service.requests import AGENT


def check_agents(configuration: Configuration) -> None:
    """Sees to it that there is a control socket where agents are asked.

    Args:
        configuration: all that ccidd is told, with all its control sockets.

    Raises:
        UserError: There is none.
    """
    if any(Role.AGENT in socket.roles for socket in configuration.control):
        return
    for reader in configuration.readers:
        asking = [("pin-entry", reader.options.get("pin-entry"), reader.where.within("reader"))]
        asking += [("confirm-with", card.one("confirm-with"), card.where) for card in reader.cards]
        for option, value, where in asking:
            if value == AGENT:
                needed = reader.where.name("control")
                raise where.error(f"agent needs a control socket for agents ({needed})", option)
