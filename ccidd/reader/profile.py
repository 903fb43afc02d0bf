# SPDX-License-Identifier: Apache-2.0
"""What a reader says of itself: identity, slots, exchange level, clocks and data rates.

Source: USB CCID Rev 1.1, 5.1 (class descriptor).
"""

import enum
from dataclasses import dataclass
from typing import Final

from ccid_protocol.ccid import (
    HEADER_SIZE,
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
_APDU_SIZE: Final = 261
"""Bytes of the longest short APDU, which a message of either other level has room for."""

MIN_MESSAGE: Final = HEADER_SIZE + _APDU_SIZE
"""Bytes of the least dwMaxCCIDMessageLength."""

MAX_MESSAGE: Final = 65554
"""Bytes of a message with the longest extended APDU: 4 + 3 + 65535 + 2, and the header."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a reader passes for: libccid serves only those that its list has.

    Attributes:
        vendor_id: idVendor.
        product_id: idProduct.
        note: whose it is, and what hosts do with it, for people.
    """

    vendor_id: int
    product_id: int
    note: str


IDENTITIES: Final = {
    "vmware": Identity(0x0E0F, 0x0004, "VMware's virtual reader; no host treats it specially"),
    "sysmocom": Identity(0x1D50, 0x6141, "sysmocom's sysmoOCTSIM with 8 slots; none does either"),
    "gemalto": Identity(
        0x08E6, 0x4433, "what QEMU's usb-ccid passes for; libccid tries Gemalto's commands on it"
    ),
}
"""The identities that libccid of Debian 12 knows, by the names that operators choose them by."""


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
        longest_message: bytes of a message at the extended APDU level, header included; what is
            longer goes in pieces. At the other levels nothing is.
    """

    slots: int
    level: Level
    vendor_id: int
    product_id: int
    manufacturer: str
    product: str
    serial: str
    pin_support: PinSupport = PinSupport.NONE
    longest_message: int = MAX_MESSAGE

    @property
    def max_message_length(self) -> int:
        """dwMaxCCIDMessageLength, bytes."""
        return self.longest_message if self.level is Level.EXTENDED_APDU else MIN_MESSAGE

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
    """Gives the profile of a reader that libccid of Debian 12 serves without configuration."""
    identity = IDENTITIES["vmware" if slots == 1 else "sysmocom"]
    return ReaderProfile(
        slots,
        level,
        identity.vendor_id,
        identity.product_id,
        manufacturer="ccidd",
        product="ccidd reader",
        serial=serial,
    )
