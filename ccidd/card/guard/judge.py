# SPDX-License-Identifier: Apache-2.0
"""What any command does, whatever application is selected.

Source: ISO/IEC 7816-4:2013, 5.4 (class and instruction bytes), 11 and 12 (commands of all cards);
7816-8 (PERFORM SECURITY OPERATION). For the applications that are known their own modules decide.

Nobody needs logical channels, secure messaging or classes of manufacturers to use one of these
applications, so what comes with them is unknown, whatever the instruction is. ENVELOPE, the class
FF, and chains of commands that are never long could hide something, and no policy lets them pass.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from ccid_protocol.apdu import CommandAPDU, Instruction, StatusWord
from ccidd.card.guard import cac, openpgp, piv
from ccidd.card.guard.command_class import GSC, INVALID, CommandClass, Form
from ccidd.card.guard.operations import NOTHING, Judgement, Operation, unknown
from ccidd.card.guard.selection import Kind, Selected

MANAGE_CHANNEL: Final = 0x70
_GET_CHALLENGE: Final = 0x84
_ENVELOPES: Final = {0xC2, 0xC3}

PIN_INSTRUCTIONS: Final = frozenset({0x20, 0x21, 0x24, 0x25, 0x26, 0x28, 0x2C, 0x2D})
"""Those whose data hold a PIN or a code to be compared: VERIFY, CHANGE REFERENCE DATA, DISABLE and
ENABLE VERIFICATION REQUIREMENT, RESET RETRY COUNTER."""

_VERIFY: Final = frozenset({0x20, 0x21})

_NEVER_CHAINED: Final = PIN_INSTRUCTIONS | {
    Instruction.SELECT,
    Instruction.GET_RESPONSE,
    MANAGE_CHANNEL,
}
"""A card that does not know chaining would carry each of the commands out."""

_Judge: TypeAlias = Callable[[CommandAPDU, bytes], Judgement]


def _judge_information(command: CommandAPDU, _aid: bytes) -> Judgement:
    if command.ins in {Instruction.GET_DATA_CA, Instruction.GET_DATA}:
        return Judgement("GET DATA", frozenset({Operation.READ}))
    return unknown(command.ins)


def _judge_unknown(command: CommandAPDU, _aid: bytes) -> Judgement:
    return unknown(command.ins)


_JUDGES: Final[Mapping[Kind, _Judge]] = {
    Kind.UNKNOWN: _judge_unknown,
    Kind.PIV: piv.judge,
    Kind.CAC: cac.judge,
    Kind.OPENPGP: openpgp.judge,
    Kind.INFORMATION: _judge_information,
}


def judge(command: CommandAPDU, selected: Selected) -> Judgement:
    """Tells what a command does.

    Args:
        command: the command: one of a chain, or a whole one.
        selected: the application that is selected on its channel.
    """
    command_class = CommandClass.of(command.cla)
    if command.cla == INVALID:
        return _concealing("class FF", StatusWord.CLASS_NOT_SUPPORTED)
    if command.ins in _ENVELOPES:
        return _concealing("ENVELOPE", StatusWord.INSTRUCTION_NOT_SUPPORTED)
    if command_class.chained and command.ins in _NEVER_CHAINED:
        return _concealing(f"chain of INS {command.ins:02X}", StatusWord.CHAINING_NOT_SUPPORTED)
    judgement = _judge_basic(command, selected)
    refusal = _class_refusal(command.cla, command_class, selected.kind)
    if refusal is None and Operation.UNKNOWN not in judgement.operations:
        return judgement
    return replace(
        judgement,
        operations=judgement.operations | {Operation.UNKNOWN} | _guess(command),
        asks=True,
        refusal=refusal or judgement.refusal,
    )


def _judge_basic(command: CommandAPDU, selected: Selected) -> Judgement:
    """Judges a command as if its class were 00."""
    match command.ins:
        case Instruction.SELECT:
            return Judgement("SELECT")
        case Instruction.GET_RESPONSE:
            return Judgement("GET RESPONSE")
        case ins if ins == _GET_CHALLENGE:
            return Judgement("GET CHALLENGE", frozenset({Operation.READ}))
        case ins if ins == MANAGE_CHANNEL:
            return unknown(ins)
    return _JUDGES[selected.kind](command, selected.aid)


def _class_refusal(cla: int, command_class: CommandClass, kind: Kind) -> int | None:
    """Gives the status word for a class that is not the application's; None for one that is."""
    if command_class.form is not Form.INTERINDUSTRY:
        is_known = kind is Kind.CAC and cla == GSC
        return None if is_known else StatusWord.CLASS_NOT_SUPPORTED
    if command_class.secured:
        return StatusWord.SECURE_MESSAGING_NOT_SUPPORTED
    return StatusWord.LOGICAL_CHANNEL_NOT_SUPPORTED if command_class.channel else None


def _concealing(name: str, refusal: int) -> Judgement:
    return Judgement(name, frozenset({Operation.CONCEAL}), refusal=refusal)


def _guess(command: CommandAPDU) -> frozenset[Operation]:
    """Guesses what else a command does that is not known, by ISO/IEC 7816-4 and 7816-8.

    It matters for what a person is to be asked about, and for PINs that are not to be changed. The
    CAC's PRIVATE SIGN/DECRYPT is among them, since another application may be selected in truth.
    """
    match command.ins, command.p1:
        case 0x2A, 0x80:
            return frozenset({Operation.DECRYPT})
        case ((0x2A | 0x88), _):
            return frozenset({Operation.SIGN})
        case ((0x42 | 0x86 | 0x87), _):
            return frozenset({Operation.SIGN, Operation.DECRYPT})
        case ins, _ if ins in PIN_INSTRUCTIONS - _VERIFY:
            return frozenset({Operation.CHANGE_PIN})
    return NOTHING
