# SPDX-License-Identifier: Apache-2.0
"""The PIN of a card whose keys are on a token: it is the token's (C_Login, C_SetPIN).

ccidd counts the tries as well, durably and before the token sees the PIN: many tokens count none,
an NSS database for one, and those that do are not to be blocked by a guest that never gives up.
Of its own counter a token tells no number, but flags (PKCS #11 2.40, 3.2, CK_TOKEN_INFO). What is
left is the least of what ccidd has counted and what the token says:

=========================  ==========
CKF_USER_PIN_LOCKED        0 (6983)
CKF_USER_PIN_FINAL_TRY     1 (63C1)
CKF_USER_PIN_COUNT_LOW     2 (63C2)
=========================  ==========

A token with a keypad of its own (CKF_PROTECTED_AUTHENTICATION_PATH) asks there for its PIN, while
the guest's command waits; the PIN in that command is not looked at.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import structlog

from ccid_protocol.apdu import StatusWord
from ccidd.card.application import CardError
from ccidd.card.pin import PinMemory
from ccidd.keys.key import KeyUnavailableError
from ccidd.keys.token import ChangeResult, LoginResult, Token
from ccidd.service.state import State
from ccidd.service.state.schema import MAX_TRIES

_PADDING: Final = b"\xff"

_AT_MOST: Final = {LoginResult.LOCKED: 0, LoginResult.LAST_TRY: 1, LoginResult.FEW_LEFT: 2}

_NOT_CHANGED: Final = {
    ChangeResult.UNFIT: StatusWord.INCORRECT_DATA,
    ChangeResult.IMPOSSIBLE: StatusWord.FUNCTION_NOT_SUPPORTED,
}

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_T = TypeVar("_T")


class TokenPin(PinMemory):
    """The PIN of one token, or of several that have the same.

    Args:
        state: where tries are counted.
        guid: the card's GUID.
        reference: the PIN's key reference.
        tokens: the tokens; the first is asked whether a PIN is right, and then the others.
        keep: how many tries guests leave. The guard before the card keeps them too; but between its
            question and the try, a guest of another ccidd may have made one.
    """

    def __init__(
        self, state: State, guid: str, reference: int, tokens: Sequence[Token], *, keep: int = 0
    ) -> None:
        self._state = state
        self._keep = keep
        self._place = guid, reference
        self._tokens = tokens
        state.note_pin(guid, reference)

    async def tries_left(self) -> int:
        """See `PinMemory.tries_left`."""
        record = await self._call(self._state.pin)
        counted = 0 if record is None else record.tries_left
        try:
            status = await self._tokens[0].pin_status()
        except KeyUnavailableError:
            return counted
        return min(counted, _AT_MOST.get(status, counted))

    async def max_tries(self) -> int:
        """See `PinMemory.max_tries`."""
        record = await self._call(self._state.pin)
        return MAX_TRIES if record is None else record.max_tries

    async def compare(self, candidate: bytes) -> bool:
        """See `PinMemory.compare`.

        Raises:
            CardError: 6F00: the token is not there or does not work. The PIN was not compared, and
                the try is given back. 6985: it was not entered at the token's keypad; likewise.
        """
        if await self._call(partial(self._state.spend_try, keep=self._keep)) is None:
            return False
        pin = candidate.rstrip(_PADDING)
        for token in self._tokens:
            if token.has_keypad:
                log.info("token_asks_for_its_pin", token=token.name)
            try:
                result = await token.login(pin)
            except KeyUnavailableError as error:
                log.warning("token_unavailable", token=token.name, reason=str(error))
                await self._call(self._state.return_try)
                raise CardError(StatusWord.NO_PRECISE_DIAGNOSIS) from error
            if result is LoginResult.CANCELLED:
                log.info("token_pin_not_entered", token=token.name)
                await self._call(self._state.return_try)
                raise CardError(StatusWord.CONDITIONS_NOT_SATISFIED)
            if result is not LoginResult.OK:
                log.info("token_pin_refused", token=token.name, result=result.value)
                return False
        await self._call(self._state.restore_tries)
        return True

    async def change(self, new: bytes) -> None:  # noqa: ARG002 (it is not used)
        """See `PinMemory.change`: a token's PIN is not changed without the one that it has.

        Raises:
            CardError: 6A81, always.
        """
        raise CardError(StatusWord.FUNCTION_NOT_SUPPORTED)

    async def replace(self, current: bytes, new: bytes) -> None:
        """See `PinMemory.replace`.

        Raises:
            CardError: 6A80: a token cannot have that PIN; 6A81: it does not let it be changed;
                6F00: it is not there or does not work. If there are several, they have one PIN
                still, unless one that was changed already fails.
        """
        # Several may be the same token, each for some of its keys.
        tokens = [
            token
            for index, token in enumerate(self._tokens)
            if not any(token.is_same(other) for other in self._tokens[:index])
        ]
        for index, token in enumerate(tokens):
            try:
                await self._change(token, new)
            except CardError:
                for other in tokens[:index]:
                    await self._change_back(other, current)
                raise

    async def _change(self, token: Token, new: bytes) -> None:
        pin = new.rstrip(_PADDING)
        try:
            result = await token.change_pin(pin)
        except KeyUnavailableError as error:
            log.warning("token_unavailable", token=token.name, reason=str(error))
            raise CardError(StatusWord.NO_PRECISE_DIAGNOSIS) from error
        if result is not ChangeResult.OK:
            log.info("token_pin_not_changed", token=token.name, reason=result.value)
            raise CardError(_NOT_CHANGED[result])
        for other in self._tokens:
            if other is not token and other.is_same(token):
                await other.follow_change(pin)

    async def _change_back(self, token: Token, pin: bytes) -> None:
        try:
            await self._change(token, pin)
        except CardError:
            log.error("token_keeps_the_new_pin", token=token.name)  # noqa: TRY400 (told before)

    def end(self) -> None:
        """See `PinMemory.end`: logs the tokens out."""
        for token in self._tokens:
            token.end_login()

    @property
    def is_token_pin(self) -> bool:
        """See `PinMemory.is_token_pin`."""
        return True

    async def set_max_tries(self, count: int) -> None:
        """See `PinMemory.set_max_tries`."""
        await self._call(partial(self._state.set_max_tries, count=count))

    async def _call(self, operation: Callable[[str, int], _T]) -> _T:
        return await self._state.in_thread(partial(operation, *self._place))
