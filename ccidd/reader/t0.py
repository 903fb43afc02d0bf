# SPDX-License-Identifier: Apache-2.0
"""The card's end of T=0: TPDUs, where the card behind it knows APDUs.

Source: ISO/IEC 7816-3:2006, 10.3 (commands) and 12.2 (how T=0 carries APDUs); USB CCID Rev 1.1,
3.2.1 (the reader sees to procedure bytes). A TPDU goes one way: P3 is the number of bytes that
follow it, or of those that the host wants. So the card says 61XX where it has an answer to a
command with data, and 6CXX where it has less than the host wants.
"""

from typing import Final

from ccid_protocol.apdu import CommandAPDU, Instruction, ResponseAPDU, bytes_available, wrong_le
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.card import Card

MAX_RESPONSE_DATA: Final = 256
"""Bytes that P3 can ask for."""

_HEADER_SIZE: Final = 4


class T0CardEnd:
    """A card behind T=0.

    Args:
        card: the card.
    """

    def __init__(self, card: Card) -> None:
        self._card = card
        # What waits for GET RESPONSE, or for the same command with another P3.
        self._rest = ResponseAPDU()
        self._refused = b""

    async def transmit(self, tpdu: bytes) -> bytes:
        """Has the card carry a TPDU out.

        Args:
            tpdu: CLA, INS, P1, P2 and P3, which may be left out where it is 0, with P3 bytes of
                data or none. An Le behind the data is left out, as it is on T=0.

        Returns:
            Data and status word.

        Raises:
            RemoteProtocolError: There is no header, or other than P3 bytes of data.
        """
        command = _decode(tpdu)
        header = tpdu[:_HEADER_SIZE]
        rest, self._rest = self._rest, ResponseAPDU()
        refused, self._refused = self._refused, b""
        wants_rest = command.ins == Instruction.GET_RESPONSE or header == refused
        if rest.data and command.ne and wants_rest:
            return self._answer(rest, command.ne, header)
        response = ResponseAPDU.decode(await self._card.transmit(command.encode()))
        return self._answer(response, command.ne, header)

    def _answer(self, response: ResponseAPDU, ne: int, header: bytes) -> bytes:
        """Gives just as many bytes as the host wants, or none and the reason."""
        available = len(response.data)
        if not available or available == ne:
            return response.encode()
        self._rest = response
        if not ne:
            return ResponseAPDU(sw=bytes_available(available)).encode()
        if available < ne:
            self._refused = header
            return ResponseAPDU(sw=wrong_le(available)).encode()
        self._rest = ResponseAPDU(response.data[ne:], response.sw)
        return ResponseAPDU(response.data[:ne], bytes_available(available - ne)).encode()


def _decode(tpdu: bytes) -> CommandAPDU:
    if len(tpdu) < _HEADER_SIZE:
        raise RemoteProtocolError(f"TPDU of {len(tpdu)} bytes")
    cla, ins, p1, p2, *body = tpdu
    if not body:
        return CommandAPDU(cla, ins, p1, p2)
    p3, data = body[0], bytes(body[1:])
    if not data:
        return CommandAPDU(cla, ins, p1, p2, ne=p3 or MAX_RESPONSE_DATA)
    if not p3 or len(data) not in {p3, p3 + 1}:
        raise RemoteProtocolError(f"TPDU with P3 {p3} and {len(data)} bytes of data")
    return CommandAPDU(cla, ins, p1, p2, data[:p3])
