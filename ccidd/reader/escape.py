# SPDX-License-Identifier: Apache-2.0
"""The vendor's commands of this reader (PC_to_RDR_Escape).

    02           the firmware's name and version, in ASCII
    CC 01        the name of the slot, in UTF-8

and those without which libccid does not use a Gemalto reader that ccidd can pass for:

    01 01 01     nothing: a serial reader is to send notifications
    B2 …         nothing: the texts of a PIN pad's display
    6A           what the PIN pad can do, where there is one

All others are not supported, which is what libccid expects of those that it tries.

Source: what libccid sends when it opens a reader of Gemalto's, and how it reads the answer to 6A.
"""

from typing import Final

from ccid_protocol.ccid import SlotError
from ccidd import __version__
from ccidd.reader.exchange import SlotFailure

FIRMWARE: Final = f"ccidd {__version__}".encode()

_GET_FIRMWARE: Final = b"\x02"
_SET_MODE: Final = b"\x01\x01\x01"
_GET_SLOT_NAME: Final = b"\xcc\x01"
_GET_PIN_PAD_FEATURES: Final = b"\x6a"
_SET_DISPLAY: Final = b"\xb2"

# Byte 3: an entry is complete when it has its maximum size, by a key, or by a time-out. Byte 8,
# bit 2: bNumberMessage and the number of bMsgIndex fields agree as CCID demands; libccid sends
# three of them to a reader that does not say so.
_PIN_PAD_FEATURES: Final = bytes([0, 0, 0, 7, 0, 0, 0, 0, 0x04]) + bytes(12)


def answer_escape(data: bytes, slot_name: str, *, has_pin_pad: bool) -> bytes:
    """Gives the answer to an Escape.

    Args:
        data: abData.
        slot_name: what to call the slot.
        has_pin_pad: whether PINs can be entered at the reader.

    Raises:
        SlotFailure: There is no such command.
    """
    if data == _GET_FIRMWARE:
        return FIRMWARE
    if data == _GET_SLOT_NAME:
        return slot_name.encode()
    if data == _SET_MODE or data.startswith(_SET_DISPLAY):
        return b""
    if data == _GET_PIN_PAD_FEATURES and has_pin_pad:
        return _PIN_PAD_FEATURES
    raise SlotFailure(SlotError.CMD_NOT_SUPPORTED)
