# SPDX-License-Identifier: Apache-2.0
"""The answer to reset (ATR).

Source: ISO/IEC 7816-3:2006, 8.2. After TS and T0 come groups of interface bytes, each announced by
the upper half of the byte before it (T0, then TD of the group before), the historical bytes (their
number is the lower half of T0), and the check byte TCK unless T=0 is the only protocol.
"""

from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import Final, Self

from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError

MAX_SIZE: Final = 33
"""Bytes of the longest ATR: TS and 32 more."""

MAX_HISTORICAL_BYTES: Final = 15
"""As many as the lower half of T0 can count."""

DIRECT_CONVENTION: Final = 0x3B
INVERSE_CONVENTION: Final = 0x3F


@dataclass(frozen=True, slots=True)
class InterfaceBytes:
    """The i-th group of interface bytes.

    Attributes:
        ta: TAi, or None where it is absent.
        tb: TBi.
        tc: TCi.
        protocol: T, the lower half of TDi; None where TDi is absent.
    """

    ta: int | None = None
    tb: int | None = None
    tc: int | None = None
    protocol: int | None = None


@dataclass(frozen=True, slots=True)
class ATR:
    """An answer to reset.

    Attributes:
        historical: the historical bytes, 15 at most.
        groups: the groups of interface bytes; each but the last has a protocol.
        ts: the convention, 3Bh (direct) or 3Fh (inverse).
    """

    historical: bytes
    groups: tuple[InterfaceBytes, ...] = ()
    ts: int = DIRECT_CONVENTION

    @property
    def protocols(self) -> tuple[int, ...]:
        """The transmission protocols T that the card offers, first offered first, each once."""
        offered = dict.fromkeys(g.protocol for g in self.groups if g.protocol is not None)
        return tuple(t for t in offered if t != 15) or (0,)

    @property
    def first_protocol(self) -> int:
        """T of the protocol that is in use without PPS: the one that TA2 fixes, or else the first.

        Source: ISO/IEC 7816-3:2006, 8.3 (TA2) and 6.3.1 (selection of protocol).
        """
        specific_mode = self.groups[1].ta if len(self.groups) > 1 else None
        return self.protocols[0] if specific_mode is None else specific_mode & 0x0F

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Reads an ATR.

        Raises:
            RemoteProtocolError: It is too short or too long for what it announces, TS is unknown,
                or TCK is wrong.
        """
        if not 2 <= len(raw) <= MAX_SIZE:
            raise RemoteProtocolError(f"ATR of {len(raw)} bytes")
        if raw[0] not in {DIRECT_CONVENTION, INVERSE_CONVENTION}:
            raise RemoteProtocolError(f"ATR with TS {raw[0]:02X}")
        groups, position = _decode_groups(raw)
        count = raw[1] & 0x0F
        atr = cls(raw[position : position + count], groups, raw[0])
        expected = position + count + atr.has_tck
        if len(raw) != expected:
            raise RemoteProtocolError(f"ATR of {len(raw)} bytes that announces {expected}")
        if atr.has_tck and reduce(xor, raw[1:]):
            raise RemoteProtocolError("ATR with a wrong TCK")
        return atr

    @property
    def has_tck(self) -> bool:
        """Whether a check byte ends the ATR: always, unless T=0 is all that is offered."""
        return any(g.protocol not in {None, 0} for g in self.groups)

    def encode(self) -> bytes:
        """Gives the ATR's bytes, with TCK where it belongs.

        Raises:
            LocalProtocolError: It would be longer than an ATR can be.
        """
        count = len(self.historical)
        if count > MAX_HISTORICAL_BYTES:
            raise LocalProtocolError(f"ATR with {count} historical bytes")
        body = bytearray()
        low_half = count
        for group in self.groups:
            present = [b for b in (group.ta, group.tb, group.tc) if b is not None]
            body += bytes([_presence(group) | low_half, *present])
            # The lower half of TDi; where TDi is absent this group is the last.
            low_half = group.protocol if group.protocol is not None else 0
        if not self.groups or self.groups[-1].protocol is not None:
            body.append(low_half)
        body += self.historical
        if self.has_tck:
            body.append(reduce(xor, body))
        if 1 + len(body) > MAX_SIZE:
            raise LocalProtocolError(f"ATR of {1 + len(body)} bytes")
        return bytes([self.ts]) + bytes(body)

    def for_t0(self) -> "ATR":
        """Gives the ATR that the card would have if T=0 with default parameters were all it had.

        For a reader that speaks T=0 only. The historical bytes, by which card drivers know a card,
        stay as they are.
        """
        return ATR(self.historical)


def _presence(group: InterfaceBytes) -> int:
    fields = (group.ta, group.tb, group.tc, group.protocol)
    return sum(1 << (4 + i) for i, value in enumerate(fields) if value is not None)


def _decode_groups(raw: bytes) -> tuple[tuple[InterfaceBytes, ...], int]:
    """Reads the interface bytes; also gives the position of what follows them."""
    groups = []
    position = 1
    present = raw[position] >> 4
    position += 1
    while present:
        fields: list[int | None] = []
        for bit in range(4):
            if not present >> bit & 1:
                fields.append(None)
            elif position == len(raw):
                raise RemoteProtocolError("ATR that ends in its interface bytes")
            else:
                fields.append(raw[position])
                position += 1
        ta, tb, tc, td = fields
        groups.append(InterfaceBytes(ta, tb, tc, None if td is None else td & 0x0F))
        present = 0 if td is None else td >> 4
    return tuple(groups), position
