# SPDX-License-Identifier: Apache-2.0
"""The commands and events of the control socket, all in one list."""

from typing import Final

from ccidd.service.control.commands import basics, cards, events, pins, readers, requests, seeing
from ccidd.service.control.registry import Registry

REGISTRY: Final = Registry(
    (
        *basics.COMMANDS,
        *readers.COMMANDS,
        *cards.COMMANDS,
        *pins.COMMANDS,
        *requests.COMMANDS,
        *seeing.COMMANDS,
    ),
    events.EVENTS,
)
"""All commands and events."""
