# SPDX-License-Identifier: Apache-2.0
"""What a command does to a card, by name, and the sets of such names that a policy allows."""

import enum
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from ccid_protocol.apdu import CommandAPDU, StatusWord
from ccidd.errors import UserError


class Operation(enum.StrEnum):
    """What a command does."""

    READ = "read"
    VERIFY = "verify"
    SIGN = "sign"
    DECRYPT = "decrypt"
    CHANGE_PIN = "change-pin"
    """PINs, the codes that unblock them, and how often they may be wrong."""
    WRITE = "write"
    """Data objects and settings; and what opens the way to them, the administrator's key or PIN."""
    GENERATE = "generate"
    """Makes or imports a key, in the place of one that may be there."""
    DELETE = "delete"
    """A key, or all that is on the card."""
    UNKNOWN = "unknown"
    CONCEAL = "conceal"
    """Could hide another command from the guard. No policy allows it."""


NOTHING: Final[frozenset[Operation]] = frozenset()
"""What every use of a card needs: selecting an application, fetching the rest of a response."""

USE: Final = frozenset({Operation.READ, Operation.VERIFY, Operation.SIGN, Operation.DECRYPT})
MANAGE: Final = frozenset(Operation) - {Operation.CONCEAL}

SETS: Final = {"use": USE, "manage": MANAGE}
"""The sets with a name of their own; `manage` holds `use` as well."""

CONFIRMABLE: Final = frozenset({Operation.SIGN, Operation.DECRYPT})
"""What a person may be asked about."""


def parse_policy(text: str) -> frozenset[Operation]:
    """Reads names of sets and operations, joined by `+`.

    Raises:
        UserError: One is unknown.
    """
    allowed = NOTHING
    for name in text.split("+"):
        if name in SETS:
            allowed |= SETS[name]
        elif name in MANAGE:
            allowed |= {Operation(name)}
        else:
            known = ", ".join([*SETS, *sorted(MANAGE)])
            raise UserError(f"{name!r} is none of {known} (joined by +)")
    return allowed


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a command is.

    Attributes:
        instruction: its name in its specification.
        operations: all that it does. It is let through where the policy allows each of them.
        reference: the key or PIN that it uses, as its specification numbers it.
        key: the name of that key, for people.
        asks: whether this is the command that a person may be asked about, and not one that only
            sends data ahead.
        refusal: the status word where it is not let through.
    """

    instruction: str
    operations: frozenset[Operation] = NOTHING
    reference: str | None = None
    key: str | None = None
    asks: bool = True
    refusal: int = StatusWord.CONDITIONS_NOT_SATISFIED


def judge_verify(
    command: CommandAPDU,
    operation: Operation = Operation.VERIFY,
    *,
    questions: Collection[int] = (0x00, 0xFF),
) -> Judgement:
    """Judges a VERIFY.

    Args:
        command: the command.
        operation: what its PIN is for.
        questions: the P1 with which it has no PIN: it asks whether one is verified, or ends that.
    """
    reference = f"{command.p2:02X}"
    if not command.data and command.p1 in questions:
        return Judgement("VERIFY", NOTHING, reference)
    if not command.p1:
        return Judgement("VERIFY", frozenset({operation}), reference)
    operations = frozenset({Operation.VERIFY, Operation.UNKNOWN})
    return Judgement("VERIFY", operations, reference, refusal=StatusWord.INCORRECT_P1_P2)


def unknown(ins: int) -> Judgement:
    """Judges a command by an instruction of which it is not known what it does."""
    return Judgement(
        f"INS {ins:02X}",
        frozenset({Operation.UNKNOWN}),
        refusal=StatusWord.INSTRUCTION_NOT_SUPPORTED,
    )
