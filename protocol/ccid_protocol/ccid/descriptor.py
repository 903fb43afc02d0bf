# SPDX-License-Identifier: Apache-2.0
"""The class descriptor: what a CCID reader says of itself.

Source: USB CCID Rev 1.1, 5.1 (smart card device class descriptor). 54 bytes, little-endian, between
the interface's descriptor and those of its endpoints.
"""

import enum
import struct
from dataclasses import astuple, dataclass, replace
from typing import Final, Self

from ccid_protocol.ccid.fields import pack
from ccid_protocol.ccid.parameters import MAX_IFS
from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError

INTERFACE_CLASS: Final = 0x0B
"""bInterfaceClass of a smart-card reader; with subclass and protocol 0 it has bulk endpoints."""

DESCRIPTOR_TYPE: Final = 0x21
"""bDescriptorType of the class descriptor."""

RELEASE: Final = 0x0110
"""bcdCCID of Rev 1.1."""

MIN_EXTENDED_MESSAGE: Final = 261 + 10
"""The least dwMaxCCIDMessageLength at the extended APDU level: a short APDU and the header."""

MAX_EXTENDED_MESSAGE: Final = 65544 + 10
"""The greatest one: an extended APDU and the header."""

MIN_MESSAGE: Final = 64
"""The least one at other levels: wMaxPacketSize of bulk-OUT at full speed."""

ECHO_CLASS: Final = 0xFF
"""bClassGetResponse and bClassEnvelope: the class byte of the APDU is repeated."""

# 5.1, table 5.1-1: bLength, bDescriptorType, bcdCCID, bMaxSlotIndex, bVoltageSupport, dwProtocols,
# dwDefaultClock, dwMaximumClock, bNumClockSupported, dwDataRate, dwMaxDataRate,
# bNumDataRatesSupported, dwMaxIFSD, dwSynchProtocols, dwMechanical, dwFeatures,
# dwMaxCCIDMessageLength, bClassGetResponse, bClassEnvelope, wLcdLayout, bPINSupport,
# bMaxCCIDBusySlots
_LAYOUT: Final = struct.Struct("<BBHBBIIIBIIBIIIIIBBHBB")


class Voltages(enum.IntFlag):
    """bVoltageSupport: the voltages that a slot can give."""

    V5 = 1
    V3 = 2
    V1_8 = 4


class Protocols(enum.IntFlag):
    """dwProtocols: the asynchronous protocols that a reader speaks."""

    T0 = 1
    T1 = 2


class MechanicalSupport(enum.IntFlag):
    """dwMechanical: what a reader can do with a card besides transmitting."""

    ACCEPT = 1
    EJECT = 2
    CAPTURE = 4
    LOCK_UNLOCK = 8


class PinSupport(enum.IntFlag):
    """bPINSupport: the PIN operations of PC_to_RDR_Secure."""

    NONE = 0
    VERIFICATION = 1
    MODIFICATION = 2


class Features(enum.IntFlag):
    """dwFeatures: what a reader does by itself, and at which level messages are exchanged."""

    AUTOMATIC_PARAMETERS = 0x02
    AUTOMATIC_ACTIVATION = 0x04
    AUTOMATIC_VOLTAGE = 0x08
    AUTOMATIC_CLOCK = 0x10
    AUTOMATIC_BAUD_RATE = 0x20
    AUTOMATIC_NEGOTIATION = 0x40
    AUTOMATIC_PPS = 0x80
    CLOCK_STOP = 0x100
    NAD = 0x200
    AUTOMATIC_IFSD = 0x400
    TPDU = 0x10000
    SHORT_APDU = 0x20000
    EXTENDED_APDU = 0x40000
    USB_WAKEUP = 0x100000


class ExchangeLevel(enum.IntEnum):
    """What abData of PC_to_RDR_XfrBlock holds: the level bit of dwFeatures, none for characters."""

    CHARACTER = 0
    TPDU = Features.TPDU
    SHORT_APDU = Features.SHORT_APDU
    EXTENDED_APDU = Features.EXTENDED_APDU


_LEVELS: Final = Features.TPDU | Features.SHORT_APDU | Features.EXTENDED_APDU
_CHOOSES_PROTOCOL: Final = Features.AUTOMATIC_NEGOTIATION | Features.AUTOMATIC_PPS


@dataclass(frozen=True, slots=True)
class ClassDescriptor:
    """The class descriptor; its fields stand in the descriptor's order.

    Attributes:
        release: bcdCCID.
        max_slot_index: bMaxSlotIndex, the number of slots less one.
        voltages: bVoltageSupport.
        protocols: dwProtocols.
        default_clock: dwDefaultClock, kHz. libccid computes its time-outs for a card from it.
        maximum_clock: dwMaximumClock, kHz.
        clocks_supported: bNumClockSupported, how many GET_CLOCK_FREQUENCIES gives.
        data_rate: dwDataRate, bits per second at the default clock and factors.
        max_data_rate: dwMaxDataRate, bits per second.
        data_rates_supported: bNumDataRatesSupported, how many GET_DATA_RATES gives.
        max_ifsd: dwMaxIFSD, bytes of the longest information field that the reader takes (T=1).
        synchronous_protocols: dwSynchProtocols.
        mechanical: dwMechanical.
        features: dwFeatures.
        max_message_length: dwMaxCCIDMessageLength, bytes with the header of 10.
        class_get_response: bClassGetResponse, `ECHO_CLASS` or the class byte of a GET RESPONSE.
        class_envelope: bClassEnvelope, `ECHO_CLASS` or the class byte of an ENVELOPE.
        lcd_layout: wLcdLayout, lines in the upper byte and characters in the lower; 0 for none.
        pin_support: bPINSupport.
        max_busy_slots: bMaxCCIDBusySlots, how many slots can work at a time.
    """

    release: int
    max_slot_index: int
    voltages: Voltages
    protocols: Protocols
    default_clock: int
    maximum_clock: int
    clocks_supported: int
    data_rate: int
    max_data_rate: int
    data_rates_supported: int
    max_ifsd: int
    synchronous_protocols: int
    mechanical: MechanicalSupport
    features: Features
    max_message_length: int
    class_get_response: int = ECHO_CLASS
    class_envelope: int = ECHO_CLASS
    lcd_layout: int = 0
    pin_support: PinSupport = PinSupport.NONE
    max_busy_slots: int = 1

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Reads a class descriptor, be it consistent or not.

        Raises:
            RemoteProtocolError: Its length or type is not the class descriptor's.
        """
        if len(raw) != _LAYOUT.size or raw[0] != _LAYOUT.size or raw[1] != DESCRIPTOR_TYPE:
            raise RemoteProtocolError(f"{len(raw)} bytes that are no CCID class descriptor")
        numbers = cls(*_LAYOUT.unpack(raw)[2:])
        return replace(
            numbers,
            voltages=Voltages(numbers.voltages),
            protocols=Protocols(numbers.protocols),
            mechanical=MechanicalSupport(numbers.mechanical),
            features=Features(numbers.features),
            pin_support=PinSupport(numbers.pin_support),
        )

    def encode(self) -> bytes:
        """Gives the descriptor's 54 bytes.

        Raises:
            LocalProtocolError: As `check`, and when a field does not fit its bytes.
        """
        self.check()
        return pack(_LAYOUT, _LAYOUT.size, DESCRIPTOR_TYPE, *astuple(self))

    @property
    def slots(self) -> int:
        """How many slots the reader has."""
        return self.max_slot_index + 1

    @property
    def exchange_level(self) -> ExchangeLevel:
        """The level at which messages are exchanged.

        Raises:
            LocalProtocolError: dwFeatures has more than one level.
        """
        try:
            return ExchangeLevel(self.features & _LEVELS)
        except ValueError as error:
            raise LocalProtocolError("dwFeatures has more than one exchange level") from error

    def check(self) -> None:
        """Holds the fields against each other.

        Raises:
            LocalProtocolError: Two fields contradict each other, or a value is not Rev 1.1's.
        """
        if self.release != RELEASE:
            raise LocalProtocolError(f"bcdCCID {self.release:04X}")
        for flags in (self.voltages, self.protocols, self.mechanical, self.features):
            _check_known(flags)
        _check_known(self.pin_support)
        self._check_slots()
        self._check_transmission()
        self._check_features()

    def _check_slots(self) -> None:
        if not self.voltages:
            raise LocalProtocolError("bVoltageSupport without a voltage")
        if not 1 <= self.max_busy_slots <= self.slots:
            raise LocalProtocolError(
                f"bMaxCCIDBusySlots {self.max_busy_slots} of {self.slots} slots"
            )

    def _check_transmission(self) -> None:
        if not self.protocols and not self.synchronous_protocols:
            raise LocalProtocolError("a reader that speaks no protocol")
        if not 0 < self.default_clock <= self.maximum_clock:
            raise LocalProtocolError(
                f"dwDefaultClock {self.default_clock}, dwMaximumClock {self.maximum_clock}"
            )
        if not 0 < self.data_rate <= self.max_data_rate:
            raise LocalProtocolError(
                f"dwDataRate {self.data_rate}, dwMaxDataRate {self.max_data_rate}"
            )
        if Protocols.T1 in self.protocols and not 1 <= self.max_ifsd <= MAX_IFS:
            raise LocalProtocolError(f"dwMaxIFSD {self.max_ifsd}")

    def _check_features(self) -> None:
        level = self.exchange_level
        if _CHOOSES_PROTOCOL in self.features:
            raise LocalProtocolError("dwFeatures has both 40h and 80h")
        if level in {ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU} and not (
            self.features & _CHOOSES_PROTOCOL and Features.AUTOMATIC_PARAMETERS in self.features
        ):
            raise LocalProtocolError("an APDU level without 02h and one of 40h and 80h")
        if level is ExchangeLevel.EXTENDED_APDU:
            fits = MIN_EXTENDED_MESSAGE <= self.max_message_length <= MAX_EXTENDED_MESSAGE
        else:
            fits = self.max_message_length >= MIN_MESSAGE
        if not fits:
            raise LocalProtocolError(
                f"dwMaxCCIDMessageLength {self.max_message_length} at the level {level.name}"
            )


def _check_known(flags: enum.IntFlag) -> None:
    known = sum(type(flags))
    if int(flags) & ~known:
        raise LocalProtocolError(f"{type(flags).__name__} with the reserved bits of {flags:X}h")
