# SPDX-License-Identifier: Apache-2.0
"""The bytes of the messages between a host and a CCID reader.

Source: USB CCID Rev 1.1, 6.1 to 6.3. Integers are little-endian. A bulk message is a header of 10
bytes (bMessageType, dwLength, bSlot, bSeq and three bytes of the message's own) and dwLength bytes
of data; an interrupt message has no header.

A host's bad message does not end anything: `decode_command` gives a `BadMessage`, which the reader
answers like any other.
"""

import enum
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias, TypeVar

from ccid_protocol.ccid.fields import BadFieldError, Offset, enumerated, pack
from ccid_protocol.ccid.messages import (
    HEADER_SIZE,
    Abort,
    BadMessage,
    ClockCommand,
    ClockStatus,
    Command,
    CommandStatus,
    DataBlock,
    DataRateAndClockFrequency,
    Escape,
    EscapeResponse,
    GetParameters,
    GetSlotStatus,
    HardwareError,
    IccClock,
    IccPowerOff,
    IccPowerOn,
    IccStatus,
    LevelParameter,
    Mechanical,
    MechanicalFunction,
    MessageType,
    Notification,
    NotifySlotChange,
    Parameters,
    PowerSelect,
    ResetParameters,
    Response,
    Secure,
    SetDataRateAndClockFrequency,
    SetParameters,
    SlotChange,
    SlotStatus,
    T0Apdu,
    T0Changes,
    XfrBlock,
)
from ccid_protocol.ccid.parameters import (
    ProtocolNumber,
    ProtocolParameters,
    T0Parameters,
    T1Parameters,
)
from ccid_protocol.errors import LocalProtocolError, ProtocolError, RemoteProtocolError

# 6.1 and 6.2: bMessageType, dwLength, bSlot, bSeq, three message-specific bytes
_HEADER: Final = struct.Struct("<BIBB3s")
# 6.1.4 and 6.1.11: bBWI, wLevelParameter
_TRANSFER: Final = struct.Struct("<BH")
# 6.1 and 6.2, the three message-specific bytes where each is a field; bStatus, bError, ... in 6.2
_BYTES: Final = struct.Struct("<3B")
# 6.1.14 and 6.2.5: dwClockFrequency, dwDataRate
_RATES: Final = struct.Struct("<II")
# 6.3.2: bMessageType, bSlot, bSeq, bHardwareErrorCode
_HARDWARE_ERROR: Final = struct.Struct("<4B")

_RFU: Final = bytes(3)
_SLOTS_PER_BYTE: Final = 4
# bClockStatus and bProtocolNum of a message to the host.
_SPECIFIC_OFFSET: Final = 9

# What reads a message to the reader: from bSlot, bSeq, the message-specific bytes and the data.
_Decoder: TypeAlias = Callable[[int, int, bytes, bytes], Command]
_Choice = TypeVar("_Choice", bound=enum.IntEnum)


def encode(message: Command | Response) -> bytes:
    """Gives a bulk message's bytes.

    Raises:
        LocalProtocolError: A field does not fit its bytes, or is one that this message cannot have.
    """
    if isinstance(message, Command):
        specific, data = _command_fields(message)
    else:
        specific, data = _response_fields(message)
    return (
        pack(_HEADER, message.message_type, len(data), message.slot, message.seq, specific) + data
    )


def _command_fields(command: Command) -> tuple[bytes, bytes]:
    """Gives the three message-specific bytes and the data."""
    specific, data = _RFU, b""
    match command:
        case IccPowerOn():
            specific = pack(_BYTES, command.power_select, 0, 0)
        case XfrBlock() | Secure():
            specific, data = pack(_TRANSFER, command.bwi, command.level), command.data
        case SetParameters():
            specific = pack(_BYTES, _protocol_number(command.parameters), 0, 0)
            data = command.parameters.encode()
        case Escape():
            data = command.data
        case IccClock():
            specific = pack(_BYTES, command.clock_command, 0, 0)
        case T0Apdu(_, _, changes, get_response, envelope):
            specific = pack(_BYTES, changes, get_response, envelope)
        case Mechanical():
            specific = pack(_BYTES, command.function, 0, 0)
        case SetDataRateAndClockFrequency():
            data = pack(_RATES, command.clock_frequency, command.data_rate)
        case IccPowerOff() | GetSlotStatus() | GetParameters() | ResetParameters() | Abort():
            pass
    return specific, data


def _response_fields(response: Response) -> tuple[bytes, bytes]:
    """Gives the three message-specific bytes and the data."""
    _check_outcome(response, LocalProtocolError)
    parameter, data = 0, b""
    match response:
        case DataBlock():
            parameter, data = response.chain, response.data
        case SlotStatus():
            parameter = response.clock_status
        case Parameters(parameters=T0Parameters() | T1Parameters() as parameters):
            parameter, data = _protocol_number(parameters), parameters.encode()
        case Parameters():
            pass
        case EscapeResponse():
            data = response.data
        case DataRateAndClockFrequency():
            data = pack(_RATES, response.clock_frequency, response.data_rate)
    status = response.command_status << 6 | response.icc_status
    return pack(_BYTES, status, response.error, parameter), data


def _check_outcome(response: Response, kind: type[ProtocolError]) -> None:
    """Refuses a response whose fields contradict its command's status."""
    if response.command_status is not CommandStatus.OK:
        return
    if response.error:
        raise kind(f"bError {response.error:02X} of a command that did not fail")
    if isinstance(response, Parameters) and response.parameters is None:
        raise kind("Parameters without a structure, of a command that did not fail")


def _protocol_number(parameters: ProtocolParameters) -> ProtocolNumber:
    return ProtocolNumber.T0 if isinstance(parameters, T0Parameters) else ProtocolNumber.T1


def decode_command(raw: bytes, *, extended_apdu: bool = False) -> Command | BadMessage:
    """Reads a message to the reader.

    Args:
        raw: one message, of at least the 10 bytes of its header.
        extended_apdu: whether the reader exchanges extended APDUs, the one level at which
            wLevelParameter has values that are not allowed.

    Returns:
        The message, or what must be answered if it is bad.

    Raises:
        RemoteProtocolError: There is no whole header, and so nothing that could be answered.
    """
    message_type, length, slot, seq, specific = decode_header(raw)
    data = raw[HEADER_SIZE:]
    decoder = _DECODERS.get(message_type)
    if decoder is None:
        return BadMessage(message_type, slot, seq, Offset.MESSAGE_TYPE)
    if len(data) != length:
        return BadMessage(message_type, slot, seq, Offset.LENGTH)
    try:
        command = decoder(slot, seq, specific, data)
        if extended_apdu and isinstance(command, XfrBlock | Secure):
            _check_level(command)
    except BadFieldError as error:
        return BadMessage(message_type, slot, seq, error.offset)
    return command


def decode_header(raw: bytes | bytearray) -> tuple[int, int, int, int, bytes]:
    """Reads the header that begins a bulk message.

    Returns:
        bMessageType, dwLength, bSlot, bSeq and the three message-specific bytes.

    Raises:
        RemoteProtocolError: There are fewer than its 10 bytes.
    """
    if len(raw) < HEADER_SIZE:
        raise RemoteProtocolError(f"CCID message of {len(raw)} bytes")
    message_type, length, slot, seq, specific = _HEADER.unpack_from(raw)
    return message_type, length, slot, seq, specific


def is_command_type(message_type: int) -> bool:
    """Tells whether a bMessageType is that of a message to the reader."""
    return message_type in _DECODERS


# The decoders of messages to the reader do not look at bytes that are RFU.


def _plain(kind: Callable[[int, int], Command]) -> _Decoder:
    """Makes the decoder of a message that has nothing of its own."""

    def decode(slot: int, seq: int, _specific: bytes, data: bytes) -> Command:
        if data:
            raise BadFieldError(Offset.LENGTH)
        return kind(slot, seq)

    return decode


def _choosing(choice: type[_Choice], kind: Callable[[int, int, _Choice], Command]) -> _Decoder:
    """Makes the decoder of a message that has one of several numbers of its own."""

    def decode(slot: int, seq: int, specific: bytes, data: bytes) -> Command:
        if data:
            raise BadFieldError(Offset.LENGTH)
        return kind(slot, seq, enumerated(choice, specific[0], Offset.PARAMETER))

    return decode


def _transferring(kind: Callable[[int, int, bytes, int, int], Command]) -> _Decoder:
    """Makes the decoder of a message with data for a card."""

    def decode(slot: int, seq: int, specific: bytes, data: bytes) -> Command:
        bwi, level = _TRANSFER.unpack(specific)
        return kind(slot, seq, data, bwi, level)

    return decode


def _decode_set_parameters(slot: int, seq: int, specific: bytes, data: bytes) -> SetParameters:
    number = enumerated(ProtocolNumber, specific[0], Offset.PARAMETER)
    return SetParameters(slot, seq, _decode_parameters(number, data))


def _decode_parameters(number: ProtocolNumber, data: bytes) -> ProtocolParameters:
    if number is ProtocolNumber.T0:
        return T0Parameters.decode(data)
    return T1Parameters.decode(data)


def _decode_escape(slot: int, seq: int, _specific: bytes, data: bytes) -> Escape:
    return Escape(slot, seq, data)


def _decode_t0_apdu(slot: int, seq: int, specific: bytes, data: bytes) -> T0Apdu:
    if data:
        raise BadFieldError(Offset.LENGTH)
    changes, get_response, envelope = specific
    if changes > T0Changes.GET_RESPONSE | T0Changes.ENVELOPE:
        raise BadFieldError(Offset.PARAMETER)
    return T0Apdu(slot, seq, T0Changes(changes), get_response, envelope)


def _decode_set_rates(
    slot: int, seq: int, _specific: bytes, data: bytes
) -> SetDataRateAndClockFrequency:
    if len(data) != _RATES.size:
        raise BadFieldError(Offset.LENGTH)
    return SetDataRateAndClockFrequency(slot, seq, *_RATES.unpack(data))


_DECODERS: Final[dict[int, _Decoder]] = {
    MessageType.ICC_POWER_ON: _choosing(PowerSelect, IccPowerOn),
    MessageType.ICC_POWER_OFF: _plain(IccPowerOff),
    MessageType.GET_SLOT_STATUS: _plain(GetSlotStatus),
    MessageType.XFR_BLOCK: _transferring(XfrBlock),
    MessageType.GET_PARAMETERS: _plain(GetParameters),
    MessageType.RESET_PARAMETERS: _plain(ResetParameters),
    MessageType.SET_PARAMETERS: _decode_set_parameters,
    MessageType.ESCAPE: _decode_escape,
    MessageType.ICC_CLOCK: _choosing(ClockCommand, IccClock),
    MessageType.T0_APDU: _decode_t0_apdu,
    MessageType.SECURE: _transferring(Secure),
    MessageType.MECHANICAL: _choosing(MechanicalFunction, Mechanical),
    MessageType.ABORT: _plain(Abort),
    MessageType.SET_DATA_RATE_AND_CLOCK_FREQUENCY: _decode_set_rates,
}


def _check_level(command: XfrBlock | Secure) -> None:
    """Holds wLevelParameter against the values of the extended APDU level."""
    level = enumerated(LevelParameter, command.level, Offset.LEVEL_PARAMETER)
    if level is LevelParameter.NEXT_RESPONSE_PIECE and command.data:
        raise BadFieldError(Offset.LENGTH)


def decode_response(raw: bytes) -> Response:
    """Reads a message to the host from the bulk-IN endpoint.

    Raises:
        RemoteProtocolError: It is none, or its length or a field is not allowed.
    """
    message_type, length, slot, seq, specific = decode_header(raw)
    status, error, parameter = specific
    data = raw[HEADER_SIZE:]
    if len(data) != length:
        raise RemoteProtocolError(f"dwLength {length} in a message with {len(data)} bytes of data")
    try:
        icc_status, command_status = IccStatus(status & 3), CommandStatus(status >> 6)
    except ValueError as reason:
        raise RemoteProtocolError(f"bStatus {status:02X}") from reason
    response = _decode_response_fields(message_type, (slot, seq, icc_status), parameter, data)
    response = replace(response, command_status=command_status, error=error)
    _check_outcome(response, RemoteProtocolError)
    return response


def _decode_response_fields(
    message_type: int, common: tuple[int, int, IccStatus], parameter: int, data: bytes
) -> Response:
    """Reads what differs between the messages to the host; the command's status stays out."""
    match message_type:
        case MessageType.DATA_BLOCK:
            return DataBlock(*common, data, parameter)
        case MessageType.ESCAPE_RESPONSE:
            return EscapeResponse(*common, data)
        case MessageType.SLOT_STATUS if not data:
            return SlotStatus(*common, enumerated(ClockStatus, parameter, _SPECIFIC_OFFSET))
        case MessageType.PARAMETERS if not data:
            return Parameters(*common)
        case MessageType.PARAMETERS:
            number = enumerated(ProtocolNumber, parameter, _SPECIFIC_OFFSET)
            return Parameters(*common, _decode_parameters(number, data))
        case MessageType.DATA_RATE_AND_CLOCK_FREQUENCY if len(data) == _RATES.size:
            return DataRateAndClockFrequency(*common, *_RATES.unpack(data))
        case _:
            raise RemoteProtocolError(
                f"message of type {message_type:02X} with {len(data)} bytes of data to the host"
            )


def encode_notification(notification: Notification) -> bytes:
    """Gives an interrupt message's bytes.

    Raises:
        LocalProtocolError: A field does not fit its byte, or there are no slots.
    """
    match notification:
        case HardwareError(slot, seq, code):
            return pack(_HARDWARE_ERROR, MessageType.HARDWARE_ERROR, slot, seq, code)
        case NotifySlotChange(()):
            raise LocalProtocolError("NotifySlotChange of a reader without slots")
        case NotifySlotChange(slots):
            states = 0
            for i, change in enumerate(slots):
                states |= (change.present | change.changed << 1) << 2 * i
            raw = states.to_bytes(_state_bytes(len(slots)), "little")
            return bytes([MessageType.NOTIFY_SLOT_CHANGE]) + raw


def decode_notification(raw: bytes, slots: int) -> Notification:
    """Reads an interrupt message.

    Args:
        raw: the message.
        slots: how many slots the reader has; NotifySlotChange does not tell.

    Raises:
        RemoteProtocolError: It is none, its length is wrong for that many slots, or it tells of
            more.
    """
    if not raw:
        raise RemoteProtocolError("interrupt message of 0 bytes")
    if raw[0] == MessageType.HARDWARE_ERROR and len(raw) == _HARDWARE_ERROR.size:
        return HardwareError(*raw[1:])
    if raw[0] != MessageType.NOTIFY_SLOT_CHANGE or len(raw) != 1 + _state_bytes(slots):
        raise RemoteProtocolError(f"interrupt message {raw[0]:02X} of {len(raw)} bytes")
    states = int.from_bytes(raw[1:], "little")
    if states >> 2 * slots:
        raise RemoteProtocolError(f"NotifySlotChange of more than {slots} slots")
    pairs = (states >> 2 * i for i in range(slots))
    return NotifySlotChange(tuple(SlotChange(bool(p & 1), bool(p & 2)) for p in pairs))


def _state_bytes(slots: int) -> int:
    """Tells the size of bmSlotICCState: two bits a slot, in whole bytes."""
    return (slots + _SLOTS_PER_BYTE - 1) // _SLOTS_PER_BYTE
