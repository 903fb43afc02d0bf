# SPDX-License-Identifier: Apache-2.0
"""What the commands of a CAC's applets do.

Source: GSC-IS 2.1, 5.3 and appendix D; 36 is GET CERTIFICATE of the first CACs.
"""

from typing import Final

from ccid_protocol.apdu import CommandAPDU
from ccid_protocol.apdu import Instruction as IsoInstruction
from ccidd.card.cac.references import CAC_RID, Instruction
from ccidd.card.guard.operations import Judgement, Operation, judge_verify, unknown

_GET_CERTIFICATE: Final = 0x36
_INTERNAL_AUTHENTICATE: Final = 0x88

_MORE_FOLLOW: Final = 0x80
"""P1 of PRIVATE SIGN/DECRYPT for a piece of a block that is not the last."""

_PKI: Final = CAC_RID + b"\x01"
_SIGNATURE_KEYS: Final = {0: "identity", 1: "email signature"}
"""The numbers of the PKI applets that sign; all others are for decryption."""

_SIMPLE: Final[dict[int, tuple[str, Operation]]] = {
    Instruction.READ_BUFFER: ("READ BUFFER", Operation.READ),
    Instruction.GET_PROPERTIES: ("GET PROPERTIES", Operation.READ),
    Instruction.GET_ACR: ("GET ACR", Operation.READ),
    Instruction.READ_BINARY: ("READ BINARY", Operation.READ),
    _GET_CERTIFICATE: ("GET CERTIFICATE", Operation.READ),
    IsoInstruction.GET_DATA_CA: ("GET DATA", Operation.READ),
    IsoInstruction.GET_DATA: ("GET DATA", Operation.READ),
    _INTERNAL_AUTHENTICATE: ("INTERNAL AUTHENTICATE", Operation.SIGN),
    Instruction.UPDATE_BUFFER: ("UPDATE BUFFER", Operation.WRITE),
    Instruction.EXTERNAL_AUTHENTICATE: ("EXTERNAL AUTHENTICATE", Operation.WRITE),
    IsoInstruction.CHANGE_REFERENCE_DATA: ("CHANGE REFERENCE DATA", Operation.CHANGE_PIN),
    IsoInstruction.RESET_RETRY_COUNTER: ("RESET RETRY COUNTER", Operation.CHANGE_PIN),
}


def judge(command: CommandAPDU, aid: bytes) -> Judgement:
    """Judges a command of an applet.

    Args:
        command: the command.
        aid: the applet's identifier, which names the key.
    """
    if command.ins == IsoInstruction.VERIFY:
        return judge_verify(command, questions=(0x00,))
    if command.ins == Instruction.PRIVATE_SIGN_DECRYPT:
        return _sign_or_decrypt(command, aid)
    if command.ins in _SIMPLE:
        name, operation = _SIMPLE[command.ins]
        return Judgement(name, frozenset({operation}))
    return unknown(command.ins)


def _sign_or_decrypt(command: CommandAPDU, aid: bytes) -> Judgement:
    """PRIVATE SIGN/DECRYPT is raw RSA, so the key's purpose decides which of them it is."""
    number = aid[-1] if len(aid) == len(_PKI) + 1 and aid.startswith(_PKI) else None
    if number is None:
        operations = frozenset({Operation.SIGN, Operation.DECRYPT})
        key = None
    elif number in _SIGNATURE_KEYS:
        operations = frozenset({Operation.SIGN})
        key = _SIGNATURE_KEYS[number]
    else:
        operations = frozenset({Operation.DECRYPT})
        key = f"encryption {number - 1}"
    return Judgement(
        "PRIVATE SIGN/DECRYPT",
        operations,
        aid[-2:].hex().upper(),
        key,
        asks=command.p1 != _MORE_FOLLOW,
    )
