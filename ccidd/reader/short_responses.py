# SPDX-License-Identifier: Apache-2.0
"""A card behind a reader that carries only short responses.

Source: ISO/IEC 7816-3:2006, 12.2 (how T=0 carries APDUs): what does not fit into one response
stays back, and 61XX tells the host to fetch it with GET RESPONSE.
"""

from collections.abc import Container
from typing import Final

from ccid_protocol.apdu import CommandAPDU, Instruction, ResponseAPDU, bytes_available
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.card import Card

_SW_SIZE: Final = 2


class ShortResponses:
    """Passes commands to a card, and its responses back in pieces that the reader can carry.

    Args:
        card: the card.
        longest: bytes of the longest response that can be carried, status word included.
        forbidden: lengths that cannot be carried although they are shorter; no two of them may
            follow each other.
    """

    def __init__(self, card: Card, *, longest: int, forbidden: Container[int] = ()) -> None:
        self._card = card
        self._longest = longest
        self._forbidden = forbidden
        self._rest = ResponseAPDU()

    async def transmit(self, command: bytes) -> bytes:
        """Has the card carry out a command, or gives the next piece of its last response.

        Args:
            command: the command APDU, perhaps broken.

        Returns:
            The response APDU, of a length that can be carried.
        """
        rest, self._rest = self._rest, ResponseAPDU()
        if rest.data and (ne := _asks_for_response(command)):
            return self._next_piece(rest, ne)
        response = ResponseAPDU.decode(await self._card.transmit(command))
        return self._next_piece(response, len(response.data))

    def _next_piece(self, response: ResponseAPDU, ne: int) -> bytes:
        size = min(ne, self._longest - _SW_SIZE, len(response.data))
        if size + _SW_SIZE in self._forbidden:
            size -= 1
        rest = response.data[size:]
        if not rest:
            return response.encode()
        self._rest = ResponseAPDU(rest, response.sw)
        return ResponseAPDU(response.data[:size], bytes_available(len(rest))).encode()


def _asks_for_response(command: bytes) -> int:
    """Gives Ne of a GET RESPONSE, and 0 for all other commands."""
    try:
        apdu = CommandAPDU.decode(command)
    except RemoteProtocolError:
        return 0
    return apdu.ne if apdu.ins == Instruction.GET_RESPONSE else 0
