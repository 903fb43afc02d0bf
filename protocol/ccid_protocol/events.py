# SPDX-License-Identifier: Apache-2.0
"""What `next_event` can answer in every protocol, besides the protocol's own messages."""

import enum
from dataclasses import dataclass
from typing import Final


class NeedData(enum.Enum):
    """The type of `NEED_DATA`, so that type checkers can tell it from an event."""

    NEED_DATA = enum.auto()


NEED_DATA: Final = NeedData.NEED_DATA
"""There is no complete event yet: call `receive_data` with more bytes, then ask again."""


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The peer closed the connection between two messages."""
