# SPDX-License-Identifier: Apache-2.0
"""Containers: applets with objects that are read through a T-buffer and a V-buffer.

Source: GSC-IS 2.1, 5.3 (READ BUFFER), 8.4 (buffers) and appendix D (the data model of the CAC).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from ccid_protocol.apdu import CommandAPDU, ResponseAPDU, StatusWord
from ccidd.card.application import CardError
from ccidd.card.cac import rules, simpletlv
from ccidd.card.cac.applet import Applet
from ccidd.card.cac.references import (
    ACCESS_CONTROL_FILE,
    APPLET_INFORMATION,
    CAC_RID,
    Instruction,
    PropertyTag,
)
from ccidd.card.cac.simpletlv import Buffers, SimpleTlv
from ccidd.card.pin import Pin

INFORMATION: Final = SimpleTlv(PropertyTag.APPLET_INFORMATION, APPLET_INFORMATION)

SIMPLE_TLV: Final = 0x00
"""The kind of tags in a container."""

_UNSPECIFIED_TAGS: Final = 0x01

_EMPTY: Final = Buffers.holding(())

_PRETENDED_SIZES: Final = bytes.fromhex("60006000")
"""What containers that hold nothing say of their buffers' sizes."""

_FOR_OPENSC: Final = SimpleTlv(0x27, b"\x00")
"""It means nothing, but OpenSC reads only objects whose properties have 17 bytes."""

# Data of READ BUFFER: which buffer, and how many bytes.
_READ_DATA_SIZE: Final = 2


class Container(Applet):
    """An applet whose objects can be read."""

    update_refusal: int = StatusWord.COMMAND_NOT_ALLOWED
    """The status word of an UPDATE BUFFER."""

    def buffers(self) -> Buffers:
        """Gives the buffers of the selected object."""
        raise NotImplementedError

    async def process_own(self, command: CommandAPDU) -> ResponseAPDU:
        """See `GscApplication.process_own`."""
        match command.ins:
            case Instruction.READ_BUFFER:
                return ResponseAPDU(self._read_buffer(command))
            case Instruction.UPDATE_BUFFER:
                raise CardError(self.update_refusal)
            case _:
                return await super().process_own(command)

    def check_may_read_values(self) -> None:
        """Holds the rule for reading the V-buffer.

        Raises:
            CardError: It is not satisfied.
        """

    def _read_buffer(self, command: CommandAPDU) -> bytes:
        """READ BUFFER, from the offset in P1 and P2."""
        if len(command.data) != _READ_DATA_SIZE:
            raise CardError(StatusWord.REFERENCE_DATA_NOT_USABLE)
        which, size = command.data
        match which:
            case rules.TAGS:
                buffer = self.buffers().tags
            case rules.VALUES:
                self.check_may_read_values()
                buffer = self.buffers().values
            case _:
                raise CardError(StatusWord.REFERENCE_DATA_NOT_USABLE)
        offset = command.p1 << 8 | command.p2
        if offset > len(buffer):
            raise CardError(StatusWord.INCORRECT_P1_P2)
        return buffer[offset : offset + size]


def buffer_properties(object_id: bytes, buffers: Buffers) -> list[SimpleTlv]:
    """Gives what properties say of an object that holds SIMPLE-TLV data objects."""
    return [
        SimpleTlv(PropertyTag.OBJECT_ID, object_id),
        SimpleTlv(PropertyTag.BUFFER_PROPERTIES, bytes([SIMPLE_TLV]) + buffers.sizes()),
    ]


@dataclass(frozen=True, slots=True)
class ContainerKind:
    """One of the containers that every card has, whether there is something in it or not.

    Attributes:
        aid: the applet's identifier.
        object_ids: the objects in it.
        tags: the kind of tags in it.
    """

    aid: bytes
    object_ids: tuple[bytes, ...]
    tags: int = _UNSPECIFIED_TAGS


def _kind(number: str, tags: int = _UNSPECIFIED_TAGS) -> ContainerKind:
    object_id = bytes.fromhex(number)
    return ContainerKind(CAC_RID + object_id, (object_id,), tags)


KINDS: Final = (
    *(ContainerKind(CAC_RID + bytes.fromhex(number), ()) for number in ("02F0", "02F1", "02F2")),
    _kind("02FB"),
    _kind("02FE"),  # PKI Certificate
    _kind("02FD"),  # PKI Credential
    _kind("0200", SIMPLE_TLV),  # Person Instance
    _kind("0201", SIMPLE_TLV),  # Personnel
    _kind("1201"),
    _kind("1202"),
    ContainerKind(
        ACCESS_CONTROL_FILE, tuple(bytes.fromhex(n) for n in ("3000", "6010", "6030", "9000"))
    ),
)


Contents: TypeAlias = Callable[[bytes], Sequence[SimpleTlv] | None]
"""Gives the data objects in an object by its identifier, and None if it holds nothing."""


class GeneralContainer(Container):
    """A container of that kind.

    Args:
        kind: which one.
        contents: gives what is in it.
        pin: the card's PIN.
    """

    def __init__(self, kind: ContainerKind, contents: Contents, pin: Pin) -> None:
        super().__init__(kind.aid, pin)
        self._kind = kind
        self._contents = contents
        self._selected = 0

    @property
    def object_ids(self) -> Sequence[bytes]:
        """See `Applet.object_ids`."""
        return self._kind.object_ids

    def select(self) -> bytes:
        """See `Application.select`."""
        self._selected = 0
        return super().select()

    def select_object(self, object_id: bytes) -> None:
        """See `Applet.select_object`."""
        self._selected = self.object_ids.index(object_id)

    def properties(self) -> Sequence[SimpleTlv]:
        """See `Applet.properties`."""
        number = SimpleTlv(PropertyTag.NUMBER_OF_OBJECTS, bytes([len(self.object_ids)]))
        return (INFORMATION, number, *map(self._object_properties, self.object_ids))

    def more_properties(self) -> Sequence[SimpleTlv]:
        """See `Applet.more_properties`."""
        return ()

    def buffers(self) -> Buffers:
        """See `Container.buffers`."""
        if not self.object_ids:
            return _EMPTY
        return Buffers.holding(self._contents(self.object_ids[self._selected]) or ())

    def check_may_read_values(self) -> None:
        """See `Container.check_may_read_values`: what is not there needs no PIN."""
        if self._pin.verified or not self.object_ids:
            return
        object_id = self.object_ids[self._selected]
        if self._contents(object_id) is not None and rules.values_need_pin(object_id):
            raise CardError(StatusWord.SECURITY_STATUS_NOT_SATISFIED)

    def _object_properties(self, object_id: bytes) -> SimpleTlv:
        unknown = SimpleTlv(PropertyTag.OBJECT_26, b"\x01")
        objects = self._contents(object_id)
        if objects is not None:
            about = buffer_properties(object_id, Buffers.holding(objects))
            about += [unknown, _FOR_OPENSC]
        else:
            kind = bytes([self._kind.tags])
            about = [
                SimpleTlv(PropertyTag.OBJECT_ID, object_id),
                SimpleTlv(PropertyTag.BUFFER_PROPERTIES, kind + _PRETENDED_SIZES),
                unknown,
            ]
        return SimpleTlv(PropertyTag.BUFFER_OBJECT, simpletlv.encode(*about))
