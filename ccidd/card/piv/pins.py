# SPDX-License-Identifier: Apache-2.0
"""The PINs, the PUK, and what they open: VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER.

Source: NIST SP 800-73-4, part 2, 2.4.3 (format of PINs) and 3.2.1 to 3.2.3; part 1, 3.3.2 (PIN
usage policy) and table 4b (PIN rules of keys).
"""

from collections.abc import Callable
from typing import Final

import trio

from ccid_protocol.apdu import CommandAPDU, StatusWord
from ccidd.card.application import CardError
from ccidd.card.memory import CardMemory
from ccidd.card.pin import PIN_PADDING, PIN_SIZE, Pin, is_well_formed
from ccidd.card.piv.records import DEFAULT_PINS, Records
from ccidd.card.piv.references import PinPolicy, PinReference

_SIZE: Final = PIN_SIZE
"""Bytes of a PIN (6 to 8 digits, filled up with FF) and of a PUK (bytes of any kind)."""

DEFAULT_PIN: Final = b"123456".ljust(_SIZE, PIN_PADDING)
DEFAULT_PUK: Final = b"12345678"
"""What cards with the extensions have after a reset."""

DEFAULT_TRIES: Final = 3


class Pins:
    """The PINs of the application, and the security status that they give.

    Args:
        memory: the card's memory, with a PIN for each `PinReference`; one that was never set is
            blocked.
        records: the same, as the application's values.
        global_pin_is_used: tells whether the discovery object makes the global PIN as good as the
            application's.
        extensions: whether the card has the extensions; it then counts what cannot be a PIN as a
            wrong one (part 2, 3.2.1, leaves the choice), for tools block a PIN in this way before
            they reset the card. Otherwise it costs no try.
    """

    def __init__(
        self,
        memory: CardMemory,
        records: Records,
        global_pin_is_used: Callable[[], bool],
        *,
        extensions: bool,
    ) -> None:
        self._records = records
        self._global_pin_is_used = global_pin_is_used
        self._extensions = extensions
        self.application = Pin(memory.pin(PinReference.APPLICATION_PIN))
        self.puk = Pin(memory.pin(PinReference.PUK))
        self._global = Pin(memory.pin(PinReference.GLOBAL_PIN))
        # Whether the PIN counts as verified immediately before: see `spend` and `use`.
        self._fresh = False

    @property
    def is_verified(self) -> bool:
        """Whether the condition "PIN" is satisfied, by either PIN that the discovery object allows.

        The discovery object may have been changed since the global PIN was verified.
        """
        if self.application.verified:
            return True
        return self._global.verified and self._global_pin_is_used()

    def use(self, policy: PinPolicy) -> None:
        """Holds a key's security condition against the PIN's state, which its use then ages.

        Raises:
            CardError: The condition is not satisfied.
        """
        fresh, self._fresh = self._fresh, False
        satisfied = {
            PinPolicy.NEVER: True,
            PinPolicy.ONCE: self.is_verified,
            PinPolicy.ALWAYS: fresh and self.is_verified,
        }
        if not satisfied[policy]:
            raise CardError(StatusWord.SECURITY_STATUS_NOT_SATISFIED)

    def spend(self) -> None:
        """Lets the PIN no longer count as verified immediately before."""
        self._fresh = False

    def end(self) -> None:
        """Ends what the application's PIN has opened: another application was selected.

        The status of the global PIN does not change with the application (part 2, 2.4.2).
        """
        self._fresh = False
        self.application.end()

    def reset(self) -> None:
        """Ends what any PIN has opened."""
        self._fresh = False
        self.application.end()
        self._global.end()

    async def verify(self, command: CommandAPDU) -> None:
        """VERIFY (part 2, 3.2.1)."""
        pin = self._cardholder_pin(command.p2)
        match command.p1, command.data:
            case 0x00, b"":
                await pin.check_status()
            case 0x00, candidate:
                await pin.check_not_blocked()
                self._check_candidate(pin, candidate)
                self._fresh = False
                await pin.verify(candidate)
                self._fresh = True
            case 0xFF, b"":
                pin.end()
                self._fresh = False
            case 0xFF, _:
                raise CardError(StatusWord.INCORRECT_DATA)
            case _:
                raise CardError(StatusWord.INCORRECT_P1_P2)

    async def change_reference_data(self, command: CommandAPDU) -> None:
        """CHANGE REFERENCE DATA (part 2, 3.2.2), of a PIN or of the PUK."""
        _check_p1(command)
        is_puk = command.p2 == PinReference.PUK
        pin = self.puk if is_puk else self._cardholder_pin(command.p2)
        await pin.check_not_blocked()
        current, new = _two_values(command.data)
        if not is_puk:
            self._check_candidate(pin, current)
            if not is_well_formed(new, numeric=not pin.memory.is_token_pin):
                # Part 2 has the right PIN with a malformed new one change nothing, so the two are
                # not even compared.
                raise CardError(StatusWord.INCORRECT_DATA)
        self._fresh = False
        with trio.CancelScope(shield=True):
            await pin.change(current, new)
            await self._records.note_pin_changed(command.p2)

    async def reset_retry_counter(self, command: CommandAPDU) -> None:
        """RESET RETRY COUNTER (part 2, 3.2.3): the PUK gives the application's PIN a new value."""
        _check_p1(command)
        if command.p2 != PinReference.APPLICATION_PIN:
            raise CardError(StatusWord.REFERENCED_DATA_NOT_FOUND)
        await self.puk.check_not_blocked()
        puk, new = _two_values(command.data)
        if not self._extensions and not is_well_formed(new):
            raise CardError(StatusWord.INCORRECT_DATA)
        with trio.CancelScope(shield=True):
            try:
                await self.puk.verify(puk)
            except CardError:
                self.application.end()
                self._fresh = False
                raise
            finally:
                self.puk.end()
            if not is_well_formed(new):
                raise CardError(StatusWord.INCORRECT_DATA)
            # The security status of the PIN does not change.
            await self.application.memory.change(new)
            await self._records.note_pin_changed(PinReference.APPLICATION_PIN)

    async def set_tries(self, pin_tries: int, puk_tries: int) -> None:
        """Sets how many wrong tries block PIN and PUK, and gives both their well-known values.

        The values come first, so that no value of before has tries again if the power fails.

        Raises:
            CardError: 6A81: the PIN is a token's, which nobody can set.
        """
        if self.application.memory.is_token_pin:
            raise CardError(StatusWord.FUNCTION_NOT_SUPPORTED)
        with trio.CancelScope(shield=True):
            await self._set_defaults()
            await self.application.memory.set_max_tries(pin_tries)
            await self.puk.memory.set_max_tries(puk_tries)
        self.application.end()
        self._fresh = False

    async def restore_defaults(self) -> None:
        """Gives PIN and PUK the values and tries of a card that was reset."""
        await self.set_tries(DEFAULT_TRIES, DEFAULT_TRIES)

    async def are_blocked(self) -> bool:
        """Tells whether neither PIN nor PUK has a try left."""
        return not (
            await self.application.memory.tries_left() or await self.puk.memory.tries_left()
        )

    async def _set_defaults(self) -> None:
        await self.application.memory.change(DEFAULT_PIN)
        await self.puk.memory.change(DEFAULT_PUK)
        defaults = bytes([PinReference.APPLICATION_PIN, PinReference.PUK])
        await self._records.store({DEFAULT_PINS: defaults})

    def _cardholder_pin(self, reference: int) -> Pin:
        """Gives a PIN that VERIFY takes, which the discovery object decides."""
        if reference == PinReference.APPLICATION_PIN:
            return self.application
        if reference == PinReference.GLOBAL_PIN and self._global_pin_is_used():
            return self._global
        raise CardError(StatusWord.REFERENCED_DATA_NOT_FOUND)

    def _check_candidate(self, pin: Pin, candidate: bytes) -> None:
        if len(candidate) == _SIZE and self._extensions:
            return
        if not is_well_formed(candidate, numeric=not pin.memory.is_token_pin):
            raise CardError(StatusWord.INCORRECT_DATA)


def _check_p1(command: CommandAPDU) -> None:
    if command.p1:
        raise CardError(StatusWord.INCORRECT_P1_P2)


def _two_values(data: bytes) -> tuple[bytes, bytes]:
    if len(data) != 2 * _SIZE:
        raise CardError(StatusWord.INCORRECT_DATA)
    return data[:_SIZE], data[_SIZE:]
