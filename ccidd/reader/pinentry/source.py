# SPDX-License-Identifier: Apache-2.0
"""What a reader asks a source of PINs, and what it gets.

Source: USB CCID Rev 1.1, 6.1.11 (PC_to_RDR_Secure): PIN verification and PIN modification, with
the errors PIN_CANCELLED and PIN_TIMEOUT.
"""

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryRequest:
    """A PIN is needed; one of the two subclasses says what for.

    Attributes:
        reader: the reader's name, for people.
        slot: the slot's number, from 0 on.
        card: what card it is, for people.
        min_digits: the fewest digits of each PIN; no PIN is empty, even where this is 0.
        max_digits: the most digits of each PIN.
        timeout: seconds for the whole entry, all PINs and all attempts; more than 0.
        guest: who asks, for people, where that is known.
    """

    reader: str
    slot: int
    card: str
    min_digits: int
    max_digits: int
    timeout: float
    guest: str = "A guest"

    def accepts(self, pin: bytes | bytearray) -> bool:
        """Tells whether a PIN has only digits, and as many as are allowed."""
        return pin.isdigit() and self.min_digits <= len(pin) <= self.max_digits


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationRequest(EntryRequest):
    """The PIN of the card is needed, for its holder to be verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModificationRequest(EntryRequest):
    """A new PIN is needed.

    Attributes:
        asks_current: whether the current PIN is needed, too.
        confirms: whether the new PIN is to be entered twice.
        after_mismatch: whether this follows an entry that ended with `NoPin.MISMATCH`, for the
            person to be told.
    """

    asks_current: bool = True
    confirms: bool = True
    after_mismatch: bool = False


@dataclass(frozen=True, slots=True)
class Pins:
    """What was entered, in ASCII. It is no part of the repr.

    Attributes:
        current: the PIN of the card, if it was asked for.
        new: the PIN that the card gets, in the answer to a `ModificationRequest`.
    """

    current: bytes | None = field(default=None, repr=False)
    new: bytes | None = field(default=None, repr=False)


class NoPin(enum.Enum):
    """Why there is no PIN."""

    CANCELLED = enum.auto()
    """The person, or the source, declined."""
    TIMED_OUT = enum.auto()
    """Nothing was entered in time."""
    MISMATCH = enum.auto()
    """The new PIN and its confirmation differ."""


PinEntry: TypeAlias = Pins | NoPin


class PinSource(ABC):
    """Where PINs come from."""

    @property
    @abstractmethod
    def can_modify(self) -> bool:
        """Whether it answers a `ModificationRequest`; else bPINSupport must not offer it."""

    @abstractmethod
    async def ask(self, request: EntryRequest) -> PinEntry:
        """Gets the PINs that a request names, or says why there are none.

        A source that fails says so in the log and has `NoPin.CANCELLED` for an answer. To end an
        entry, cancel the call: when it returns, nothing of the entry is left.
        """
