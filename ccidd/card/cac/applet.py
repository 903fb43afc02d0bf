# SPDX-License-Identifier: Apache-2.0
"""What the applets of a CAC have in common.

Source: GSC-IS 2.1, 5.3: 5.3.3.2 (SELECT APPLET), 5.3.3.4 (GET PROPERTIES). The status words, where
the specification leaves a choice, are those of libcacard, which clients have been tried with; it
has no GET CHALLENGE and CHANGE REFERENCE DATA, which cards in use have and clients know.
"""

import enum
import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Final

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, ResponseAPDU, StatusWord, wrong_le
from ccid_protocol.apdu import Instruction as IsoInstruction
from ccidd.card.application import Application, CardError
from ccidd.card.cac import simpletlv
from ccidd.card.cac.references import ACCESS_CONTROL_APPLET, Instruction, PropertyTag
from ccidd.card.cac.simpletlv import SimpleTlv
from ccidd.card.pin import PIN_PADDING, PIN_SIZE, Pin, is_well_formed

# Classes by their upper halves: with a secure messaging and channel in the lower half, or without.
_CLASSES_WITH_CHANNEL: Final = {0x00, 0x80, 0x90, 0xA0}
_CLASSES_WITHOUT_CHANNEL: Final = {0xB0, 0xC0}
_SECURE_MESSAGING_OR_CHANNEL: Final = 0x0E

_CHALLENGE_SIZE: Final = 8

_SELECT_OBJECT: Final = 0x02
_OBJECT_ID_SIZE: Final = 2


class _Wanted(enum.IntEnum):
    """P1 of GET PROPERTIES."""

    ALL = 0x01
    BY_TAGS = 0x02
    MORE = 0x40


_MORE_PROPERTIES: Final = (
    SimpleTlv(PropertyTag.APPLET_39, b"\x00"),
    SimpleTlv(PropertyTag.ACCESS_CONTROL_APPLET, ACCESS_CONTROL_APPLET),
)


class GscApplication(Application):
    """Anything on a CAC that takes commands.

    Args:
        aid: its identifier; empty for the card itself, while nothing is selected.
        pin: the card's PIN. Once verified it stays so until the card is reset.
    """

    unknown_instruction: int = StatusWord.COMMAND_NOT_ALLOWED
    """The status word of an instruction that it does not have."""

    def __init__(self, aid: bytes, pin: Pin) -> None:
        self.aid: Final = aid
        self._pin: Final = pin

    def is_selected_by(self, aid: bytes) -> bool:
        """See `Application.is_selected_by`: the whole identifier, and nothing else."""
        return bool(aid) and aid == self.aid

    def select(self) -> bytes:
        """See `Application.select`: a file control information template."""
        return tlv.encode(0x6F, tlv.encode(0x84, self.aid), tlv.encode(0xA5))

    def deselect(self) -> None:
        """See `Application.deselect`; the PIN stays verified."""

    def reset(self) -> None:
        """See `Application.reset`."""
        self.deselect()
        self._pin.end()

    def check_class(self, cla: int) -> None:
        """See `Application.check_class`.

        GSC-IS commands have the class 80, but clients use 00 as well. Others are taken because
        libcacard takes them; none means a chain, and all are for the basic channel.
        """
        group = cla & 0xF0
        if group in _CLASSES_WITHOUT_CHANNEL:
            return
        if group not in _CLASSES_WITH_CHANNEL:
            raise CardError(StatusWord.COMMAND_NOT_ALLOWED)
        if cla & _SECURE_MESSAGING_OR_CHANNEL:
            raise CardError(StatusWord.SECURE_MESSAGING_NOT_SUPPORTED)

    async def select_within(self, command: CommandAPDU) -> ResponseAPDU:  # noqa: ARG002 (applets do)
        """See `Application.select_within`."""
        raise CardError(StatusWord.FUNCTION_NOT_SUPPORTED)

    async def process(self, command: CommandAPDU) -> ResponseAPDU:
        """See `Application.process`."""
        if command.ins == IsoInstruction.VERIFY:
            await self._verify(command)
            return ResponseAPDU()
        if command.ins == IsoInstruction.CHANGE_REFERENCE_DATA and self.aid:
            await self._change_reference_data(command)
            return ResponseAPDU()
        if command.ins == Instruction.GET_CHALLENGE and self.aid:
            return ResponseAPDU(_get_challenge(command))
        return await self.process_own(command)

    async def process_own(self, command: CommandAPDU) -> ResponseAPDU:  # noqa: ARG002 (others use it)
        """Carries out a command other than those that all have.

        Raises:
            CardError: The command is refused.
        """
        raise CardError(self.unknown_instruction)

    async def _verify(self, command: CommandAPDU) -> None:
        """VERIFY; without data it asks whether the PIN is verified.

        What a PIN may be is for its memory to say: that of a token is not always a number, and one
        that is longer than `PIN_SIZE` comes as it is.
        """
        if command.p1 or command.p2:
            raise CardError(StatusWord.WRONG_PARAMETERS)
        if not command.data:
            await self._pin.check_status()
            return
        pin = command.data.rstrip(PIN_PADDING)
        await self._pin.verify(pin.ljust(PIN_SIZE, PIN_PADDING))

    async def _change_reference_data(self, command: CommandAPDU) -> None:
        """CHANGE REFERENCE DATA: the PIN, then the new one."""
        if command.p1 or command.p2:
            raise CardError(StatusWord.WRONG_PARAMETERS)
        await self._pin.check_not_blocked()
        if len(command.data) != 2 * PIN_SIZE:
            raise CardError(StatusWord.WRONG_LENGTH)
        current, new = command.data[:PIN_SIZE], command.data[PIN_SIZE:]
        if not is_well_formed(new, numeric=not self._pin.memory.is_token_pin):
            raise CardError(StatusWord.INCORRECT_DATA)
        await self._pin.change(current, new)


def _get_challenge(command: CommandAPDU) -> bytes:
    """GET CHALLENGE; hosts take random numbers from it."""
    if command.p1 or command.p2:
        raise CardError(StatusWord.INCORRECT_P1_P2)
    if command.data:
        raise CardError(StatusWord.WRONG_LENGTH)
    return os.urandom(_CHALLENGE_SIZE)


class Applet(GscApplication):
    """An applet of the GSC-IS, with objects and properties."""

    unknown_instruction: int = StatusWord.INSTRUCTION_NOT_SUPPORTED

    @property
    @abstractmethod
    def object_ids(self) -> Sequence[bytes]:
        """The identifiers of the objects in it, two bytes each; the first one is selected first."""

    @abstractmethod
    def properties(self) -> Sequence[SimpleTlv]:
        """Gives its properties."""

    def more_properties(self) -> Sequence[SimpleTlv]:
        """Gives the properties that no public document has."""
        return _MORE_PROPERTIES

    def select_object(self, object_id: bytes) -> None:
        """Selects one of the objects."""

    async def select_within(self, command: CommandAPDU) -> ResponseAPDU:
        """See `Application.select_within`: selects an object by its identifier."""
        if command.p1 != _SELECT_OBJECT:
            raise CardError(StatusWord.FUNCTION_NOT_SUPPORTED)
        if len(command.data) != _OBJECT_ID_SIZE:
            raise CardError(StatusWord.REFERENCE_DATA_NOT_USABLE)
        if command.data not in self.object_ids:
            raise CardError(StatusWord.NOT_FOUND)
        self.select_object(command.data)
        return ResponseAPDU()

    async def process_own(self, command: CommandAPDU) -> ResponseAPDU:
        """See `GscApplication.process_own`."""
        if command.ins == Instruction.GET_PROPERTIES:
            return ResponseAPDU(self._get_properties(command))
        return await super().process_own(command)

    def _get_properties(self, command: CommandAPDU) -> bytes:
        """GET PROPERTIES; a host that does not know the length is told it by 6CXX."""
        if command.p2:
            raise CardError(StatusWord.INCORRECT_P1_P2)
        properties = self.properties()
        match command.p1:
            case _Wanted.ALL if not command.data:
                chosen = properties
            case _Wanted.BY_TAGS if command.data:
                chosen = [_find(properties, tag) for tag in command.data]
            case _Wanted.ALL | _Wanted.BY_TAGS:
                raise CardError(StatusWord.REFERENCE_DATA_NOT_USABLE)
            case _Wanted.MORE:
                chosen = (*properties, *self.more_properties())
            case _:
                raise CardError(StatusWord.INCORRECT_P1_P2)
        content = simpletlv.encode(*chosen)
        if command.ne > len(content):
            raise CardError(wrong_le(len(content)))
        return content


def _find(properties: Sequence[SimpleTlv], tag: int) -> SimpleTlv:
    for tlv_object in properties:
        if tlv_object.tag == tag:
            return tlv_object
    raise CardError(StatusWord.REFERENCED_DATA_NOT_FOUND)
