# SPDX-License-Identifier: Apache-2.0
"""Names of what a PIV card has.

Source: NIST SP 800-73-4, part 1, tables 3 and 4, and part 2, 3; SP 800-78-4, table 6-2; Yubico's
PIV extensions (`ccidd.card.piv.extensions`), and the objects of its tools.
"""

from typing import Final

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, Instruction
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.guard.operations import CONFIRMABLE, Judgement, Operation
from ccidd.card.guard.piv import KEY_NAMES
from ccidd.card.piv.extensions import ExtensionInstruction as Extension
from ccidd.card.piv.references import (
    ALGORITHMS,
    ATTESTATION_KEY,
    MANAGEMENT_KEY,
    ObjectTag,
    PinReference,
    certificate_tag,
)

_OBJECTS: Final[dict[int, str]] = {
    ObjectTag.DISCOVERY: "discovery object",
    ObjectTag.BIOMETRIC_INFORMATION: "biometric information templates",
    ObjectTag.CHUID: "card holder unique identifier",
    ObjectTag.FINGERPRINTS: "fingerprints",
    ObjectTag.SECURITY_OBJECT: "security object",
    ObjectTag.CARD_CAPABILITY_CONTAINER: "card capability container",
    ObjectTag.FACIAL_IMAGE: "facial image",
    ObjectTag.PRINTED_INFORMATION: "printed information",
    ObjectTag.KEY_HISTORY: "key history object",
    ObjectTag.IRIS_IMAGES: "iris images",
    ObjectTag.SECURE_MESSAGING_SIGNER: "secure messaging certificate signer",
    ObjectTag.PAIRING_CODE: "pairing code",
    **{certificate_tag(key): f"X.509 certificate for {name}" for key, name in KEY_NAMES.items()},
    certificate_tag(ATTESTATION_KEY): "X.509 certificate for attestation",
    # Of tools for the extensions.
    0x5FFF00: "data of the administrator's tools",
    0x5FFF10: "map of containers",
    **{0x5FFF11 + i: f"root certificates {i + 1}" for i in range(5)},
}

_KEYS: Final[dict[int, str]] = {
    **{key: f"{name} key" for key, name in KEY_NAMES.items()},
    MANAGEMENT_KEY: "administration key",
    ATTESTATION_KEY: "attestation key",
    PinReference.GLOBAL_PIN: "global PIN",
    PinReference.APPLICATION_PIN: "application PIN",
    PinReference.PUK: "PUK",
    0x96: "primary finger",
    0x97: "secondary finger",
    0x98: "pairing code",
    0x04: "secure messaging key",
}

_ALGORITHMS: Final = {
    0x00: "3DES",
    0x03: "3DES",
    0x08: "AES-128",
    0x0A: "AES-192",
    0x0C: "AES-256",
    0x27: "cipher suite 2",
    0x2E: "cipher suite 7",
    **{identifier: algorithm.value for identifier, algorithm in ALGORITHMS.items()},
}

_DATA_OBJECTS: Final = 0x3FFF
"""P1 and P2 of GET DATA and PUT DATA."""

_TAG_LIST: Final = 0x5C
_MAX_TAG: Final = 3

_MECHANISM: Final = 0xAC
_MECHANISM_ALGORITHM: Final = 0x80

_DELETED: Final = 0xFF


_WITHOUT_TARGET: Final = frozenset(
    {
        Extension.SET_MANAGEMENT_KEY,
        Extension.GET_SERIAL,
        Extension.GET_VERSION,
        Extension.RESET,
    }
)
_BY_P2: Final = frozenset(
    {
        Instruction.VERIFY,
        Instruction.CHANGE_REFERENCE_DATA,
        Instruction.RESET_RETRY_COUNTER,
        Extension.GET_METADATA,
    }
)
"""Those of which P2 is the reference of a PIN or key."""


def target(command: CommandAPDU, judgement: Judgement) -> str | None:
    """Says what a command of the application is about; None if nothing is known of it."""
    if command.ins in _WITHOUT_TARGET:
        return ""
    if command.ins in _BY_P2:
        return _key(command.p2)
    if command.ins == Instruction.GENERAL_AUTHENTICATE:
        return _general_authenticate(command, judgement)
    if command.ins in {Instruction.GET_DATA, Instruction.PUT_DATA}:
        return _object(command) if command.p1 << 8 | command.p2 == _DATA_OBJECTS else None
    return _of_keys(command)


def _of_keys(command: CommandAPDU) -> str | None:
    """Says what a command is about that makes, moves or tells of a key."""
    match command.ins:
        case Instruction.GENERATE_ASYMMETRIC_KEY_PAIR:
            algorithm = _algorithm_in(command)
            return _key(command.p2) + (f", {algorithm}" if algorithm else "")
        case Extension.IMPORT_KEY:
            return f"{_key(command.p2)}, {_algorithm(command.p1)}"
        case Extension.ATTEST:
            return _key(command.p1)
        case Extension.MOVE_KEY:
            goal = "deleted" if command.p1 == _DELETED else f"to {_key(command.p1)}"
            return f"{_key(command.p2)}, {goal}"
        case Extension.SET_PIN_RETRIES:
            return f"PIN {command.p1}, PUK {command.p2}"
    return None


def _key(reference: int) -> str:
    name = _KEYS.get(reference)
    return f"{reference:02X} ({name})" if name else f"{reference:02X}"


def _algorithm(identifier: int) -> str:
    return _ALGORITHMS.get(identifier, f"algorithm {identifier:02X}")


def _object(command: CommandAPDU) -> str:
    """Gives the object of GET DATA and PUT DATA, which their data name first."""
    data = command.data
    if len(data) < 2 or data[0] != _TAG_LIST or not 1 <= data[1] <= _MAX_TAG:
        return "?"
    tag = data[2 : 2 + data[1]]
    name = _OBJECTS.get(int.from_bytes(tag))
    return f"{tag.hex().upper()} ({name})" if name else tag.hex().upper()


def _general_authenticate(command: CommandAPDU, judgement: Judgement) -> str:
    said = [_key(command.p2), _algorithm(command.p1)]
    if command.p2 in KEY_NAMES and Operation.UNKNOWN not in judgement.operations:
        said += sorted(judgement.operations & CONFIRMABLE)
    return ", ".join(said)


def _algorithm_in(command: CommandAPDU) -> str | None:
    """Gives the algorithm of a key that is to be made."""
    try:
        template = tlv.decode_to_dict(command.data).get(_MECHANISM, b"")
        identifier = tlv.decode_to_dict(template).get(_MECHANISM_ALGORITHM, b"")
    except RemoteProtocolError:
        return None
    return _algorithm(identifier[0]) if len(identifier) == 1 else None
