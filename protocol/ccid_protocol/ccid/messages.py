# SPDX-License-Identifier: Apache-2.0
"""The messages between a host and a CCID reader.

Source: USB CCID Rev 1.1, 6.1 (PC_to_RDR, bulk-OUT), 6.2 (RDR_to_PC, bulk-IN) and 6.3 (RDR_to_PC,
interrupt-IN). `codec` turns them into bytes and back.
"""

import enum
from dataclasses import dataclass, field
from typing import ClassVar, Final, TypeAlias

from ccid_protocol.ccid.parameters import ProtocolParameters

HEADER_SIZE: Final = 10
"""Bytes of the header of a bulk message; dwLength counts those behind it."""


class MessageType(enum.IntEnum):
    """The values of bMessageType."""

    NOTIFY_SLOT_CHANGE = 0x50
    HARDWARE_ERROR = 0x51
    SET_PARAMETERS = 0x61
    ICC_POWER_ON = 0x62
    ICC_POWER_OFF = 0x63
    GET_SLOT_STATUS = 0x65
    SECURE = 0x69
    T0_APDU = 0x6A
    ESCAPE = 0x6B
    GET_PARAMETERS = 0x6C
    RESET_PARAMETERS = 0x6D
    ICC_CLOCK = 0x6E
    XFR_BLOCK = 0x6F
    MECHANICAL = 0x71
    ABORT = 0x72
    SET_DATA_RATE_AND_CLOCK_FREQUENCY = 0x73
    DATA_BLOCK = 0x80
    SLOT_STATUS = 0x81
    PARAMETERS = 0x82
    ESCAPE_RESPONSE = 0x83
    DATA_RATE_AND_CLOCK_FREQUENCY = 0x84


class PowerSelect(enum.IntEnum):
    """bPowerSelect: the voltage that a card is powered with."""

    AUTOMATIC = 0
    V5 = 1
    V3 = 2
    V1_8 = 3


class ClockCommand(enum.IntEnum):
    """bClockCommand."""

    RESTART = 0
    STOP = 1


class MechanicalFunction(enum.IntEnum):
    """bFunction of PC_to_RDR_Mechanical."""

    ACCEPT = 1
    EJECT = 2
    CAPTURE = 3
    LOCK = 4
    UNLOCK = 5


class T0Changes(enum.IntFlag):
    """bmChanges of PC_to_RDR_T0APDU: which of the two class bytes the message changes."""

    GET_RESPONSE = 1
    ENVELOPE = 2


class LevelParameter(enum.IntEnum):
    """wLevelParameter at the extended APDU level: which piece of a command APDU abData is."""

    WHOLE = 0x0000
    BEGINS = 0x0001
    ENDS = 0x0002
    CONTINUES = 0x0003
    NEXT_RESPONSE_PIECE = 0x0010
    """abData is empty; the host asks for the next piece of the response."""


class ChainParameter(enum.IntEnum):
    """bChainParameter at the extended APDU level: which piece of a response APDU abData is."""

    WHOLE = 0x00
    BEGINS = 0x01
    ENDS = 0x02
    CONTINUES = 0x03
    NEXT_COMMAND_PIECE = 0x10
    """abData is empty; the reader asks for the next piece of the command."""


class IccStatus(enum.IntEnum):
    """bmICCStatus, the lower two bits of bStatus."""

    ACTIVE = 0
    """A card is present and powered."""
    INACTIVE = 1
    """A card is present and not powered."""
    ABSENT = 2


class CommandStatus(enum.IntEnum):
    """bmCommandStatus, the upper two bits of bStatus."""

    OK = 0
    FAILED = 1
    TIME_EXTENSION = 2


class ClockStatus(enum.IntEnum):
    """bClockStatus: whether a card's clock runs, or the level that it is stopped at."""

    RUNNING = 0
    STOPPED_LOW = 1
    STOPPED_HIGH = 2
    STOPPED = 3


@dataclass(frozen=True, slots=True)
class _Command:
    """What every message to the reader has.

    Attributes:
        slot: bSlot.
        seq: bSeq, which the answer repeats.
    """

    slot: int
    seq: int


@dataclass(frozen=True, slots=True)
class IccPowerOn(_Command):
    """Power a card on and get its ATR; a powered card is reset.

    Attributes:
        power_select: bPowerSelect.
    """

    message_type: ClassVar = MessageType.ICC_POWER_ON
    power_select: PowerSelect = PowerSelect.AUTOMATIC


@dataclass(frozen=True, slots=True)
class IccPowerOff(_Command):
    """Take the power from a card."""

    message_type: ClassVar = MessageType.ICC_POWER_OFF


@dataclass(frozen=True, slots=True)
class GetSlotStatus(_Command):
    """Tell whether a card is present and powered."""

    message_type: ClassVar = MessageType.GET_SLOT_STATUS


@dataclass(frozen=True, slots=True)
class XfrBlock(_Command):
    """Transmit to a card.

    Attributes:
        data: abData: characters, a TPDU or (a piece of) an APDU, as the exchange level has it. It
            may hold a PIN, so it is left out of the repr.
        bwi: bBWI, by which the time to wait for a T=1 block is multiplied.
        level: wLevelParameter. At the character level the bytes expected, at the extended APDU
            level a `LevelParameter`, elsewhere RFU.
    """

    message_type: ClassVar = MessageType.XFR_BLOCK
    data: bytes = field(default=b"", repr=False)
    bwi: int = 0
    level: int = 0


@dataclass(frozen=True, slots=True)
class GetParameters(_Command):
    """Tell the parameters of a slot."""

    message_type: ClassVar = MessageType.GET_PARAMETERS


@dataclass(frozen=True, slots=True)
class ResetParameters(_Command):
    """Set the parameters of a slot to their defaults."""

    message_type: ClassVar = MessageType.RESET_PARAMETERS


@dataclass(frozen=True, slots=True)
class SetParameters(_Command):
    """Set the parameters of a slot.

    Attributes:
        parameters: abProtocolDataStructure; its type is bProtocolNum.
    """

    message_type: ClassVar = MessageType.SET_PARAMETERS
    parameters: ProtocolParameters


@dataclass(frozen=True, slots=True)
class Escape(_Command):
    """A command that the vendor of the reader has defined.

    Attributes:
        data: abData.
    """

    message_type: ClassVar = MessageType.ESCAPE
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class IccClock(_Command):
    """Stop or restart a card's clock.

    Attributes:
        clock_command: bClockCommand.
    """

    message_type: ClassVar = MessageType.ICC_CLOCK
    clock_command: ClockCommand


@dataclass(frozen=True, slots=True)
class T0Apdu(_Command):
    """Choose the class bytes that the reader uses when it sends APDUs by T=0.

    Attributes:
        changes: bmChanges: which of the two are changed; the others are to be ignored.
        class_get_response: bClassGetResponse; FFh repeats that of the APDU.
        class_envelope: bClassEnvelope; FFh repeats that of the APDU.
    """

    message_type: ClassVar = MessageType.T0_APDU
    changes: T0Changes
    class_get_response: int = 0
    class_envelope: int = 0


@dataclass(frozen=True, slots=True)
class Secure(_Command):
    """Have a PIN entered at the reader.

    Attributes:
        data: abData: bPINOperation and what belongs to it, for `decode_pin_operation`. It stays
            encoded here because a reader without PIN support does not care, and because at the
            extended APDU level it may be a piece.
        bwi: bBWI, as in `XfrBlock`.
        level: wLevelParameter, as in `XfrBlock`.
    """

    message_type: ClassVar = MessageType.SECURE
    data: bytes = field(repr=False)
    bwi: int = 0
    level: int = 0


@dataclass(frozen=True, slots=True)
class Mechanical(_Command):
    """Move or lock a card.

    Attributes:
        function: bFunction.
    """

    message_type: ClassVar = MessageType.MECHANICAL
    function: MechanicalFunction


@dataclass(frozen=True, slots=True)
class Abort(_Command):
    """One half of an abort; the other is the control request with the same slot and seq."""

    message_type: ClassVar = MessageType.ABORT


@dataclass(frozen=True, slots=True)
class SetDataRateAndClockFrequency(_Command):
    """Set a slot's clock and data rate.

    Attributes:
        clock_frequency: dwClockFrequency, kHz.
        data_rate: dwDataRate, bits per second.
    """

    message_type: ClassVar = MessageType.SET_DATA_RATE_AND_CLOCK_FREQUENCY
    clock_frequency: int
    data_rate: int


Command: TypeAlias = (
    IccPowerOn
    | IccPowerOff
    | GetSlotStatus
    | XfrBlock
    | GetParameters
    | ResetParameters
    | SetParameters
    | Escape
    | IccClock
    | T0Apdu
    | Secure
    | Mechanical
    | Abort
    | SetDataRateAndClockFrequency
)
"""A message to the reader (PC_to_RDR); the reader answers each with one `Response`."""


@dataclass(frozen=True, slots=True)
class BadMessage:
    """A message to the reader that is to be answered as failed.

    Attributes:
        message_type: bMessageType, be it known or not.
        slot: bSlot.
        seq: bSeq.
        error: the bError of the answer: the offset of the bad field, 0 if the type is unknown.
    """

    message_type: int
    slot: int
    seq: int
    error: int


@dataclass(frozen=True, slots=True)
class _Response:
    """What every message to the host has.

    Attributes:
        slot: bSlot, that of the command.
        seq: bSeq, that of the command.
        icc_status: the card's half of bStatus.
        command_status: the command's half of bStatus.
        error: bError. Of a command that failed, a `SlotError`, the offset of the bad field or a
            vendor's own code; of a time extension, the factor of the waiting time; otherwise 0.
    """

    slot: int
    seq: int
    icc_status: IccStatus
    command_status: CommandStatus = field(default=CommandStatus.OK, kw_only=True)
    error: int = field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class DataBlock(_Response):
    """The answer to IccPowerOn, XfrBlock and Secure.

    Attributes:
        data: abData: the ATR, or what the card answers, left out of the repr.
        chain: bChainParameter: at the extended APDU level a `ChainParameter`, elsewhere 0.
    """

    message_type: ClassVar = MessageType.DATA_BLOCK
    data: bytes = field(default=b"", repr=False)
    chain: int = 0


@dataclass(frozen=True, slots=True)
class SlotStatus(_Response):
    """The answer to all that gives no data, and to commands that are unknown.

    Attributes:
        clock_status: bClockStatus.
    """

    message_type: ClassVar = MessageType.SLOT_STATUS
    clock_status: ClockStatus = ClockStatus.RUNNING


@dataclass(frozen=True, slots=True)
class Parameters(_Response):
    """The answer to GetParameters, ResetParameters and SetParameters.

    Attributes:
        parameters: abProtocolDataStructure; its type is bProtocolNum. None, where the command
            failed, leaves the structure out.
    """

    message_type: ClassVar = MessageType.PARAMETERS
    parameters: ProtocolParameters | None = None


@dataclass(frozen=True, slots=True)
class EscapeResponse(_Response):
    """The answer to Escape.

    Attributes:
        data: abData.
    """

    message_type: ClassVar = MessageType.ESCAPE_RESPONSE
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class DataRateAndClockFrequency(_Response):
    """The answer to SetDataRateAndClockFrequency: what holds from now on.

    Attributes:
        clock_frequency: dwClockFrequency, kHz.
        data_rate: dwDataRate, bits per second.
    """

    message_type: ClassVar = MessageType.DATA_RATE_AND_CLOCK_FREQUENCY
    clock_frequency: int = 0
    data_rate: int = 0


Response: TypeAlias = (
    DataBlock | SlotStatus | Parameters | EscapeResponse | DataRateAndClockFrequency
)
"""A message to the host on the bulk-IN endpoint (RDR_to_PC)."""

_RESPONSES: Final[dict[int, type[Response]]] = {
    MessageType.ICC_POWER_ON: DataBlock,
    MessageType.XFR_BLOCK: DataBlock,
    MessageType.SECURE: DataBlock,
    MessageType.GET_PARAMETERS: Parameters,
    MessageType.RESET_PARAMETERS: Parameters,
    MessageType.SET_PARAMETERS: Parameters,
    MessageType.ESCAPE: EscapeResponse,
    MessageType.SET_DATA_RATE_AND_CLOCK_FREQUENCY: DataRateAndClockFrequency,
}


def response_type(message_type: int) -> type[Response]:
    """Tells which message answers those of a bMessageType; SlotStatus where it is unknown."""
    return _RESPONSES.get(message_type, SlotStatus)


def failure(command: Command | BadMessage, icc_status: IccStatus, error: int) -> Response:
    """Gives the answer to a command that failed, with no data.

    Args:
        command: what is answered.
        icc_status: the state of the card now; `ABSENT` for a slot that does not exist.
        error: bError.
    """
    return response_type(command.message_type)(
        command.slot, command.seq, icc_status, command_status=CommandStatus.FAILED, error=error
    )


@dataclass(frozen=True, slots=True)
class SlotChange:
    """One slot in a NotifySlotChange.

    Attributes:
        present: whether a card is in it.
        changed: whether that has changed since the last NotifySlotChange, be it to and fro.
    """

    present: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class NotifySlotChange:
    """Cards were put into slots or taken out (interrupt-IN).

    Attributes:
        slots: the state of every slot, from slot 0 on.
    """

    slots: tuple[SlotChange, ...]


@dataclass(frozen=True, slots=True)
class HardwareError:
    """A slot's hardware failed (interrupt-IN).

    Attributes:
        slot: bSlot.
        seq: bSeq of the command that met the failure.
        code: bHardwareErrorCode; 01h is an overcurrent.
    """

    slot: int
    seq: int
    code: int = 1


Notification: TypeAlias = NotifySlotChange | HardwareError
"""A message to the host on the interrupt-IN endpoint (RDR_to_PC)."""
