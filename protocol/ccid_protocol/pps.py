# SPDX-License-Identifier: Apache-2.0
"""PPS: the choice of protocol and transmission parameters, right after the ATR.

Source: ISO/IEC 7816-3:2006, clause 9, and 8.3 for the bytes of the ATR. Request and response have
the same form: PPSS (FFh), PPS0 (the protocol T, and which of the next three follow), PPS1 to PPS3,
and PCK, which makes the exclusive-or of all bytes 0.

A card answers a request that it can accept, wholly or without some of PPS1 to PPS3, and stays
silent otherwise: the interface device then resets it.
"""

from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import Final, Self

from ccid_protocol.atr import ATR
from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError

PPSS: Final = 0xFF
"""The first byte. No T=0 command and no block of T=1 begins with it."""

MAX_SIZE: Final = 6
"""Bytes: PPSS, PPS0, PPS1, PPS2, PPS3 and PCK."""

DEFAULT_TA1: Final = 0x11
"""Fd = 372 and Dd = 1, which are in use until a PPS exchange."""

CLOCK_RATE_CONVERSION: Final = {
    0x0: 372,
    0x1: 372,
    0x2: 558,
    0x3: 744,
    0x4: 1116,
    0x5: 1488,
    0x6: 1860,
    0x9: 512,
    0xA: 768,
    0xB: 1024,
    0xC: 1536,
    0xD: 2048,
}
"""Fi, clock cycles, by the upper half of TA1 (8.3, table 7)."""

BAUD_RATE_ADJUSTMENT: Final = {
    0x1: 1,
    0x2: 2,
    0x3: 4,
    0x4: 8,
    0x5: 16,
    0x6: 32,
    0x7: 64,
    0x8: 12,
    0x9: 20,
}
"""Di by the lower half of TA1 (8.3, table 8)."""


@dataclass(frozen=True, slots=True)
class PPS:
    """A PPS request or response.

    Attributes:
        protocol: T, 0 to 14.
        pps1: F and D, in the coding of TA1; None where absent, for the default values Fd and Dd.
        pps2: the use of the SPU contact, in the coding of the first TB for T=15; None where absent.
        pps3: reserved for future use; None where absent.
    """

    protocol: int
    pps1: int | None = None
    pps2: int | None = None
    pps3: int | None = None

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Reads a request or a response.

        Raises:
            RemoteProtocolError: PPSS, PCK or the length is wrong, or a reserved value is used.
        """
        if len(raw) < 3 or raw[0] != PPSS:
            raise RemoteProtocolError(f"{len(raw)} bytes that are no PPS")
        pps0 = raw[1]
        if pps0 & 0x80 or pps0 & 0x0F == 0x0F:
            raise RemoteProtocolError(f"PPS with PPS0 {pps0:02X}")
        present = [bool(pps0 >> bit & 1) for bit in (4, 5, 6)]
        if len(raw) != 3 + sum(present):
            raise RemoteProtocolError(f"PPS of {len(raw)} bytes with PPS0 {pps0:02X}")
        if reduce(xor, raw):
            raise RemoteProtocolError("PPS with a wrong PCK")
        parameters = iter(raw[2:-1])
        pps1, pps2, pps3 = (next(parameters) if is_there else None for is_there in present)
        return cls(pps0 & 0x0F, pps1, pps2, pps3)

    def encode(self) -> bytes:
        """Gives the bytes, with PCK.

        Raises:
            LocalProtocolError: There is no such protocol, or a parameter is not a byte.
        """
        parameters = (self.pps1, self.pps2, self.pps3)
        present = [value for value in parameters if value is not None]
        if not 0 <= self.protocol < 0x0F or any(not 0 <= value <= 0xFF for value in present):
            raise LocalProtocolError(f"{self!r} with a field that the format does not allow")
        bits = sum(0x10 << i for i, value in enumerate(parameters) if value is not None)
        body = bytes([PPSS, bits | self.protocol, *present])
        return body + bytes([reduce(xor, body)])


def answer(request: PPS, atr: ATR) -> PPS:
    """Gives a card's response to a request (9.3).

    PPS1 is echoed if F and D are within what the ATR offers: from Fd to Fi and from Dd to Di.
    Without it the default values stay in use. PPS2 and PPS3 are never echoed: an emulated card has
    no SPU contact, and the values of PPS3 are reserved.

    Raises:
        RemoteProtocolError: The card stays silent: its ATR does not offer the protocol, or is in
            the specific mode (TA2), in which nothing is negotiated.
    """
    if len(atr.groups) > 1 and atr.groups[1].ta is not None:
        raise RemoteProtocolError("PPS for a card in the specific mode")
    if request.protocol not in atr.protocols:
        raise RemoteProtocolError(f"PPS for T={request.protocol}, which the ATR does not offer")
    offered = atr.groups[0].ta if atr.groups else None
    accepted = request.pps1 is not None and _is_within(
        request.pps1, DEFAULT_TA1 if offered is None else offered
    )
    return PPS(request.protocol, request.pps1 if accepted else None)


def _is_within(proposed: int, offered: int) -> bool:
    """Tells whether F and D, coded as in TA1, lie between the default values and the offered."""
    f, fi = (CLOCK_RATE_CONVERSION.get(factors >> 4) for factors in (proposed, offered))
    d, di = (BAUD_RATE_ADJUSTMENT.get(factors & 0x0F) for factors in (proposed, offered))
    if f is None or fi is None or d is None or di is None:
        return False
    # Fd and Dd are the least that there is.
    return f <= fi and d <= di
