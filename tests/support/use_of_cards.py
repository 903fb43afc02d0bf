# SPDX-License-Identifier: Apache-2.0
"""What a card that is not managed is sent, written down a second time and from the specifications.

The tests of the guard hold what reaches a card against it.
"""

from collections.abc import Callable
from typing import Final

from ccid_protocol.apdu import CommandAPDU
from recording_card import CAC_CCC, CAC_ENCRYPTION, CAC_IDENTITY, OPENPGP, OTHER, PIV

_Allows = Callable[[CommandAPDU], bool]

_PIV_KEYS = {0x9A, 0x9C, 0x9D, 0x9E, *range(0x82, 0x96)}
_ASYMMETRIC = {0x05, 0x06, 0x07, 0x11, 0x14, 0x16, 0xE0, 0xE1}
_SYMMETRIC = {0x00, 0x03, 0x08, 0x0A, 0x0C}


def _always(_command: CommandAPDU) -> bool:
    return True


def _bare(p1: int | None, p2: int | None) -> _Allows:
    return lambda command: (
        not command.data and p1 in {None, command.p1} and p2 in {None, command.p2}
    )


def _header(*headers: str) -> _Allows:
    return lambda command: f"{command.p1:02X}{command.p2:02X}" in headers


def _piv_verify(command: CommandAPDU) -> bool:
    return command.p1 == 0 or (command.p1 == 0xFF and not command.data)


def _piv_authenticate(command: CommandAPDU) -> bool:
    if command.p2 == 0x9B:
        return command.data == bytes.fromhex("7C028100")
    algorithms = _ASYMMETRIC | (_SYMMETRIC if command.p2 == 0x9E else set())
    # The data of the tests are a template with one of the objects 81 and 85, or none at all.
    return (
        command.p2 in _PIV_KEYS
        and command.p1 in algorithms
        and command.data[:1] == b"\x7c"
        and command.data[2:3] in {b"\x81", b"\x85"}
    )


def _openpgp_verify(command: CommandAPDU) -> bool:
    if not command.data:
        return command.p1 in {0x00, 0xFF}
    return command.p1 == 0 and command.p2 != 0x83


_ALL: Final[dict[int, _Allows]] = {0xA4: _always, 0xC0: _always, 0x84: _always}

_CAC: Final[dict[int, _Allows]] = {
    **dict.fromkeys((0x52, 0x56, 0x4C, 0xB0, 0x36, 0xCA, 0xCB, 0x42, 0x88), _always),
    0x20: lambda command: command.p1 == 0,
}

_APPLICATIONS: Final[dict[str, dict[int, _Allows]]] = {
    PIV: {
        0x20: _piv_verify,
        0x87: _piv_authenticate,
        0xCA: _always,
        0xCB: _always,
        0xF7: _bare(0x00, None),
        0xF8: _bare(0x00, 0x00),
        0xF9: _bare(None, 0x00),
        0xFD: _bare(0x00, 0x00),
    },
    CAC_CCC: _CAC,
    CAC_IDENTITY: _CAC,
    CAC_ENCRYPTION: _CAC,
    OPENPGP: {
        0x20: _openpgp_verify,
        0x22: _header("41A4", "41B8"),
        0x2A: _header("9E9A", "8086", "8680"),
        0x47: _header("8100"),
        0x88: _header("0000"),
        0xA5: _always,
        0xCA: _always,
        0xCB: _always,
        0xCC: _always,
    },
    OTHER: {},
}


def is_use(command: CommandAPDU, selected: str) -> bool:
    """Tells whether a whole command only uses the application that is selected."""
    classes = {0x00, 0x80} if _APPLICATIONS[selected] is _CAC else {0x00}
    allows = (_ALL | _APPLICATIONS[selected]).get(command.ins)
    return command.cla in classes and allows is not None and allows(command)
