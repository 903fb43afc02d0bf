# SPDX-License-Identifier: Apache-2.0
"""What the commands of an OpenPGP card do.

Source: Functional Specification of the OpenPGP application on ISO Smart Card Operating Systems,
version 3.4, chapter 7. Instructions of manufacturers are unknown.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from ccid_protocol.apdu import CommandAPDU
from ccidd.card.guard.operations import Judgement, Operation, judge_verify, unknown

_VERIFY: Final = 0x20
_ADMIN_PIN: Final = 0x83

_SIGN: Final = frozenset({Operation.SIGN})
_DECRYPT: Final = frozenset({Operation.DECRYPT})

# Instructions of which the parameters do not matter.
_SIMPLE: Final[dict[int, tuple[str, Operation]]] = {
    0x24: ("CHANGE REFERENCE DATA", Operation.CHANGE_PIN),
    0x2C: ("RESET RETRY COUNTER", Operation.CHANGE_PIN),
    0xA5: ("SELECT DATA", Operation.READ),
    0xCA: ("GET DATA", Operation.READ),
    0xCB: ("GET DATA", Operation.READ),
    0xCC: ("GET NEXT DATA", Operation.READ),
    0xDA: ("PUT DATA", Operation.WRITE),
    0xDB: ("PUT DATA", Operation.WRITE),
    0xE6: ("TERMINATE DF", Operation.DELETE),
    0x44: ("ACTIVATE FILE", Operation.DELETE),
}


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of the application, by its number and for people."""

    number: str
    name: str


_Entry: TypeAlias = tuple[str, frozenset[Operation], _Key | None]

# What else there is, by INS, P1 and P2.
_BY_HEADER: Final[dict[tuple[int, int, int], _Entry]] = {
    (0x2A, 0x9E, 0x9A): ("COMPUTE DIGITAL SIGNATURE", _SIGN, _Key("1", "signature")),
    (0x2A, 0x80, 0x86): ("DECIPHER", _DECRYPT, _Key("2", "decryption")),
    (0x2A, 0x86, 0x80): ("ENCIPHER", _DECRYPT, _Key("2", "AES")),
    (0x88, 0x00, 0x00): ("INTERNAL AUTHENTICATE", _SIGN, _Key("3", "authentication")),
    (0x47, 0x80, 0x00): ("GENERATE ASYMMETRIC KEY PAIR", frozenset({Operation.GENERATE}), None),
    (0x47, 0x81, 0x00): ("READ PUBLIC KEY", frozenset({Operation.READ}), None),
    (0xDB, 0x3F, 0xFF): ("IMPORT KEY", frozenset({Operation.GENERATE}), None),
    # The resetting code.
    (0xDA, 0x00, 0xD3): ("PUT DATA", frozenset({Operation.WRITE, Operation.CHANGE_PIN}), None),
    # Lets DECIPHER and INTERNAL AUTHENTICATE use each other's keys.
    (0x22, 0x41, 0xA4): ("MANAGE SECURITY ENVIRONMENT", _SIGN | _DECRYPT, None),
    (0x22, 0x41, 0xB8): ("MANAGE SECURITY ENVIRONMENT", _SIGN | _DECRYPT, None),
}


def judge(command: CommandAPDU, _aid: bytes) -> Judgement:
    """Judges a command of the application."""
    if command.ins == _VERIFY:
        # The administrator's PIN (PW3) opens the way to all that is written.
        is_admin = command.p2 == _ADMIN_PIN
        return judge_verify(command, Operation.WRITE if is_admin else Operation.VERIFY)
    entry = _BY_HEADER.get((command.ins, command.p1, command.p2))
    if entry is not None:
        name, operations, key = entry
        number, key_name = (key.number, key.name) if key else (None, None)
        return Judgement(name, operations, number, key_name, asks=key is not None)
    if command.ins in _SIMPLE:
        name, operation = _SIMPLE[command.ins]
        return Judgement(name, frozenset({operation}))
    return unknown(command.ins)
