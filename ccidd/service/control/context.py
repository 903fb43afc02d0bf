# SPDX-License-Identifier: Apache-2.0
"""What the commands of a control socket work with."""

from dataclasses import dataclass

from ccidd.service.control.registry import Registry
from ccidd.service.control.roles import DEFAULT, Role
from ccidd.service.service import Service
from ccidd.service.state import State


@dataclass(frozen=True, slots=True)
class Context:
    """What commands work with.

    Attributes:
        service: the readers in service.
        state: what cards remember.
        registry: all commands and events.
        started: when the service began, on trio's clock.
        roles: what the socket is for.
    """

    service: Service
    state: State
    registry: Registry
    started: float
    roles: Role = DEFAULT
