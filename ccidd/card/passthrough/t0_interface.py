# SPDX-License-Identifier: Apache-2.0
"""Command APDUs for a hardware card that speaks T=0, where PC/SC takes TPDUs.

Source: ISO/IEC 7816-3:2006, 12.2 (how T=0 carries APDUs). What a host says in the short form, it is
told as the card says it: 61XX and 6CXX are its own to act upon. Extended length fields are nothing
that T=0 has, so here the parts of their responses are put together, and commands that are too long
go in envelopes.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ccid_protocol.apdu import (
    MAX_SHORT_NC,
    MAX_SHORT_NE,
    CommandAPDU,
    Instruction,
    ResponseAPDU,
    StatusWord,
)
from ccid_protocol.errors import RemoteProtocolError

_ENVELOPE: Final = 0xC2
_PROPRIETARY: Final = 0x80
_CHANNEL: Final = 0x03

_BYTES_AVAILABLE: Final = 0x61
_WRONG_LE: Final = 0x6C
_UNKNOWN: Final = frozenset({0x6D00, 0x6E00})
"""Status words of a card that knows no envelopes."""


def transmit_over_t0(command: bytes, send: Callable[[bytes], bytes]) -> bytes:
    """Has a card carry out a command.

    Args:
        command: the command APDU, perhaps broken.
        send: sends a TPDU, and gives the data and the status word of its answer.

    Returns:
        The response APDU.

    Raises:
        RemoteProtocolError: The card gives no status word.
    """
    try:
        apdu = CommandAPDU.decode(command)
    except RemoteProtocolError:
        return ResponseAPDU(sw=StatusWord.WRONG_LENGTH).encode()
    if not apdu.extended:
        return send(_tpdu(apdu))
    return _Extended(apdu, send).response().encode()


def _tpdu(apdu: CommandAPDU) -> bytes:
    """Gives the TPDU of a command with short length fields: P3 is Lc, or else Le, or else 0."""
    if apdu.data:
        return replace(apdu, ne=0).encode()
    return apdu.encode() if apdu.ne else apdu.encode() + b"\0"


class _Extended:
    """A command with extended length fields, which the card is not to see.

    Args:
        apdu: the command.
        send: sends a TPDU.
    """

    def __init__(self, apdu: CommandAPDU, send: Callable[[bytes], bytes]) -> None:
        self._apdu = apdu
        self._send = send
        self._class = apdu.cla if apdu.cla & _PROPRIETARY else apdu.cla & _CHANNEL

    def response(self) -> ResponseAPDU:
        """Has the card carry it out."""
        apdu = self._apdu
        if len(apdu.data) > MAX_SHORT_NC:
            return self._gathered(self._in_envelopes())
        ne = 0 if apdu.data else min(apdu.ne, MAX_SHORT_NE)
        return self._gathered(self._exchange(replace(apdu, ne=ne, extended=False)))

    def _exchange(self, apdu: CommandAPDU) -> ResponseAPDU:
        response = ResponseAPDU.decode(self._send(_tpdu(apdu)))
        if response.sw >> 8 == _WRONG_LE and not apdu.data:
            # It has fewer bytes than were asked for, and says how many.
            ne = response.sw & 0xFF or MAX_SHORT_NE
            response = ResponseAPDU.decode(self._send(_tpdu(replace(apdu, ne=ne))))
        return response

    def _gathered(self, response: ResponseAPDU) -> ResponseAPDU:
        """Fetches as much of a response as the host takes."""
        data = response.data
        while response.sw >> 8 == _BYTES_AVAILABLE and (missing := self._apdu.ne - len(data)) > 0:
            available = response.sw & 0xFF or MAX_SHORT_NE
            get = CommandAPDU(
                self._class, Instruction.GET_RESPONSE, 0, 0, ne=min(missing, available)
            )
            response = self._exchange(get)
            if not response.data:
                break
            data += response.data
        return ResponseAPDU(data, response.sw)

    def _in_envelopes(self) -> ResponseAPDU:
        """Sends the command, as it is, in the data of ENVELOPE commands."""
        raw = self._apdu.encode()
        response = ResponseAPDU()
        for start in range(0, len(raw), MAX_SHORT_NC):
            piece = raw[start : start + MAX_SHORT_NC]
            response = self._exchange(CommandAPDU(self._class, _ENVELOPE, 0, 0, piece))
            if response.sw in _UNKNOWN and not start:
                return ResponseAPDU(sw=StatusWord.WRONG_LENGTH)
            if response.sw != StatusWord.SUCCESS:
                break
        if len(raw) % MAX_SHORT_NC == 0 and response.sw == StatusWord.SUCCESS:
            # An envelope that is not full, or is empty, ends the row.
            response = self._exchange(CommandAPDU(self._class, _ENVELOPE, 0, 0))
        return response
