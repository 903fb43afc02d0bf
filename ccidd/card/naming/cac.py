# SPDX-License-Identifier: Apache-2.0
"""Names of what a CAC has.

Source: GSC-IS 2.1, 5.3 (commands) and appendix D (data model).
"""

from typing import Final

from ccid_protocol.apdu import CommandAPDU
from ccid_protocol.apdu import Instruction as IsoInstruction
from ccidd.card.cac.references import (
    ACCESS_CONTROL_APPLET,
    ACCESS_CONTROL_FILE,
    CAC_RID,
    CARD_CAPABILITY_CONTAINER,
    Instruction,
)
from ccidd.card.guard.operations import Judgement

_APPLETS: Final = {
    ACCESS_CONTROL_APPLET: "access control applet",
    ACCESS_CONTROL_FILE: "access control file",
    CARD_CAPABILITY_CONTAINER: "card capability container",
}

_OBJECTS: Final = {
    0x0200: "person instance container",
    0x0201: "personnel container",
    0x0202: "benefits container",
    0x0203: "other benefits container",
    0x02FD: "PKI credential container",
    0x02FE: "PKI certificate container",
    0xDB00: "card capability container",
}

_PKI: Final = 0x01
_PKI_NAMES: Final = {0x00: "identity key", 0x01: "email signature key", 0x02: "encryption key"}

_BUFFERS: Final = {0x01: "tags", 0x02: "values"}
_MORE_FOLLOW: Final = 0x80


def applet(aid: bytes) -> str | None:
    """Names an applet by its identifier."""
    if aid in _APPLETS:
        return _APPLETS[aid]
    if aid.startswith(CAC_RID) and len(aid) == len(CAC_RID) + 2:
        return object_name(int.from_bytes(aid[-2:])) or "CAC applet"
    return None


def object_name(number: int) -> str | None:
    """Names an object within an applet by its identifier of two bytes."""
    if number >> 8 == _PKI:
        return _PKI_NAMES.get(number & 0xFF, f"PKI applet {number & 0xFF}")
    return _OBJECTS.get(number)


def target(command: CommandAPDU, judgement: Judgement) -> str | None:
    """Says what a command of an applet is about; None if nothing is known of it."""
    offset = command.p1 << 8 | command.p2
    match command.ins:
        case Instruction.READ_BUFFER | Instruction.UPDATE_BUFFER:
            buffer = _BUFFERS.get(command.data[0] if command.data else 0, "buffer")
            return f"{buffer} from {offset}"
        case Instruction.PRIVATE_SIGN_DECRYPT:
            key = f"{judgement.reference} ({judgement.key} key)" if judgement.key else ""
            piece = "a piece of the block" if command.p1 == _MORE_FOLLOW else ""
            return ", ".join(each for each in (key, piece) if each)
        case IsoInstruction.VERIFY | IsoInstruction.CHANGE_REFERENCE_DATA:
            return f"{command.p2:02X} (PIN)"
    return None
