# SPDX-License-Identifier: Apache-2.0
"""The class-specific requests on a CCID reader's control endpoint.

Source: USB CCID Rev 1.1, 5.3. All of them are meant for the reader's interface. Integers are
little-endian, 32 bits.
"""

import enum
import struct
from dataclasses import dataclass
from typing import TypeAlias

from ccid_protocol.ccid.fields import pack
from ccid_protocol.errors import LocalProtocolError, RemoteProtocolError
from ccid_protocol.usb import Recipient, RequestKind, SetupPacket

# bmRequestType of a class request to an interface, without and with data for the host.
_TO_READER = RequestKind.CLASS << 5 | Recipient.INTERFACE
_TO_HOST = 0x80 | _TO_READER


class ClassRequest(enum.IntEnum):
    """The values of bRequest."""

    ABORT = 1
    GET_CLOCK_FREQUENCIES = 2
    GET_DATA_RATES = 3


@dataclass(frozen=True, slots=True)
class AbortRequest:
    """One half of an abort; the other is the message `Abort` with the same slot and seq.

    Attributes:
        slot: bSlot.
        seq: bSeq.
        interface: the reader's interface.
    """

    slot: int
    seq: int
    interface: int = 0


@dataclass(frozen=True, slots=True)
class GetClockFrequencies:
    """Tell the clock frequencies that the reader can give, in kHz.

    Attributes:
        length: bytes that the host takes, four for each frequency.
        interface: the reader's interface.
    """

    length: int
    interface: int = 0


@dataclass(frozen=True, slots=True)
class GetDataRates:
    """Tell the data rates that the reader can give, in bits per second.

    Attributes:
        length: bytes that the host takes, four for each data rate.
        interface: the reader's interface.
    """

    length: int
    interface: int = 0


ControlRequest: TypeAlias = AbortRequest | GetClockFrequencies | GetDataRates


def decode_control_request(setup: SetupPacket) -> ControlRequest | None:
    """Reads a class-specific request.

    Returns:
        The request, or None if it is not one of CCID's: the device answers it with a STALL.
    """
    match setup:
        case SetupPacket(request_type=kind, request=ClassRequest.ABORT, length=0):
            request: ControlRequest = AbortRequest(
                setup.value & 0xFF, setup.value >> 8, setup.index
            )
            expected = _TO_READER
        case SetupPacket(request_type=kind, request=ClassRequest.GET_CLOCK_FREQUENCIES, value=0):
            request = GetClockFrequencies(setup.length, setup.index)
            expected = _TO_HOST
        case SetupPacket(request_type=kind, request=ClassRequest.GET_DATA_RATES, value=0):
            request = GetDataRates(setup.length, setup.index)
            expected = _TO_HOST
        case _:
            return None
    return request if kind == expected else None


def encode_control_request(request: ControlRequest) -> SetupPacket:
    """Gives the setup packet of a request.

    Raises:
        LocalProtocolError: The slot or seq does not fit its byte.
    """
    match request:
        case AbortRequest(slot, seq, interface):
            if not (0 <= slot <= 0xFF and 0 <= seq <= 0xFF):
                raise LocalProtocolError(f"ABORT of slot {slot}, seq {seq}")
            return SetupPacket(_TO_READER, ClassRequest.ABORT, seq << 8 | slot, interface)
        case GetClockFrequencies(length, interface):
            number = ClassRequest.GET_CLOCK_FREQUENCIES
            return SetupPacket(_TO_HOST, number, 0, interface, length)
        case GetDataRates(length, interface):
            return SetupPacket(_TO_HOST, ClassRequest.GET_DATA_RATES, 0, interface, length)


def encode_rates(rates: tuple[int, ...]) -> bytes:
    """Gives the answer to GET_CLOCK_FREQUENCIES (kHz) or GET_DATA_RATES (bits per second).

    Raises:
        LocalProtocolError: One does not fit 32 bits.
    """
    return pack(struct.Struct(f"<{len(rates)}I"), *rates)


def decode_rates(raw: bytes) -> tuple[int, ...]:
    """Reads the answer to GET_CLOCK_FREQUENCIES or GET_DATA_RATES.

    Raises:
        RemoteProtocolError: It is no whole number of integers.
    """
    if len(raw) % 4:
        raise RemoteProtocolError(f"{len(raw)} bytes of clock frequencies or data rates")
    return struct.unpack(f"<{len(raw) // 4}I", raw)
