# SPDX-License-Identifier: Apache-2.0
"""What bError says, and the bad fields that it points at.

Source: USB CCID Rev 1.1, 6.2.6 (slot error register). When a command fails, bError is either a
named code or, from 0 to 127, the offset of the byte in the PC_to_RDR message that the reader does
not take. Offset 0 is bMessageType: a bad one means that the command is not supported.
"""

import enum
import struct
from typing import Final, TypeVar

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError

MAX_OFFSET: Final = 0x7F
"""The greatest offset that bError can hold; a bad byte further behind is reported with this."""

_Enum = TypeVar("_Enum", bound=enum.IntEnum)


class SlotError(enum.IntEnum):
    """The named values of bError (table 6.2-2). C0h to 81h are a vendor's own."""

    CMD_ABORTED = 0xFF
    ICC_MUTE = 0xFE
    XFR_PARITY_ERROR = 0xFD
    XFR_OVERRUN = 0xFC
    HW_ERROR = 0xFB
    BAD_ATR_TS = 0xF8
    BAD_ATR_TCK = 0xF7
    ICC_PROTOCOL_NOT_SUPPORTED = 0xF6
    ICC_CLASS_NOT_SUPPORTED = 0xF5
    PROCEDURE_BYTE_CONFLICT = 0xF4
    DEACTIVATED_PROTOCOL = 0xF3
    BUSY_WITH_AUTO_SEQUENCE = 0xF2
    PIN_TIMEOUT = 0xF0
    PIN_CANCELLED = 0xEF
    CMD_SLOT_BUSY = 0xE0
    CMD_NOT_SUPPORTED = 0x00


class Offset(enum.IntEnum):
    """Where the fields of a PC_to_RDR message stand, as bError names them."""

    MESSAGE_TYPE = 0
    LENGTH = 1
    SLOT = 5
    PARAMETER = 7
    """bPowerSelect, bProtocolNum, bBWI, bClockCommand, bmChanges or bFunction."""
    LEVEL_PARAMETER = 8
    DATA = 10


class BadFieldError(RemoteProtocolError):
    """A field of a message is bad.

    Args:
        offset: its offset from the message's first byte; in a message to the reader, the bError
            that answers it.
    """

    def __init__(self, offset: int) -> None:
        self.offset: Final = min(offset, MAX_OFFSET)
        super().__init__(f"bad field at offset {offset} of a CCID message")


def enumerated(kind: type[_Enum], value: int, offset: int) -> _Enum:
    """Gives the member of `kind` that has a value.

    Raises:
        BadFieldError: None has it.
    """
    try:
        return kind(value)
    except ValueError as error:
        raise BadFieldError(offset) from error


def pack(layout: struct.Struct, *fields: int | bytes) -> bytes:
    """Packs fields.

    Raises:
        LocalProtocolError: A field does not fit its bytes.
    """
    try:
        return layout.pack(*fields)
    except struct.error as error:
        raise LocalProtocolError(f"a field that does not fit its bytes: {error}") from error
