# SPDX-License-Identifier: Apache-2.0
"""What a guest has set up on a card, as far as it can be set up again after a reset.

Source: ISO/IEC 7816-4:2013, 11.2.2 (SELECT), 11.3 and 11.4 (reading data units and records, with
short identifiers of files that are selected by it), 11.5 (data objects), 11.6.6 (VERIFY).

Which application and which file is selected can be made good by the same commands; a PIN that was
verified, an authentication, a key that was chosen cannot. Of a command that is not known here it is
assumed that it sets something up.
"""

from collections.abc import Sequence
from typing import Final

from ccid_protocol.apdu import CommandAPDU, Instruction, ResponseAPDU, StatusWord
from ccid_protocol.errors import RemoteProtocolError

_MASTER_FILE: Final = b"\x3f\0"
_BY_IDENTIFIER, _BY_NAME, _BY_PATH = 0x00, 0x04, 0x08
_OCCURRENCE: Final = 0x03

_READ_BINARY, _READ_BINARY_OF_FILE = 0xB0, 0xB1
_READ_RECORDS: Final = frozenset({0xB2, 0xB3})
_SHORT_IDENTIFIER: Final = 0x80
_RECORD_MODE, _BY_NUMBER = 0x07, 0x04

_UNDERSTOOD: Final = frozenset(
    {
        Instruction.SELECT,
        Instruction.GET_RESPONSE,
        Instruction.GET_DATA,
        Instruction.GET_DATA_CA,
        _READ_BINARY,
        _READ_BINARY_OF_FILE,
    }
)

_GLOBAL_PLATFORM: Final = 0x80
_BYTES_AVAILABLE: Final = 0x61

_MAX_COMMANDS: Final = 32
"""Commands that are remembered; no host needs as many to find a file."""


class Setup:
    """What the guest's commands have made of a card since its last reset."""

    def __init__(self) -> None:
        self._commands: list[tuple[bytes, bytes]] = []
        self._is_beyond_repeat = False
        self._has_rest = False

    def forget(self) -> None:
        """The card was reset, or is about to be."""
        self._commands.clear()
        self._is_beyond_repeat = self._has_rest = False

    @property
    def commands(self) -> Sequence[tuple[bytes, bytes]] | None:
        """The commands that set it up again, with the responses they had; None if none can."""
        if self._is_beyond_repeat or self._has_rest:
            return None
        return tuple(self._commands)

    def note(self, command: bytes, response: bytes) -> None:
        """Takes note of a command and its response."""
        sw = ResponseAPDU.decode(response).sw
        # What waits for GET RESPONSE goes with the next command.
        self._has_rest = sw >> 8 == _BYTES_AVAILABLE
        apdu = _decode(command)
        if apdu is None or not _is_understood(apdu):
            self._is_beyond_repeat = True
        elif _selects(apdu):
            if _is_absolute(apdu) and (sw == StatusWord.SUCCESS or self._has_rest):
                self._commands.clear()
            self._commands.append((command, response))
            if len(self._commands) > _MAX_COMMANDS:
                self._is_beyond_repeat = True


def begins_anew(command: bytes) -> bool:
    """Whether a command selects an application, whatever was selected before."""
    apdu = _decode(command)
    return apdu is not None and not apdu.cla and _selects_by_name(apdu)


def _decode(command: bytes) -> CommandAPDU | None:
    try:
        return CommandAPDU.decode(command)
    except RemoteProtocolError:
        return None


def _is_understood(apdu: CommandAPDU) -> bool:
    """Whether a command does nothing but select, read, or ask for a PIN's retry counter."""
    if apdu.cla == _GLOBAL_PLATFORM:
        return apdu.ins == Instruction.GET_DATA_CA
    if apdu.cla:
        return False
    if apdu.ins in _READ_RECORDS:
        # Others go by what was read before.
        return apdu.p2 & _RECORD_MODE == _BY_NUMBER
    if apdu.ins == Instruction.VERIFY:
        return not apdu.data and not apdu.p1
    return apdu.ins in _UNDERSTOOD


def _selects(apdu: CommandAPDU) -> bool:
    if apdu.ins == _READ_BINARY:
        return bool(apdu.p1 & _SHORT_IDENTIFIER)
    if apdu.ins == _READ_BINARY_OF_FILE:
        return bool(apdu.p1 or apdu.p2)
    if apdu.ins in _READ_RECORDS:
        return bool(apdu.p2 & ~_RECORD_MODE)
    return apdu.ins == Instruction.SELECT


def _selects_by_name(apdu: CommandAPDU) -> bool:
    is_first = not apdu.p2 & _OCCURRENCE
    return apdu.ins == Instruction.SELECT and apdu.p1 == _BY_NAME and is_first


def _is_absolute(apdu: CommandAPDU) -> bool:
    if apdu.ins != Instruction.SELECT:
        return False
    is_master_file = apdu.p1 == _BY_IDENTIFIER and apdu.data == _MASTER_FILE
    return _selects_by_name(apdu) or apdu.p1 == _BY_PATH or is_master_file
