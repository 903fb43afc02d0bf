# SPDX-License-Identifier: Apache-2.0
"""Takes PINs and keys out of what a host and a card say to each other.

What a command is for is told by its INS, in any application and with any CLA: rather too much is
masked than too little. Masked are the data of commands that bring a PIN or a key, and the data of
responses that may be a decrypted key or a shared secret.

A message of several pieces (a chain of CCID, or of T=1 blocks) is masked as its first piece says.
Lengths stay.

Source: ISO/IEC 7816-4:2013, 11.5 and 11.7; SP 800-73-4 part 2, 3; OpenPGP card 3.4; GSC-IS 2.1;
ISO/IEC 7816-3:2006, 11.3 (blocks of T=1).
"""

from dataclasses import dataclass, replace
from typing import Final

from ccid_protocol.atr import ATR
from ccid_protocol.ccid import (
    ChainParameter,
    Command,
    DataBlock,
    IccPowerOn,
    LevelParameter,
    Parameters,
    Response,
    T1Parameters,
    XfrBlock,
)
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.guard.judge import PIN_INSTRUCTIONS

MASK: Final = b"*"

_HEADER: Final = 5
"""Bytes of a command APDU that are shown: CLA, INS, P1, P2 and the first of Lc."""

_STATUS_WORD: Final = 2

# A block of T=1: NAD, PCB, LEN; INF; one byte of EDC.
_PROLOGUE: Final = 3
_EPILOGUE: Final = 1
_NO_I_BLOCK: Final = 0x80
_MORE_DATA: Final = 0x20

_BRING_SECRETS: Final = frozenset(
    bytes([ins])
    for ins in (
        *PIN_INSTRUCTIONS,
        0xC2,  # ENVELOPE, which may hold any of them
        0xC3,
        0xD8,  # PUT KEY
        0xDB,  # PUT DATA with a key in it (OpenPGP's extended header list)
        0xFE,  # IMPORT ASYMMETRIC KEY
        0xFF,  # SET MANAGEMENT KEY
    )
)
_GIVE_SECRETS: Final = frozenset(
    bytes([ins])
    for ins in (
        0x2A,  # PERFORM SECURITY OPERATION: DECIPHER
        0x42,  # SIGN/DECRYPT of a CAC
        0x86,  # GENERAL AUTHENTICATE: key agreement, raw RSA, witnesses of the administration key
        0x87,
        0xC2,
        0xC3,
    )
)
_GET_RESPONSE: Final = b"\xc0"


@dataclass(slots=True)
class _Piece:
    """What a message carries of a command or a response.

    Attributes:
        start: where that begins in the data of the message.
        end: where it ends.
        is_first: whether it begins there.
        is_last: whether it ends there.
    """

    start: int
    end: int
    is_first: bool = True
    is_last: bool = True


class Censor:
    """What the host and the card of a slot have said so far, as far as it tells what is secret.

    Args:
        tpdu: whether the reader exchanges TPDUs.
    """

    def __init__(self, *, tpdu: bool) -> None:
        self._tpdu = tpdu
        self._blocks = False
        self._powers_on = False
        self._command_goes_on = False
        self._masks_command = False
        self._masks_response = False

    def command(self, command: Command) -> Command:
        """Gives what may be shown of a message of the host."""
        self._powers_on = isinstance(command, IccPowerOn)
        if not isinstance(command, XfrBlock):
            # A PIN of a Secure is entered at the reader; the rest are the reader's own.
            return command
        piece = self._piece_of_command(command)
        if piece is None:
            return command
        if piece.is_first:
            self._learn(command.data[piece.start + 1 : piece.start + 2])
        if not self._masks_command:
            return command
        start = piece.start + (_HEADER if piece.is_first else 0)
        return replace(command, data=_masked(command.data, start, piece.end))

    def response(self, response: Response) -> Response:
        """Gives what may be shown of a message of the reader."""
        if isinstance(response, Parameters):
            self._blocks = self._tpdu and isinstance(response.parameters, T1Parameters)
        if not isinstance(response, DataBlock):
            return response
        if self._powers_on:
            self._learn_protocol(response.data)
            return response
        piece = self._piece_of_response(response)
        if piece is None or not self._masks_response:
            return response
        end = piece.end - (_STATUS_WORD if piece.is_last else 0)
        return replace(response, data=_masked(response.data, piece.start, end))

    def _piece_of_command(self, command: XfrBlock) -> _Piece | None:
        data = command.data
        if self._blocks:
            if len(data) < _PROLOGUE or data[1] & _NO_I_BLOCK:
                return None
            is_first = not self._command_goes_on
            self._command_goes_on = bool(data[1] & _MORE_DATA)
            return _Piece(_PROLOGUE, len(data) - _EPILOGUE, is_first)
        if command.level == LevelParameter.NEXT_RESPONSE_PIECE and not self._tpdu:
            return None
        continues = command.level in {LevelParameter.CONTINUES, LevelParameter.ENDS}
        return _Piece(0, len(data), is_first=self._tpdu or not continues)

    def _piece_of_response(self, response: DataBlock) -> _Piece | None:
        data = response.data
        if self._blocks:
            if len(data) < _PROLOGUE or data[1] & _NO_I_BLOCK:
                return None
            is_last = not data[1] & _MORE_DATA
            return _Piece(_PROLOGUE, len(data) - _EPILOGUE, is_last=is_last)
        is_last = response.chain in {ChainParameter.WHOLE, ChainParameter.ENDS}
        return _Piece(0, len(data), is_last=is_last)

    def _learn(self, instruction: bytes) -> None:
        self._masks_command = instruction in _BRING_SECRETS
        # GET RESPONSE gives more of what the command before gives.
        if instruction != _GET_RESPONSE:
            self._masks_response = instruction in _GIVE_SECRETS

    def _learn_protocol(self, atr: bytes) -> None:
        self._command_goes_on = self._masks_command = self._masks_response = False
        try:
            self._blocks = self._tpdu and ATR.decode(atr).first_protocol == 1
        except RemoteProtocolError:
            self._blocks = False


def _masked(data: bytes, start: int, end: int) -> bytes:
    return data[:start] + MASK * (end - start) + data[max(start, end) :]
