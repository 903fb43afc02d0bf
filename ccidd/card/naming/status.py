# SPDX-License-Identifier: Apache-2.0
"""Names of status words.

Source: ISO/IEC 7816-4:2013, 5.1.3, tables 5 to 7; SP 800-73-4, part 2, 3 and the GSC-IS 2.1, 5.3,
which use the same; OpenPGP card 3.4, 7.3, with 6600 of cards that want to be touched.
"""

from typing import Final

SUCCESS: Final = 0x9000

_NAMES: Final = {
    0x6281: "part of the data may be corrupted",
    0x6282: "the file or record ended before Ne bytes",
    0x6283: "the selected file is deactivated",
    0x6284: "control information is wrongly formatted",
    0x6285: "the selected file is in termination state",
    0x6286: "no input from a sensor",
    0x6287: "a referenced record is deactivated",
    0x6300: "the comparison failed, or more follows",
    0x6381: "the file was filled up by the last write",
    0x6401: "immediate response required",
    0x6581: "memory failure",
    0x6700: "wrong length",
    0x6701: "wrong form of command",
    0x6702: "unexpected Lc",
    0x6881: "logical channel not supported",
    0x6882: "secure messaging not supported",
    0x6883: "last command of the chain expected",
    0x6884: "command chaining not supported",
    0x6981: "command incompatible with file structure",
    0x6982: "security status not satisfied",
    0x6983: "authentication method blocked",
    0x6984: "reference data not usable",
    0x6985: "conditions of use not satisfied",
    0x6986: "command not allowed: no current file",
    0x6987: "secure messaging data objects missing",
    0x6988: "wrong secure messaging data objects",
    0x6A80: "incorrect parameters in the data field",
    0x6A81: "function not supported",
    0x6A82: "file or application not found",
    0x6A83: "record not found",
    0x6A84: "not enough memory space",
    0x6A85: "Nc inconsistent with the TLV structure",
    0x6A86: "incorrect P1-P2",
    0x6A87: "Nc inconsistent with P1-P2",
    0x6A88: "referenced data not found",
    0x6A89: "file already exists",
    0x6A8A: "DF name already exists",
}

_CLASSES: Final = {
    0x62: "warning, memory unchanged",
    0x63: "warning, memory changed",
    0x64: "error, memory unchanged",
    0x65: "error, memory changed",
    0x66: "security-related issue",
    0x67: "wrong length",
    0x68: "function of the class byte not supported",
    0x69: "command not allowed",
    0x6A: "wrong parameters",
    0x6B: "wrong P1-P2",
    0x6D: "instruction not supported",
    0x6E: "class not supported",
    0x6F: "no precise diagnosis",
}

_MORE_DATA: Final = 0x61
_WRONG_LE: Final = 0x6C
_COUNTER: Final = 0x63C0
_TRIES: Final = 0x0F


def describe_status(sw: int) -> str:
    """Names a status word.

    Args:
        sw: the status word SW1-SW2.

    Returns:
        Its four digits, and what they mean unless it is success: `63C2 (2 tries left)`.
    """
    name = _name(sw)
    return f"{sw:04X} ({name})" if name else f"{sw:04X}"


def _name(sw: int) -> str | None:
    sw1, sw2 = sw >> 8, sw & 0xFF
    if sw1 == _MORE_DATA:
        return "more bytes follow" if not sw2 else f"{count_of_bytes(sw2)} more"
    if sw1 == _WRONG_LE:
        return f"Le is to be {sw2:02X}"
    if sw & ~_TRIES == _COUNTER:
        tries = sw & _TRIES
        return "1 try left" if tries == 1 else f"{tries or 'no'} tries left"
    return _NAMES.get(sw) or _CLASSES.get(sw1)


def count_of_bytes(count: int) -> str:
    """Says how many bytes there are."""
    return "1 byte" if count == 1 else f"{count} bytes"
