# SPDX-License-Identifier: Apache-2.0
"""The vendor's commands of this reader (PC_to_RDR_Escape).

    02           the firmware's name and version, in ASCII
    01 01 01     nothing: libccid asks a serial reader so to send notifications
    CC 01        the name of the slot, in UTF-8

All others are not supported, which is what libccid expects of those that it tries.
"""

from typing import Final

from ccid_protocol.ccid import SlotError
from ccidd import __version__
from ccidd.reader.exchange import SlotFailure

FIRMWARE: Final = f"ccidd {__version__}".encode()

_GET_FIRMWARE: Final = b"\x02"
_SET_MODE: Final = b"\x01\x01\x01"
_GET_SLOT_NAME: Final = b"\xcc\x01"


def answer_escape(data: bytes, slot_name: str) -> bytes:
    """Gives the answer to an Escape.

    Raises:
        SlotFailure: There is no such command.
    """
    if data == _GET_FIRMWARE:
        return FIRMWARE
    if data == _SET_MODE:
        return b""
    if data == _GET_SLOT_NAME:
        return slot_name.encode()
    raise SlotFailure(SlotError.CMD_NOT_SUPPORTED)
