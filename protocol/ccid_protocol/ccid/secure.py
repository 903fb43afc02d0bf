# SPDX-License-Identifier: Apache-2.0
"""PIN entry at the reader: what the data of PC_to_RDR_Secure holds.

Source: USB CCID Rev 1.1, 6.1.11 (PC_to_RDR_Secure), 6.1.11.7 (PIN verification) and 6.1.11.8 (PIN
modification); for the number of bMsgIndex fields, which the text leaves open, what libccid
sends. Integers are little-endian.
"""

import enum
import struct
from dataclasses import dataclass, field
from typing import Final, Self, TypeAlias

from ccid_protocol.ccid.fields import BadFieldError, Offset, enumerated, pack
from ccid_protocol.ccid.pinblock import MAX_DATA, PinFormat, PinTemplate
from ccid_protocol.errors import LocalProtocolError
from ccid_protocol.usb import LANGUAGE_ENGLISH_US

DEFAULT_MESSAGES: Final = 0xFF
"""bNumberMessage: the reader shows messages of its own choice."""

# 6.1.11.7, behind bPINOperation: bTimeOut, bmFormatString, bmPINBlockString, bmPINLengthFormat,
# wPINMaxExtraDigit in two bytes, bEntryValidationCondition, bNumberMessage, wLangId, bMsgIndex,
# bTeoPrologue
_VERIFICATION: Final = struct.Struct("<8BHB3s")
# 6.1.11.8, behind bPINOperation: bTimeOut, bmFormatString, bmPINBlockString, bmPINLengthFormat,
# bInsertionOffsetOld, bInsertionOffsetNew, wPINMaxExtraDigit in two bytes, bConfirmPIN,
# bEntryValidationCondition, bNumberMessage, wLangId; bMsgIndex1 to 3 and bTeoPrologue follow
_MODIFICATION: Final = struct.Struct("<11BH")

_PROLOGUE_SIZE: Final = 3
_CONFIRM: Final = 0x01
_ASK_CURRENT: Final = 0x02


class PinOperation(enum.IntEnum):
    """bPINOperation, the first byte of the data."""

    VERIFICATION = 0
    MODIFICATION = 1
    TRANSFER = 2
    WAIT_ICC_RESPONSE = 3
    CANCEL = 4
    RESEND_LAST_BLOCK = 5
    SEND_NEXT_PART = 6


_OPERATIONS_WITH_DATA: Final = frozenset({PinOperation.TRANSFER, PinOperation.SEND_NEXT_PART})


class EntryValidation(enum.IntFlag):
    """bEntryValidationCondition: when an entry is complete."""

    MAX_SIZE_REACHED = 1
    KEY_PRESSED = 2
    TIMEOUT = 4


class _Verification(enum.IntEnum):
    """Where fields of a verification stand in the message, as bError names them."""

    MAX_EXTRA_DIGIT = Offset.DATA + 5
    ENTRY_VALIDATION = Offset.DATA + 7
    NUMBER_MESSAGE = Offset.DATA + 8
    APDU = Offset.DATA + 15


class _Modification(enum.IntEnum):
    """Where fields of a modification stand in the message, as bError names them."""

    INSERTION_OFFSET_NEW = Offset.DATA + 6
    MAX_EXTRA_DIGIT = Offset.DATA + 7
    CONFIRM_PIN = Offset.DATA + 9
    ENTRY_VALIDATION = Offset.DATA + 10
    NUMBER_MESSAGE = Offset.DATA + 11


# How many bMsgIndex fields a modification has, by its bNumberMessage.
_MESSAGE_INDICES: Final[dict[int, int]] = {0: 1, 1: 2, 2: 2, 3: 3, DEFAULT_MESSAGES: 3}


@dataclass(frozen=True, slots=True)
class _PinEntry:
    """What a verification and a modification have in common.

    Attributes:
        template: abPINApdu, the APDU that the PIN is written into.
        format: how it is written.
        min_digits: the fewest digits of a PIN, the upper byte of wPINMaxExtraDigit.
        max_digits: the most digits, its lower byte; but see `longest`.
        timeout: bTimeOut, seconds; 0 for the reader's own choice.
        validation: when an entry is complete.
        number_messages: bNumberMessage: how many messages are shown, or `DEFAULT_MESSAGES`.
        language: wLangId, the messages' LANGID.
        teo_prologue: bTeoPrologue: NAD, PCB and LEN of the T=1 block, at the TPDU level.
    """

    template: PinTemplate
    format: PinFormat
    min_digits: int
    max_digits: int
    timeout: int = field(default=0, kw_only=True)
    validation: EntryValidation = field(default=EntryValidation.KEY_PRESSED, kw_only=True)
    number_messages: int = field(default=1, kw_only=True)
    language: int = field(default=LANGUAGE_ENGLISH_US, kw_only=True)
    teo_prologue: bytes = field(default=bytes(_PROLOGUE_SIZE), kw_only=True)

    @property
    def room(self) -> int:
        """Bytes of the data field that a PIN block without a size of its own may have."""
        return MAX_DATA

    @property
    def longest(self) -> int:
        """The most digits that the host allows and that fit their place."""
        return min(self.max_digits, self.format.capacity(self.room))

    def accepts(self, pin: bytes) -> bool:
        """Tells whether a PIN, in ASCII, has a length and characters that are allowed here."""
        return self.min_digits <= len(pin) <= self.longest and self.format.allows(pin)

    def _check_pin(self, pin: bytes) -> None:
        if not self.accepts(pin):
            raise LocalProtocolError("a PIN that the host's request does not allow")

    def _check_digits(self, offset: int) -> None:
        if not self.max_digits or self.min_digits > self.longest:
            raise BadFieldError(offset)


@dataclass(frozen=True, slots=True)
class PinVerification(_PinEntry):
    """One PIN is asked for and sent to the card.

    Attributes:
        message_index: bMsgIndex: which of the reader's messages is shown.
    """

    message_index: int = field(default=0, kw_only=True)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Reads what follows bPINOperation.

        Raises:
            BadFieldError: A field is bad, or there are too few bytes.
        """
        if len(data) < _VERIFICATION.size:
            raise BadFieldError(Offset.LENGTH)
        timeout, *formats, longest, shortest, condition, number, language, index, prologue = (
            _VERIFICATION.unpack_from(data)
        )
        pin_format = PinFormat.decode(*formats)
        if number not in {0, 1, DEFAULT_MESSAGES}:
            raise BadFieldError(_Verification.NUMBER_MESSAGE)
        verification = cls(
            PinTemplate.decode(data[_VERIFICATION.size :], _Verification.APDU),
            pin_format,
            shortest,
            longest,
            timeout=timeout,
            validation=_decode_validation(condition, _Verification.ENTRY_VALIDATION),
            number_messages=number,
            language=language,
            message_index=index,
            teo_prologue=prologue,
        )
        verification._check_digits(_Verification.MAX_EXTRA_DIGIT)
        return verification

    def encode(self) -> bytes:
        """Gives the data of the message, bPINOperation included.

        Raises:
            LocalProtocolError: A field does not fit its bytes, or `decode` would refuse it.
        """
        fields = pack(
            _VERIFICATION,
            self.timeout,
            *self.format.encode(),
            self.max_digits,
            self.min_digits,
            self.validation,
            self.number_messages,
            self.language,
            self.message_index,
            self.teo_prologue,
        )
        return _checked(PinOperation.VERIFICATION, fields + self.template.encode())

    def command(self, pin: bytes) -> bytes:
        """Gives the APDU for the card.

        Args:
            pin: the PIN in ASCII.

        Raises:
            LocalProtocolError: `accepts` is false for the PIN, or the APDU would be too long.
        """
        self._check_pin(pin)
        return self.template.encode(self.format.insert(pin, self.template.data))


@dataclass(frozen=True, slots=True)
class PinModification(_PinEntry):
    """A new PIN, and perhaps the current one, is asked for and sent to the card.

    Attributes:
        insertion_offset_old: bInsertionOffsetOld: the byte of the data field from which the
            current PIN's positions count, if it is asked for.
        insertion_offset_new: bInsertionOffsetNew: the same for the new PIN.
        asks_current: whether the current PIN is asked for (bConfirmPIN, bit 1).
        confirms: whether the new PIN is asked for twice (bConfirmPIN, bit 0).
        message_indices: bMsgIndex1 to bMsgIndex3, as many as `number_messages` calls for: one for
            0, two for 1 and 2, three for 3 and FFh.
    """

    insertion_offset_old: int = field(default=0, kw_only=True)
    insertion_offset_new: int = field(default=0, kw_only=True)
    asks_current: bool = field(default=True, kw_only=True)
    confirms: bool = field(default=True, kw_only=True)
    number_messages: int = field(default=3, kw_only=True)
    message_indices: tuple[int, ...] = field(default=(0, 1, 2), kw_only=True)

    @property
    def room(self) -> int:
        """Bytes of the data field that a PIN block without a size of its own may have."""
        if not self.asks_current:
            return MAX_DATA - self.insertion_offset_new
        return (MAX_DATA - max(self.insertion_offset_old, self.insertion_offset_new)) // 2

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Reads what follows bPINOperation.

        Raises:
            BadFieldError: A field is bad, or there are too few bytes.
        """
        if len(data) < _MODIFICATION.size:
            raise BadFieldError(Offset.LENGTH)
        timeout, *formats, old, new, longest, shortest, confirm, condition, number, language = (
            _MODIFICATION.unpack_from(data)
        )
        pin_format = PinFormat.decode(*formats)
        if confirm & ~(_CONFIRM | _ASK_CURRENT):
            raise BadFieldError(_Modification.CONFIRM_PIN)
        if number not in _MESSAGE_INDICES:
            raise BadFieldError(_Modification.NUMBER_MESSAGE)
        prologue = _MODIFICATION.size + _MESSAGE_INDICES[number]
        apdu = prologue + _PROLOGUE_SIZE
        modification = cls(
            # bPINOperation, which `data` is without, is one byte more.
            PinTemplate.decode(data[apdu:], Offset.DATA + 1 + apdu),
            pin_format,
            shortest,
            longest,
            timeout=timeout,
            insertion_offset_old=old,
            insertion_offset_new=new,
            asks_current=bool(confirm & _ASK_CURRENT),
            confirms=bool(confirm & _CONFIRM),
            validation=_decode_validation(condition, _Modification.ENTRY_VALIDATION),
            number_messages=number,
            language=language,
            message_indices=tuple(data[_MODIFICATION.size : prologue]),
            teo_prologue=data[prologue:apdu],
        )
        modification._check_places()
        modification._check_digits(_Modification.MAX_EXTRA_DIGIT)
        return modification

    def encode(self) -> bytes:
        """Gives the data of the message, bPINOperation included.

        Raises:
            LocalProtocolError: A field does not fit its bytes, or `decode` would refuse it.
        """
        indices = self.message_indices
        if len(indices) != _MESSAGE_INDICES.get(self.number_messages):
            raise LocalProtocolError(
                f"{len(indices)} message indices with bNumberMessage {self.number_messages}"
            )
        fields = pack(
            _MODIFICATION,
            self.timeout,
            *self.format.encode(),
            self.insertion_offset_old,
            self.insertion_offset_new,
            self.max_digits,
            self.min_digits,
            _ASK_CURRENT * self.asks_current | _CONFIRM * self.confirms,
            self.validation,
            self.number_messages,
            self.language,
        )
        fields += pack(struct.Struct(f"<{len(indices)}B3s"), *indices, self.teo_prologue)
        return _checked(PinOperation.MODIFICATION, fields + self.template.encode())

    def command(self, new: bytes, current: bytes | None = None) -> bytes:
        """Gives the APDU for the card.

        Blocks without a size of their own follow each other: the new PIN stands behind the current
        one, wherever that ends, and not before its own insertion offset.

        Args:
            new: the new PIN in ASCII.
            current: the current PIN in ASCII, if and only if it is asked for.

        Raises:
            LocalProtocolError: `accepts` is false for a PIN, the current one is missing or too
                much, or the APDU would be too long.
        """
        if (current is not None) != self.asks_current:
            raise LocalProtocolError("a current PIN that was not asked for, or none that was")
        data = self.template.data
        offset = self.insertion_offset_new
        if current is not None:
            self._check_pin(current)
            data = self.format.insert(current, data, self.insertion_offset_old)
            if not self.format.block_size:
                offset = max(offset, self.insertion_offset_old + self.format.size(len(current)))
        self._check_pin(new)
        return self.template.encode(self.format.insert(new, data, offset))

    def _check_places(self) -> None:
        """Refuses blocks of a fixed size that overlap, or do not fit an APDU."""
        size = self.format.size(0)
        offsets = [self.insertion_offset_new]
        if self.asks_current:
            offsets.append(self.insertion_offset_old)
        overlap = self.asks_current and abs(offsets[0] - offsets[1]) < size
        if max(offsets) + size > MAX_DATA or (self.format.block_size and overlap):
            raise BadFieldError(_Modification.INSERTION_OFFSET_NEW)


@dataclass(frozen=True, slots=True)
class OtherPinOperation:
    """An operation with a stored PIN, or that goes on with, or ends, what another has begun.

    Attributes:
        operation: bPINOperation, neither a verification nor a modification.
        data: what follows it, left out of the repr: a template for a transfer, a piece of an APDU
            for the next part; else nothing.
    """

    operation: PinOperation
    data: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """Gives the data of the message, bPINOperation included.

        Raises:
            LocalProtocolError: There is data for an operation that has none.
        """
        return _checked(self.operation, self.data)


PinRequest: TypeAlias = PinVerification | PinModification | OtherPinOperation


def decode_pin_request(data: bytes) -> PinRequest:
    """Reads the data of a whole PC_to_RDR_Secure.

    Raises:
        BadFieldError: A field is bad. Its offset is the bError that answers the message.
    """
    if not data:
        raise BadFieldError(Offset.LENGTH)
    operation = enumerated(PinOperation, data[0], Offset.DATA)
    if operation is PinOperation.VERIFICATION:
        return PinVerification.decode(data[1:])
    if operation is PinOperation.MODIFICATION:
        return PinModification.decode(data[1:])
    if len(data) > 1 and operation not in _OPERATIONS_WITH_DATA:
        raise BadFieldError(Offset.LENGTH)
    return OtherPinOperation(operation, data[1:])


def _decode_validation(condition: int, offset: int) -> EntryValidation:
    if not 1 <= condition <= sum(EntryValidation):
        raise BadFieldError(offset)
    return EntryValidation(condition)


def _checked(operation: PinOperation, fields: bytes) -> bytes:
    """Refuses to send what this program would refuse to receive."""
    data = bytes([operation]) + fields
    try:
        decode_pin_request(data)
    except BadFieldError as error:
        raise LocalProtocolError(f"a bad field at offset {error.offset}") from error
    return data
