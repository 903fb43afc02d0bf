# SPDX-License-Identifier: Apache-2.0
"""What the commands of the PIV card application do.

Source: NIST SP 800-73-4, part 2, section 3; SP 800-78-4, table 6-2 (algorithm identifiers); and
Yubico's PIV extensions, which other cards have as well (`ccidd.card.piv.extensions`).
"""

from typing import Final

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, Instruction, StatusWord
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.guard.operations import NOTHING, Judgement, Operation, judge_verify, unknown
from ccidd.card.piv.extensions import ExtensionInstruction as Extension
from ccidd.card.piv.references import (
    ALGORITHMS,
    MANAGEMENT_KEY,
    RETIRED_KEYS,
    KeyReference,
)

_CHAINING: Final = 0x10

_TEMPLATE: Final = 0x7C
_WITNESS: Final = 0x80
_CHALLENGE: Final = 0x81
_RESPONSE: Final = 0x82
_EXPONENTIATION: Final = 0x85
_FIELDS: Final = {_WITNESS, _CHALLENGE, _RESPONSE, _EXPONENTIATION}

_ASK_FOR_CHALLENGE: Final = bytes.fromhex("7C028100")
"""A template that asks for a random number: clients without another source of them do so."""

_SYMMETRIC: Final = {0x00, 0x03, 0x08, 0x0A, 0x0C}
_RSA: Final = {0x05, 0x06, 0x07, 0x16}

_DECRYPTION_KEYS: Final = frozenset({KeyReference.KEY_MANAGEMENT, *RETIRED_KEYS})
KEY_NAMES: Final[dict[int, str]] = {
    KeyReference.AUTHENTICATION: "PIV authentication",
    KeyReference.SIGNATURE: "digital signature",
    KeyReference.KEY_MANAGEMENT: "key management",
    KeyReference.CARD_AUTHENTICATION: "card authentication",
    **{key: f"retired key management {i}" for i, key in enumerate(RETIRED_KEYS, 1)},
}
"""The asymmetric keys by their references, for people."""

# Instructions of which the parameters do not matter.
_SIMPLE: Final[dict[int, tuple[str, Operation]]] = {
    Instruction.GET_DATA_CA: ("GET DATA", Operation.READ),
    Instruction.GET_DATA: ("GET DATA", Operation.READ),
    Instruction.PUT_DATA: ("PUT DATA", Operation.WRITE),
    Extension.MOVE_KEY: ("MOVE KEY", Operation.DELETE),
    Extension.SET_PIN_RETRIES: ("SET PIN RETRIES", Operation.CHANGE_PIN),
    Extension.RESET: ("RESET", Operation.DELETE),
    Extension.SET_MANAGEMENT_KEY: ("SET MANAGEMENT KEY", Operation.WRITE),
}
# Those of which P2 is the reference of a PIN or key.
_BY_REFERENCE: Final[dict[int, tuple[str, Operation]]] = {
    Instruction.CHANGE_REFERENCE_DATA: ("CHANGE REFERENCE DATA", Operation.CHANGE_PIN),
    Instruction.RESET_RETRY_COUNTER: ("RESET RETRY COUNTER", Operation.CHANGE_PIN),
    Instruction.GENERATE_ASYMMETRIC_KEY_PAIR: (
        "GENERATE ASYMMETRIC KEY PAIR",
        Operation.GENERATE,
    ),
    Extension.IMPORT_KEY: ("IMPORT ASYMMETRIC KEY", Operation.GENERATE),
}


def judge(command: CommandAPDU, _aid: bytes) -> Judgement:
    """Judges a command of the application."""
    if command.ins == Instruction.VERIFY:
        return judge_verify(command)
    if command.ins == Instruction.GENERAL_AUTHENTICATE:
        return _general_authenticate(command)
    if command.ins in _BY_REFERENCE:
        name, operation = _BY_REFERENCE[command.ins]
        return Judgement(name, frozenset({operation}), f"{command.p2:02X}")
    if command.ins in _SIMPLE:
        name, operation = _SIMPLE[command.ins]
        return Judgement(name, frozenset({operation}))
    question = _question(command)
    if question is not None:
        return Judgement(question, frozenset({Operation.READ}))
    return unknown(command.ins)


def _question(command: CommandAPDU) -> str | None:
    """Gives the name of an extension that only tells something, if it has the right form."""
    if command.data:
        return None
    match command.ins, command.p1, command.p2:
        case Extension.GET_METADATA, 0x00, _:
            return "GET METADATA"
        case Extension.GET_SERIAL, 0x00, 0x00:
            return "GET SERIAL"
        case Extension.GET_VERSION, 0x00, 0x00:
            return "GET VERSION"
        case Extension.ATTEST, _, 0x00:
            return "ATTEST"
    return None


def _general_authenticate(command: CommandAPDU) -> Judgement:
    """GENERAL AUTHENTICATE: P1 is the algorithm, P2 the key, and the template what is wanted.

    Whether raw RSA signs or decrypts cannot be told from the block, so the key's purpose decides.
    """
    name = "GENERAL AUTHENTICATE"
    reference = f"{command.p2:02X}"
    if command.p2 == MANAGEMENT_KEY:
        asks = command.data == _ASK_FOR_CHALLENGE
        operation = Operation.READ if asks else Operation.WRITE
        return Judgement(name, frozenset({operation}), reference)
    if command.p2 not in KEY_NAMES or not _fits(command.p1, command.p2):
        return _unclear(command)
    key = KEY_NAMES[command.p2]
    if command.cla & _CHAINING:
        # The template is judged when all of it is there.
        return Judgement(name, NOTHING, reference, key)
    operations = _operations(command)
    if not operations:
        return _unclear(command)
    return Judgement(name, operations, reference, key)


def _fits(algorithm: int, reference: int) -> bool:
    if algorithm in _SYMMETRIC:
        return reference == KeyReference.CARD_AUTHENTICATION
    return algorithm in ALGORITHMS


def _operations(command: CommandAPDU) -> frozenset[Operation]:
    """Gives what the template has a key do; nothing if that is not clear."""
    try:
        ((tag, value),) = ((each.tag, each.value) for each in tlv.decode(command.data))
        fields = tlv.decode_to_dict(value)
    except (RemoteProtocolError, ValueError):
        return NOTHING
    if tag != _TEMPLATE or set(fields) - _FIELDS:
        return NOTHING
    operations = set()
    if _EXPONENTIATION in fields:
        operations.add(Operation.DECRYPT)
    if _WITNESS in fields and command.p1 in _SYMMETRIC:
        operations.add(Operation.SIGN)
    if _CHALLENGE in fields:
        decrypts = command.p1 in _RSA and command.p2 in _DECRYPTION_KEYS
        operations.add(Operation.DECRYPT if decrypts else Operation.SIGN)
    return frozenset(operations)


def _unclear(command: CommandAPDU) -> Judgement:
    return Judgement(
        "GENERAL AUTHENTICATE",
        frozenset({Operation.UNKNOWN, Operation.SIGN, Operation.DECRYPT}),
        f"{command.p2:02X}",
        refusal=StatusWord.INCORRECT_P1_P2,
    )
