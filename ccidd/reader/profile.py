# SPDX-License-Identifier: Apache-2.0
"""What a reader says of itself: identity, slots, exchange level, clocks and data rates.

Source: USB CCID Rev 1.1, 5.1 (class descriptor).
"""

import enum
from dataclasses import dataclass
from typing import Final

from ccid_protocol.ccid import (
    ClassDescriptor,
    Features,
    MechanicalSupport,
    PinSupport,
    Protocols,
    Voltages,
)

MAX_SLOTS: Final = 16
"""As many as pcscd has room for."""

CLOCK: Final = 4000
"""kHz: the one clock that cards here have. libccid computes its time-outs from it."""

DATA_RATES: Final = (10752, 21505, 43010, 86021, 172043, 344086)
"""Bits per second: what 372 clocks a bit give, and that times 2, 4, 8, 16 and 32."""


class Level(enum.Enum):
    """The exchange levels that a reader can be set to."""

    EXTENDED_APDU = "extended"
    SHORT_APDU = "short"
    TPDU = "tpdu"


_ALWAYS: Final = (
    Features.AUTOMATIC_VOLTAGE
    | Features.AUTOMATIC_CLOCK
    | Features.AUTOMATIC_BAUD_RATE
    | Features.CLOCK_STOP
)
_APDU: Final = (
    _ALWAYS | Features.AUTOMATIC_PARAMETERS | Features.AUTOMATIC_PPS | Features.AUTOMATIC_IFSD
)
_FEATURES: Final = {
    Level.EXTENDED_APDU: _APDU | Features.EXTENDED_APDU,
    Level.SHORT_APDU: _APDU | Features.SHORT_APDU,
    # The host chooses the protocol itself, by PPS and SetParameters.
    Level.TPDU: _ALWAYS | Features.TPDU,
}
_MAX_MESSAGE_LENGTHS: Final = {
    Level.EXTENDED_APDU: 65554,
    Level.SHORT_APDU: 271,
    Level.TPDU: 271,
}


@dataclass(frozen=True, slots=True)
class ReaderProfile:
    """One kind of reader.

    Attributes:
        slots: how many slots it has, at most 16. All can work at a time.
        level: its exchange level.
        vendor_id: idVendor. libccid serves only those that its list has.
        product_id: idProduct.
        manufacturer: the manufacturer's name.
        product: the reader's name.
        serial: its serial number, which tells it from others in the same guest.
        pin_support: which PINs can be entered at the reader.
    """

    slots: int
    level: Level
    vendor_id: int
    product_id: int
    manufacturer: str
    product: str
    serial: str
    pin_support: PinSupport = PinSupport.NONE

    @property
    def max_message_length(self) -> int:
        """dwMaxCCIDMessageLength, bytes."""
        return _MAX_MESSAGE_LENGTHS[self.level]

    def class_descriptor(self) -> ClassDescriptor:
        """The CCID class descriptor, which says just what is so."""
        return ClassDescriptor(
            release=0x0110,
            max_slot_index=self.slots - 1,
            voltages=Voltages.V5 | Voltages.V3 | Voltages.V1_8,
            protocols=Protocols.T0 | Protocols.T1,
            default_clock=CLOCK,
            maximum_clock=CLOCK,
            clocks_supported=1,
            data_rate=DATA_RATES[0],
            max_data_rate=DATA_RATES[-1],
            data_rates_supported=len(DATA_RATES),
            max_ifsd=254,
            synchronous_protocols=0,
            mechanical=MechanicalSupport(0),
            features=_FEATURES[self.level],
            max_message_length=self.max_message_length,
            pin_support=self.pin_support,
            max_busy_slots=self.slots,
        )


def default_profile(slots: int, serial: str, level: Level = Level.EXTENDED_APDU) -> ReaderProfile:
    """Gives the profile of a reader that libccid of Debian 12 serves without configuration.

    The identities carry no quirk of libccid: of VMware's virtual reader for one slot, of
    sysmocom's sysmoOCTSIM, which has eight, for several.
    """
    vendor_id, product_id = (0x0E0F, 0x0004) if slots == 1 else (0x1D50, 0x6141)
    return ReaderProfile(slots, level, vendor_id, product_id, "ccidd", "ccidd reader", serial)
