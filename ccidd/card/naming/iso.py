# SPDX-License-Identifier: Apache-2.0
"""Names of what all cards have: instructions, files, applications.

Source: ISO/IEC 7816-4:2013, 5.4.2 (table 4.2, instructions), 7.4 (files), 11 and 12 (commands);
7816-8 and 7816-9 for the instructions that are theirs.
"""

from typing import Final

from ccid_protocol.apdu import CommandAPDU, Instruction
from ccidd.card.cac import references as cac
from ccidd.card.naming import cac as cac_names
from ccidd.card.piv import references as piv

INSTRUCTIONS: Final = {
    0x04: "DEACTIVATE FILE",
    0x0C: "ERASE RECORD",
    0x0E: "ERASE BINARY",
    0x0F: "ERASE BINARY",
    0x20: "VERIFY",
    0x21: "VERIFY",
    0x22: "MANAGE SECURITY ENVIRONMENT",
    0x24: "CHANGE REFERENCE DATA",
    0x25: "CHANGE REFERENCE DATA",
    0x26: "DISABLE VERIFICATION REQUIREMENT",
    0x28: "ENABLE VERIFICATION REQUIREMENT",
    0x2A: "PERFORM SECURITY OPERATION",
    0x2C: "RESET RETRY COUNTER",
    0x2D: "RESET RETRY COUNTER",
    0x44: "ACTIVATE FILE",
    0x46: "GENERATE ASYMMETRIC KEY PAIR",
    0x47: "GENERATE ASYMMETRIC KEY PAIR",
    0x70: "MANAGE CHANNEL",
    0x82: "EXTERNAL AUTHENTICATE",
    0x84: "GET CHALLENGE",
    0x86: "GENERAL AUTHENTICATE",
    0x87: "GENERAL AUTHENTICATE",
    0x88: "INTERNAL AUTHENTICATE",
    0xA0: "SEARCH BINARY",
    0xA1: "SEARCH BINARY",
    0xA2: "SEARCH RECORD",
    0xA4: "SELECT",
    0xA5: "SELECT DATA",
    0xB0: "READ BINARY",
    0xB1: "READ BINARY",
    0xB2: "READ RECORD",
    0xB3: "READ RECORD",
    0xC0: "GET RESPONSE",
    0xC2: "ENVELOPE",
    0xC3: "ENVELOPE",
    0xCA: "GET DATA",
    0xCB: "GET DATA",
    0xCC: "GET NEXT DATA",
    0xCD: "GET NEXT DATA",
    0xD0: "WRITE BINARY",
    0xD1: "WRITE BINARY",
    0xD2: "WRITE RECORD",
    0xD6: "UPDATE BINARY",
    0xD7: "UPDATE BINARY",
    0xDA: "PUT DATA",
    0xDB: "PUT DATA",
    0xDC: "UPDATE RECORD",
    0xDD: "UPDATE RECORD",
    0xE0: "CREATE FILE",
    0xE2: "APPEND RECORD",
    0xE4: "DELETE FILE",
    0xE6: "TERMINATE DF",
    0xE8: "TERMINATE EF",
    0xFE: "TERMINATE CARD USAGE",
}

_GET_CHALLENGE: Final = 0x84
_MANAGE_CHANNEL: Final = 0x70
_OPEN_CHANNEL: Final = 0x00

_SELECTIONS: Final = {
    0x00: "file",
    0x01: "child",
    0x02: "object",
    0x03: "parent",
    0x04: "",
    0x08: "path",
    0x09: "path",
}
"""What P1 of SELECT takes the data for; the identifier of an application needs no word."""
_BY_NAME: Final = 0x04

_OPENPGP: Final = bytes.fromhex("D27600012401")
_PIV_WITHOUT_VERSION: Final = 9
_APPLICATIONS: Final = {
    cac.CARD_MANAGER: "card manager",
    bytes.fromhex("A000000003000000"): "card manager",
    bytes.fromhex("A000000151000000"): "issuer security domain",
    cac.PLUG_AND_PLAY: "Windows plug and play",
    bytes.fromhex("A000000527471117"): "YubiKey management",
    bytes.fromhex("A0000005272101"): "OATH",
    bytes.fromhex("A0000006472F0001"): "FIDO U2F",
    bytes.fromhex("A000000063504B43532D3135"): "PKCS#15",
}
_FILES: Final = {
    0x3F00: "master file",
    0x2F00: "EF.DIR",
    0x2F01: "EF.ATR/INFO",
    0x3FFF: "current DF",
}

_MAX_NAME: Final = 16
"""Bytes of the longest identifier of an application."""


def target(command: CommandAPDU) -> str | None:
    """Says what a command is about that means the same to all cards.

    Returns:
        None if there is none to say; it is empty if the parameters say nothing more.
    """
    match command.ins:
        case Instruction.SELECT:
            return _selected(command)
        case Instruction.GET_RESPONSE:
            return ""
        case ins if ins == _GET_CHALLENGE:
            return ""
        case ins if ins == _MANAGE_CHANNEL:
            if command.p1 == _OPEN_CHANNEL:
                return f"open {command.p2:02X}" if command.p2 else "open"
            return f"close {command.p2:02X}"
    return None


def parameters(command: CommandAPDU) -> str:
    """Says the parameters of a command of which nothing else is known."""
    return f"P1={command.p1:02X} P2={command.p2:02X}"


def application(aid: bytes) -> str | None:
    """Names an application by its identifier."""
    if aid == piv.RID or (len(aid) >= _PIV_WITHOUT_VERSION and piv.AID.startswith(aid)):
        return "PIV"
    if aid.startswith(_OPENPGP):
        return "OpenPGP"
    return _APPLICATIONS.get(aid) or cac_names.applet(aid)


def _selected(command: CommandAPDU) -> str:
    kind = _SELECTIONS.get(command.p1)
    data = command.data
    if kind is None or len(data) > _MAX_NAME:
        return parameters(command)
    if command.p1 == _BY_NAME:
        name = application(data)
    else:
        number = int.from_bytes(data[-2:])
        name = _FILES.get(number) or cac_names.object_name(number)
    said = [kind, data.hex().upper(), f"({name})" if name else ""]
    return " ".join(each for each in said if each)
