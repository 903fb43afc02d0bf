# SPDX-License-Identifier: Apache-2.0
"""The access control applet (ACA), which tells the rules of all applets.

Source: GSC-IS 2.1, 5.3.3.5.
"""

from collections.abc import Sequence
from typing import Final

from ccid_protocol.apdu import CommandAPDU, ResponseAPDU, StatusWord
from ccidd.card.application import CardError
from ccidd.card.cac import rules, simpletlv
from ccidd.card.cac.applet import Applet
from ccidd.card.cac.keys import PkiCredentials
from ccidd.card.cac.references import (
    ACA_INFORMATION,
    ACCESS_CONTROL_APPLET,
    CAC_RID,
    Instruction,
    PropertyTag,
)
from ccidd.card.cac.rules import Tag
from ccidd.card.cac.simpletlv import SimpleTlv
from ccidd.card.pin import Pin

_OBJECT_ID: Final = ACCESS_CONTROL_APPLET[-2:]

_INFORMATION: Final = SimpleTlv(PropertyTag.APPLET_INFORMATION, ACA_INFORMATION)

# In no public document; the bytes of a card in use.
_MORE_PROPERTIES: Final = (
    SimpleTlv(0x23, bytes.fromhex("201100000000000000000058")),
    SimpleTlv(0x2A, bytes.fromhex("0200")),
    SimpleTlv(0x2B, CAC_RID),
    SimpleTlv(0x22, bytes.fromhex("000000DA01B40330000000700051029D")),
    SimpleTlv(0x2C, bytes.fromhex("00")),
    SimpleTlv(0x20, bytes.fromhex("0801")),
    SimpleTlv(0x21, bytes.fromhex("0F")),
    SimpleTlv(0x32, bytes.fromhex("03030303")),
    SimpleTlv(0x30, bytes.fromhex("08")),
    SimpleTlv(0x31, bytes.fromhex("06080000")),
    SimpleTlv(0x24, bytes.fromhex("FF")),
    SimpleTlv(0x25, bytes.fromhex("0100")),
    SimpleTlv(PropertyTag.OBJECT_26, bytes.fromhex("01")),
)

_COMPACT: Final = 0x40
"""In P1 of GET ACR: the table is wanted in the compact form."""

# The bytes of data that a GET ACR has by its P1.
_DATA_SIZES: Final = {
    **dict.fromkeys((0x00, 0x10, 0x20, 0x21), 0),
    **dict.fromkeys((0x40, 0x41, 0x50, 0x51, 0x52, 0x60, 0x61), 0),
    0x01: 1,
    0x11: 7,
    0x12: 2,
}


class AccessControlApplet(Applet):
    """The ACA.

    Args:
        credentials: the card's keys, of which each has an applet with rules.
        pin: the card's PIN.
    """

    def __init__(self, credentials: PkiCredentials, pin: Pin) -> None:
        super().__init__(ACCESS_CONTROL_APPLET, pin)
        self._credentials = credentials

    @property
    def object_ids(self) -> Sequence[bytes]:
        """See `Applet.object_ids`."""
        return (_OBJECT_ID,)

    def properties(self) -> Sequence[SimpleTlv]:
        """See `Applet.properties`."""
        return (_INFORMATION,)

    def more_properties(self) -> Sequence[SimpleTlv]:
        """See `Applet.more_properties`."""
        return _MORE_PROPERTIES

    async def process_own(self, command: CommandAPDU) -> ResponseAPDU:
        """See `GscApplication.process_own`."""
        if command.ins == Instruction.GET_ACR:
            return ResponseAPDU(self._get_acr(command))
        return await super().process_own(command)

    def _get_acr(self, command: CommandAPDU) -> bytes:
        """GET ACR; P1 says which table or which of its entries."""
        if command.p2:
            raise CardError(StatusWord.INCORRECT_P1_P2)
        if command.p1 not in _DATA_SIZES:
            raise CardError(StatusWord.COMMAND_NOT_ALLOWED)
        if len(command.data) != _DATA_SIZES[command.p1]:
            raise CardError(StatusWord.REFERENCE_DATA_NOT_USABLE)
        count = len(self._credentials())
        if command.p1 & _COMPACT:
            return _compact_table(command.p1, count)
        if command.data:
            return simpletlv.encode(_INFORMATION, _entry(command.p1, command.data, count))
        return simpletlv.encode(_INFORMATION, *_table(command.p1, count))


def _compact_table(p1: int, count: int) -> bytes:
    match p1:
        case 0x40 | 0x41:
            return b"".join(rule.encode_compact() for rule in rules.RULES)
        case 0x60:
            return rules.COMPACT_PROVIDERS
        case 0x61:
            applets = rules.service_applets(count).items()
            return b"".join(bytes([n, 0x00, len(aid)]) + aid for n, aid in applets)
        case _:
            return b"".join(applet.encode_compact() for applet in rules.applet_rules(count))


def _table(p1: int, count: int) -> list[SimpleTlv]:
    """Gives the data objects of a whole table: how many entries, and the entries."""
    match p1:
        case 0x00:
            tags = Tag.NUMBER_OF_RULES, Tag.RULE
            entries = [rule.encode() for rule in rules.RULES]
        case 0x10:
            tags = Tag.NUMBER_OF_APPLETS, Tag.APPLET_RULES
            entries = [applet.encode() for applet in rules.applet_rules(count)]
        case 0x20:
            tags = Tag.NUMBER_OF_PROVIDERS, Tag.PROVIDER
            entries = [_named(provider, ACCESS_CONTROL_APPLET) for provider in rules.PROVIDERS]
        case _:
            tags = Tag.NUMBER_OF_SERVICE_APPLETS, Tag.SERVICE_APPLET
            entries = [_named(n, aid) for n, aid in rules.service_applets(count).items()]
    number_tag, entry_tag = tags
    number = SimpleTlv(number_tag, bytes([len(entries)]))
    return [number, *(SimpleTlv(entry_tag, entry) for entry in entries)]


def _entry(p1: int, data: bytes, count: int) -> SimpleTlv:
    """Gives the data object of one entry: of a rule, an applet or an object."""
    otherwise = StatusWord.REFERENCED_DATA_NOT_FOUND
    applets = rules.applet_rules(count)
    match p1:
        case 0x01:
            tag = Tag.RULE
            found = [rule.encode() for rule in rules.RULES if rule.identifier == data[0]]
        case 0x11:
            tag = Tag.APPLET_RULES
            numbers = {aid: number for number, aid in rules.service_applets(count).items()}
            found = [a.encode() for a in applets if a.number == numbers.get(data)]
        case _:
            tag = Tag.OBJECT_RULES
            found = [o.encode() for a in applets for o in a.objects if o.object_id == data]
            otherwise = StatusWord.INCORRECT_DATA
    if not found:
        raise CardError(otherwise)
    return SimpleTlv(tag, found[0])


def _named(number: int, aid: bytes) -> bytes:
    return bytes([number]) + simpletlv.encode(SimpleTlv(Tag.APPLET_IDENTIFIER, aid))
