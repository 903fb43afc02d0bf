# SPDX-License-Identifier: Apache-2.0
"""Protocol data structures: how a reader and a card transmit.

Source: USB CCID Rev 1.1, 6.1.7 (PC_to_RDR_SetParameters), for the layouts and the defaults;
ISO/IEC 7816-3:2006, 8.3 (tables 7 and 8: Fi, f(max), Di; interface bytes), 10.2 (WI) and 11.3, 11.4
(NAD, IFSC, CWI, BWI, checksum) for the values that are allowed.
"""

import enum
import struct
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from ccid_protocol.atr import ATR, INVERSE_CONVENTION, InterfaceBytes
from ccid_protocol.ccid.fields import BadFieldError, Offset, enumerated, pack
from ccid_protocol.errors import LocalProtocolError
from ccid_protocol.pps import BAUD_RATE_ADJUSTMENT, CLOCK_RATE_CONVERSION
from ccid_protocol.t1 import is_node_address

MAX_FREQUENCY: Final[dict[int, int]] = {
    0x0: 4000,
    0x1: 5000,
    0x2: 6000,
    0x3: 8000,
    0x4: 12000,
    0x5: 16000,
    0x6: 20000,
    0x9: 5000,
    0xA: 7500,
    0xB: 10000,
    0xC: 15000,
    0xD: 20000,
}
"""f(max), kHz, by the same index (ISO/IEC 7816-3:2006, table 7)."""

DEFAULT_INDEX: Final = 1
"""Of Fi (372) and of Di (1): what every card speaks after its answer to reset."""

MAX_IFS: Final = 254
"""Bytes of the longest information field of a T=1 block."""

# 6.1.7, T=0: bmFindexDindex, bmTCCKST0, bGuardTimeT0, bWaitingIntegerT0, bClockStop
_T0: Final = struct.Struct("<5B")
# 6.1.7, T=1: bmFindexDindex, bmTCCKST1, bGuardTimeT1, bmWaitingIntegersT1, bClockStop, bIFSC,
# bNadValue
_T1: Final = struct.Struct("<7B")

_INVERSE_BIT: Final = 0x02
_CRC_BIT: Final = 0x01
# Bits 7 to 2 of bmTCCKST1 have this fixed value, and in bmTCCKST0 they are 0.
_TCCKS_T1: Final = 0x10

_MAX_BWI: Final = 9


class ProtocolNumber(enum.IntEnum):
    """bProtocolNum: which structure follows. Those of synchronous cards (80h to 82h) are RFU."""

    T0 = 0
    T1 = 1


class ClockStop(enum.IntEnum):
    """Whether a card lets its clock be stopped, and at which level of the signal."""

    NOT_ALLOWED = 0
    LOW = 1
    HIGH = 2
    EITHER = 3


class _Offset(enum.IntEnum):
    """Where the structures' fields stand in a message, as bError names them."""

    FINDEX_DINDEX = Offset.DATA
    TCCKS = Offset.DATA + 1
    WAITING_INTEGERS = Offset.DATA + 3
    CLOCK_STOP = Offset.DATA + 4
    IFSC = Offset.DATA + 5
    NAD = Offset.DATA + 6


def data_rate(clock: int, findex: int, dindex: int) -> int:
    """Tells how fast a card transmits.

    Args:
        clock: its clock frequency in kHz.
        findex: the index of Fi, not one that is RFU.
        dindex: the index of Di, not one that is RFU.

    Returns:
        f · Di / Fi in bits per second, rounded down.
    """
    return clock * 1000 * BAUD_RATE_ADJUSTMENT[dindex] // CLOCK_RATE_CONVERSION[findex]


def block_waiting_time(bwi: int, clock: int) -> float:
    """Tells how long a card may take for a block of T=1 (ISO/IEC 7816-3:2006, 11.4.3).

    Args:
        bwi: BWI, 0 to 9.
        clock: its clock frequency in kHz.

    Returns:
        Seconds, without the 11 etu that the first character itself takes.
    """
    return (1 << bwi) * 960 * CLOCK_RATE_CONVERSION[DEFAULT_INDEX] / (clock * 1000)


@dataclass(frozen=True, slots=True)
class T0Parameters:
    """The parameters of T=0; the defaults are those after PC_to_RDR_IccPowerOn.

    Attributes:
        findex: index of Fi, the clock rate conversion factor.
        dindex: index of Di, the baud rate adjustment factor.
        inverse: whether the card uses the inverse convention; readers ignore it when it is set.
        guard_time: extra guard time in etu, 0 to 254; 255 means 0.
        waiting_integer: WI, 1 to 255, which sets the time to wait for a character.
        clock_stop: whether and how the clock may be stopped.
    """

    findex: int = DEFAULT_INDEX
    dindex: int = DEFAULT_INDEX
    inverse: bool = False
    guard_time: int = 0
    waiting_integer: int = 10
    clock_stop: ClockStop = ClockStop.NOT_ALLOWED

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Reads the structure of a message's abProtocolDataStructure.

        Raises:
            BadFieldError: There are not 5 bytes, or a value is RFU.
        """
        if len(data) != _T0.size:
            raise BadFieldError(Offset.LENGTH)
        factors, tccks, guard_time, waiting_integer, clock_stop = _T0.unpack(data)
        findex, dindex = _decode_factors(factors)
        if tccks & ~_INVERSE_BIT:
            raise BadFieldError(_Offset.TCCKS)
        if not waiting_integer:
            raise BadFieldError(_Offset.WAITING_INTEGERS)
        return cls(
            findex,
            dindex,
            bool(tccks & _INVERSE_BIT),
            guard_time,
            waiting_integer,
            enumerated(ClockStop, clock_stop, _Offset.CLOCK_STOP),
        )

    def encode(self) -> bytes:
        """Gives the 5 bytes of the structure.

        Raises:
            LocalProtocolError: A value does not fit, or is RFU.
        """
        raw = pack(
            _T0,
            _encode_factors(self.findex, self.dindex),
            _INVERSE_BIT * self.inverse,
            self.guard_time,
            self.waiting_integer,
            self.clock_stop,
        )
        _check(type(self), raw)
        return raw

    def data_rate(self, clock: int) -> int:
        """Tells the bits per second at a clock of so many kHz."""
        return data_rate(clock, self.findex, self.dindex)


@dataclass(frozen=True, slots=True)
class T1Parameters:
    """The parameters of T=1; the defaults are those after PC_to_RDR_IccPowerOn.

    Attributes:
        findex: index of Fi, the clock rate conversion factor.
        dindex: index of Di, the baud rate adjustment factor.
        crc: whether blocks end in a CRC of two bytes, and not in an LRC of one.
        inverse: whether the card uses the inverse convention; readers ignore it when it is set.
        guard_time: extra guard time in etu, 0 to 254; 255 takes one etu from the normal time.
        bwi: BWI, 0 to 9, which sets the time to wait for a block.
        cwi: CWI, 0 to 15, which sets the time to wait for a character within a block.
        clock_stop: whether and how the clock may be stopped.
        ifsc: bytes of the longest information field that the card takes, 1 to 254.
        nad: the node address of blocks to the card; 0 where addresses are not used.
    """

    findex: int = DEFAULT_INDEX
    dindex: int = DEFAULT_INDEX
    crc: bool = False
    inverse: bool = False
    guard_time: int = 0
    bwi: int = 4
    cwi: int = 13
    clock_stop: ClockStop = ClockStop.NOT_ALLOWED
    ifsc: int = 32
    nad: int = 0

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Reads the structure of a message's abProtocolDataStructure.

        Raises:
            BadFieldError: There are not 7 bytes, or a value is RFU.
        """
        if len(data) != _T1.size:
            raise BadFieldError(Offset.LENGTH)
        factors, tccks, guard_time, waiting_integers, clock_stop, ifsc, nad = _T1.unpack(data)
        findex, dindex = _decode_factors(factors)
        if tccks & ~(_CRC_BIT | _INVERSE_BIT) != _TCCKS_T1:
            raise BadFieldError(_Offset.TCCKS)
        if waiting_integers >> 4 > _MAX_BWI:
            raise BadFieldError(_Offset.WAITING_INTEGERS)
        stop = enumerated(ClockStop, clock_stop, _Offset.CLOCK_STOP)
        if not 1 <= ifsc <= MAX_IFS:
            raise BadFieldError(_Offset.IFSC)
        if not is_node_address(nad):
            raise BadFieldError(_Offset.NAD)
        return cls(
            findex,
            dindex,
            bool(tccks & _CRC_BIT),
            bool(tccks & _INVERSE_BIT),
            guard_time,
            waiting_integers >> 4,
            waiting_integers & 0x0F,
            stop,
            ifsc,
            nad,
        )

    def encode(self) -> bytes:
        """Gives the 7 bytes of the structure.

        Raises:
            LocalProtocolError: A value does not fit, or is RFU.
        """
        if not 0 <= self.cwi <= 15:
            raise LocalProtocolError(f"CWI {self.cwi}")
        raw = pack(
            _T1,
            _encode_factors(self.findex, self.dindex),
            _TCCKS_T1 | _INVERSE_BIT * self.inverse | _CRC_BIT * self.crc,
            self.guard_time,
            self.bwi << 4 | self.cwi,
            self.clock_stop,
            self.ifsc,
            self.nad,
        )
        _check(type(self), raw)
        return raw

    def data_rate(self, clock: int) -> int:
        """Tells the bits per second at a clock of so many kHz."""
        return data_rate(clock, self.findex, self.dindex)


ProtocolParameters: TypeAlias = T0Parameters | T1Parameters
"""The structure that bProtocolNum tells."""


def t0_parameters(atr: ATR) -> T0Parameters:
    """Gives the parameters that a card's ATR proposes for T=0.

    They hold once the card has agreed to them in a PPS exchange, or at once in specific mode.
    """
    findex, dindex = _proposed_factors(atr)
    second = atr.groups[1] if len(atr.groups) > 1 else InterfaceBytes()
    return T0Parameters(
        findex,
        dindex,
        atr.ts == INVERSE_CONVENTION,
        _extra_guard_time(atr),
        # WI 0 is RFU.
        second.tc or T0Parameters().waiting_integer,
        _clock_stop(atr),
    )


def t1_parameters(atr: ATR) -> T1Parameters:
    """Gives the parameters that a card's ATR proposes for T=1.

    They hold once the card has agreed to them in a PPS exchange, or at once in specific mode.
    Values that are RFU are taken for their defaults.
    """
    defaults = T1Parameters()
    findex, dindex = _proposed_factors(atr)
    specific = _specific_to(1, atr)
    ifsc = specific.ta if specific.ta is not None and 1 <= specific.ta <= MAX_IFS else defaults.ifsc
    bwi, cwi = defaults.bwi, defaults.cwi
    if specific.tb is not None and specific.tb >> 4 <= _MAX_BWI:
        bwi, cwi = specific.tb >> 4, specific.tb & 0x0F
    return T1Parameters(
        findex,
        dindex,
        bool((specific.tc or 0) & _CRC_BIT),
        atr.ts == INVERSE_CONVENTION,
        _extra_guard_time(atr),
        bwi,
        cwi,
        _clock_stop(atr),
        ifsc,
    )


def _decode_factors(factors: int) -> tuple[int, int]:
    findex, dindex = factors >> 4, factors & 0x0F
    if findex not in CLOCK_RATE_CONVERSION or dindex not in BAUD_RATE_ADJUSTMENT:
        raise BadFieldError(_Offset.FINDEX_DINDEX)
    return findex, dindex


def _encode_factors(findex: int, dindex: int) -> int:
    if findex not in CLOCK_RATE_CONVERSION or dindex not in BAUD_RATE_ADJUSTMENT:
        raise LocalProtocolError(f"index {findex} of Fi with index {dindex} of Di")
    return findex << 4 | dindex


def _check(kind: type[ProtocolParameters], raw: bytes) -> None:
    """Refuses to send what this program would refuse to receive."""
    try:
        kind.decode(raw)
    except BadFieldError as error:
        raise LocalProtocolError(f"a value that is RFU at offset {error.offset}") from error


def _proposed_factors(atr: ATR) -> tuple[int, int]:
    """Gives the indices of TA1; those of the default where it is absent, RFU, or does not count."""
    ta1 = atr.groups[0].ta if atr.groups else None
    ta2 = atr.groups[1].ta if len(atr.groups) > 1 else None
    # Bit 5 of TA2: in specific mode, the interface device knows the factors by other means.
    if ta1 is None or (ta2 is not None and ta2 & 0x10):
        return DEFAULT_INDEX, DEFAULT_INDEX
    try:
        return _decode_factors(ta1)
    except BadFieldError:
        return DEFAULT_INDEX, DEFAULT_INDEX


def _extra_guard_time(atr: ATR) -> int:
    return (atr.groups[0].tc or 0) if atr.groups else 0


def _clock_stop(atr: ATR) -> ClockStop:
    # The clock stop indicator, the upper two bits of the first TA for T=15.
    return ClockStop((_specific_to(15, atr).ta or 0) >> 6)


def _specific_to(protocol: int, atr: ATR) -> InterfaceBytes:
    """Gives the first interface bytes behind TD2 or a later TD that names the protocol."""
    for i in range(2, len(atr.groups)):
        if atr.groups[i - 1].protocol == protocol:
            return atr.groups[i]
    return InterfaceBytes()
