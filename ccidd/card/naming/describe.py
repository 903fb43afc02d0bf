# SPDX-License-Identifier: Apache-2.0
"""Commands and responses in a line.

    GET DATA 5FC105 (X.509 certificate for PIV authentication) Le=00
    VERIFY 80 (application PIN)
    GENERAL AUTHENTICATE 9C (digital signature key), RSA-2048, sign, Nc=266 Le=00

Instructions get their names from the guard, which knows what they are to each application.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from ccid_protocol.apdu import MAX_EXTENDED_NE, MAX_SHORT_NE, CommandAPDU, Instruction, ResponseAPDU
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.cac.references import Instruction as GscInstruction
from ccidd.card.guard.command_class import GSC, CommandClass, Form
from ccidd.card.guard.judge import PIN_INSTRUCTIONS, judge
from ccidd.card.guard.operations import Judgement, Operation
from ccidd.card.guard.selection import UNKNOWN, Kind, Selected
from ccidd.card.naming import cac, iso, openpgp, piv
from ccidd.card.naming.status import count_of_bytes, describe_status

_Target: TypeAlias = Callable[[CommandAPDU, Judgement], str | None]

_TARGETS: Final[Mapping[Kind, _Target]] = {
    Kind.PIV: piv.target,
    Kind.CAC: cac.target,
    Kind.OPENPGP: openpgp.target,
}

_NOT_KNOWN: Final = frozenset({Operation.UNKNOWN, Operation.CONCEAL})

_SAY_NO_LENGTH: Final = PIN_INSTRUCTIONS | {
    Instruction.SELECT,
    Instruction.GET_DATA,
    GscInstruction.READ_BUFFER,
}

_VERIFY: Final = frozenset({0x20, 0x21})
_LOG_OUT: Final = 0xFF

# What gives an application away that nobody has seen selected.
_PIV_HEADERS: Final = {(0xCB, 0x3F, 0xFF), (0xDB, 0x3F, 0xFF), (0x20, 0x00, 0x80)}
_PIV_INSTRUCTIONS: Final = frozenset({0x87, *range(0xF6, 0xFC), 0xFD})
_CAC_INSTRUCTIONS: Final = frozenset({0x42, 0x4C, 0x52, 0x56, 0x58})


def describe(command: CommandAPDU, selected: Selected = UNKNOWN) -> str:
    """Describes a command.

    Args:
        command: the command; of a chain, all that has come of it, with the header of the last.
        selected: the application that it is for. Of one that is unknown it is guessed: names are
            for people, and nothing depends on them.
    """
    selected, judgement = understand(command, selected)
    name = judgement.instruction
    if judgement.operations & _NOT_KNOWN:
        name = iso.INSTRUCTIONS.get(command.ins, f"INS {command.ins:02X}")
    said = [" ".join(each for each in (name, _target(command, selected, judgement)) if each)]
    said += _remarks(command, selected.kind)
    return ", ".join(said) + _lengths(command)


def understand(command: CommandAPDU, selected: Selected) -> tuple[Selected, Judgement]:
    """Tells which application a command is for, by a guess if need be, and what it does to it."""
    if selected.kind is Kind.UNKNOWN:
        selected = Selected(_guess(command))
    # Which channel it is on, or how it is protected, does not make it another command.
    return selected, judge(replace(command, cla=0), selected)


def describe_broken(command: bytes) -> str:
    """Describes a command whose length fields do not agree with its bytes."""
    instruction = f" (INS {command[1]:02X})" if len(command) > 1 else ""
    return f"broken command of {count_of_bytes(len(command))}{instruction}"


def describe_response(response: bytes) -> str:
    """Describes a response: its status word, and how long its data are."""
    try:
        decoded = ResponseAPDU.decode(response)
    except RemoteProtocolError:
        return f"broken response of {count_of_bytes(len(response))}"
    status = describe_status(decoded.sw)
    return f"{status}, {count_of_bytes(len(decoded.data))}" if decoded.data else status


def _guess(command: CommandAPDU) -> Kind:
    if (command.ins, command.p1, command.p2) in _PIV_HEADERS or command.ins in _PIV_INSTRUCTIONS:
        return Kind.PIV
    return Kind.CAC if command.ins in _CAC_INSTRUCTIONS else Kind.UNKNOWN


def _target(command: CommandAPDU, selected: Selected, judgement: Judgement) -> str:
    target = iso.target(command)
    if target is None and selected.kind in _TARGETS:
        target = _TARGETS[selected.kind](command, judgement)
    return iso.parameters(command) if target is None else target


def _remarks(command: CommandAPDU, kind: Kind) -> list[str]:
    remarks = []
    if command.ins in _VERIFY and not command.data:
        remarks.append("log out" if command.p1 == _LOG_OUT else "a question")
    command_class = CommandClass.of(command.cla)
    is_usual = kind is Kind.CAC and command.cla == GSC
    if command_class.form is not Form.INTERINDUSTRY and not is_usual:
        remarks.append(f"CLA {command.cla:02X}")
    if command_class.channel:
        remarks.append(f"channel {command_class.channel}")
    if command_class.secured:
        remarks.append("secure messaging")
    if command_class.chained:
        remarks.append("more follows")
    return remarks


def _lengths(command: CommandAPDU) -> str:
    """Says how long data are that are not shown; of a PIN that would be too much."""
    lengths = ""
    if command.data and command.ins not in _SAY_NO_LENGTH:
        lengths += f" Nc={len(command.data)}"
    if command.ne:
        le = command.ne % (MAX_EXTENDED_NE if command.extended else MAX_SHORT_NE)
        lengths += f" Le={le:04X}" if command.extended else f" Le={le:02X}"
    return lengths
