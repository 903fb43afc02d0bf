# SPDX-License-Identifier: Apache-2.0
"""PC_to_RDR_Secure: a PIN is entered at the reader, and sent to the card in a command.

Source: USB CCID Rev 1.1, 6.1.11. The PIN goes from its source into the command APDU and to the
card; the host sees the card's status word alone.
"""

from typing import Final

from ccid_protocol.apdu import ResponseAPDU
from ccid_protocol.ccid import (
    PinModification,
    PinVerification,
    SlotError,
    decode_pin_request,
)
from ccid_protocol.errors import LocalProtocolError
from ccidd.reader.exchange import Exchange, SlotFailure
from ccidd.reader.pinentry.source import (
    EntryRequest,
    ModificationRequest,
    NoPin,
    Pins,
    PinSource,
    VerificationRequest,
)

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds for an entry whose message leaves them to the reader (bTimeOut 0)."""

# PC/SC part 10, 2.5.2: what hosts expect as the status word of a modification in which the new PIN
# and its confirmation differ.
_PINS_DIFFER: Final = ResponseAPDU(sw=0x6402).encode()

_FAILURES: Final = {
    NoPin.CANCELLED: SlotError.PIN_CANCELLED,
    NoPin.TIMED_OUT: SlotError.PIN_TIMEOUT,
}


class PinPad:
    """The reader's means of PIN entry, for one slot.

    Args:
        source: where PINs come from.
        reader: the reader's name, for people.
        slot: the slot's number.
        card: the card's name, for people.
    """

    def __init__(self, source: PinSource, *, reader: str, slot: int, card: str) -> None:
        self._source = source
        self._reader = reader
        self._slot = slot
        self._card = card

    async def carry_out(self, data: bytes, exchange: Exchange) -> bytes:
        """Carries out a Secure.

        Args:
            data: abData of the message, whole.
            exchange: the way to the card.

        Returns:
            abData of the answer.

        Raises:
            BadFieldError: A field is bad.
            SlotFailure: No PIN was entered, or the operation is none that can begin here.
        """
        request = decode_pin_request(data)
        if not isinstance(request, PinVerification | PinModification):
            # Transfer of a stored PIN, and the going on of what is never left half-done.
            raise SlotFailure(SlotError.CMD_NOT_SUPPORTED)
        entry = await self._source.ask(self._question(request))
        if entry is NoPin.MISMATCH:
            return _PINS_DIFFER
        if not isinstance(entry, Pins):
            raise SlotFailure(_FAILURES[entry])
        command = _command(request, entry)
        return await exchange.transfer_secure(command, request.teo_prologue)

    def _question(self, request: PinVerification | PinModification) -> EntryRequest:
        if isinstance(request, PinVerification):
            return VerificationRequest(
                reader=self._reader,
                slot=self._slot,
                card=self._card,
                min_digits=request.min_digits,
                max_digits=request.longest,
                timeout=request.timeout or DEFAULT_TIMEOUT,
            )
        if not self._source.can_modify:
            raise SlotFailure(SlotError.CMD_NOT_SUPPORTED)
        return ModificationRequest(
            reader=self._reader,
            slot=self._slot,
            card=self._card,
            min_digits=request.min_digits,
            max_digits=request.longest,
            timeout=request.timeout or DEFAULT_TIMEOUT,
            asks_current=request.asks_current,
            confirms=request.confirms,
        )


def _command(request: PinVerification | PinModification, pins: Pins) -> bytes:
    try:
        if isinstance(request, PinVerification):
            return request.command(pins.current or b"")
        return request.command(pins.new or b"", pins.current)
    except LocalProtocolError as error:
        # The source gave what was not asked for, or the command would be too long.
        raise SlotFailure(SlotError.PIN_CANCELLED) from error
