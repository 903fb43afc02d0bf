# SPDX-License-Identifier: Apache-2.0
"""What a class byte says of a command.

Source: ISO/IEC 7816-4:2013, 5.4.1, tables 2 and 3.
"""

import enum
from dataclasses import dataclass
from typing import Final

_PROPRIETARY: Final = 0x80
_FURTHER: Final = 0x40
_RESERVED: Final = 0x20
_CHAINING: Final = 0x10
_SECURE_MESSAGING: Final = 0x0C
_CHANNEL: Final = 0x03
_FURTHER_SECURE_MESSAGING: Final = 0x20
_FURTHER_CHANNEL: Final = 0x0F
_FIRST_FURTHER_CHANNEL: Final = 4

INVALID: Final = 0xFF
"""No class of a card's. PC/SC part 3 has it for commands to the reader of a hardware card."""

GSC: Final = 0x80
"""The class of the commands of the GSC-IS."""


class Form(enum.Enum):
    """How a class byte is made up."""

    INTERINDUSTRY = enum.auto()
    PROPRIETARY = enum.auto()
    RESERVED = enum.auto()


@dataclass(frozen=True, slots=True)
class CommandClass:
    """A class byte, taken apart.

    Attributes:
        form: how it is made up; what follows is known of interindustry classes alone.
        channel: the logical channel.
        secured: whether the command is under secure messaging.
        chained: whether others of its chain follow.
    """

    form: Form
    channel: int = 0
    secured: bool = False
    chained: bool = False

    @classmethod
    def of(cls, cla: int) -> "CommandClass":
        """Takes a class byte apart."""
        if cla & _PROPRIETARY:
            return cls(Form.PROPRIETARY)
        if cla & _FURTHER:
            return cls(
                Form.INTERINDUSTRY,
                channel=_FIRST_FURTHER_CHANNEL + (cla & _FURTHER_CHANNEL),
                secured=bool(cla & _FURTHER_SECURE_MESSAGING),
                chained=bool(cla & _CHAINING),
            )
        if cla & _RESERVED:
            return cls(Form.RESERVED)
        return cls(
            Form.INTERINDUSTRY,
            channel=cla & _CHANNEL,
            secured=bool(cla & _SECURE_MESSAGING),
            chained=bool(cla & _CHAINING),
        )
