# SPDX-License-Identifier: Apache-2.0
"""A PKCS#11 token: its login, and who gets to use its sessions.

A token knows who is logged in for each program; here each session is a program (a process) of its
own. So one session tries a PIN, and the others follow its result before they are next used: with
the PIN that was right, which is kept in memory as long as the token is logged in. It also opens the
token again after it was away, and keys that want a PIN for each operation
(CKA_ALWAYS_AUTHENTICATE); how often the holder must enter it is the card's matter.

Source: PKCS #11 Cryptographic Token Interface Base Specification Version 2.40, 2.4 and 5.6.
"""

import enum
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

import trio

from ccidd.keys.cryptoki import PROCESS_ENDED, CryptokiError, TokenFlags, TokenInfo, TokenObject
from ccidd.keys.key import (
    Credential,
    InvalidInputError,
    KeyUnavailableError,
    LoginNeededError,
)
from ccidd.keys.sessions import Session, SessionPool, TokenSource, connect

_T = TypeVar("_T")

_WRONG_PIN: Final = frozenset({"CKR_PIN_INCORRECT", "CKR_PIN_INVALID", "CKR_PIN_LEN_RANGE"})
_PIN_REFUSED: Final = _WRONG_PIN | {"CKR_PIN_LOCKED"}
_CANCELLED: Final = frozenset({"CKR_CANCEL", "CKR_FUNCTION_CANCELED", "CKR_FUNCTION_REJECTED"})
_UNFIT_PIN: Final = frozenset({"CKR_PIN_INVALID", "CKR_PIN_LEN_RANGE", "CKR_PIN_TOO_WEAK"})
_NEVER_CHANGED: Final = frozenset(
    {
        "CKR_ACTION_PROHIBITED",
        "CKR_FUNCTION_NOT_SUPPORTED",
        "CKR_SESSION_READ_ONLY",
        "CKR_TOKEN_WRITE_PROTECTED",
    }
)

# What a token, or its module, says after the token was taken out, or lost its power.
_LOST: Final = frozenset(
    {
        PROCESS_ENDED,
        "CKR_CRYPTOKI_NOT_INITIALIZED",
        "CKR_DEVICE_ERROR",
        "CKR_DEVICE_REMOVED",
        "CKR_GENERAL_ERROR",
        "CKR_KEY_HANDLE_INVALID",
        "CKR_OBJECT_HANDLE_INVALID",
        "CKR_SESSION_CLOSED",
        "CKR_SESSION_HANDLE_INVALID",
        "CKR_SLOT_ID_INVALID",
        "CKR_TOKEN_NOT_PRESENT",
        "CKR_TOKEN_NOT_RECOGNIZED",
        "CKR_USER_NOT_LOGGED_IN",
    }
)


class LoginResult(enum.Enum):
    """What a token says to a PIN, and of the tries that are left; it does not give their number."""

    OK = "ok"
    WRONG = "wrong"
    FEW_LEFT = "wrong, and few tries are left"
    LAST_TRY = "wrong, and one try is left"
    LOCKED = "locked"
    CANCELLED = "not entered at the token's keypad"


class ChangeResult(enum.Enum):
    """What becomes of a new PIN."""

    OK = "ok"
    UNFIT = "the token cannot have such a PIN"
    IMPOSSIBLE = "the PIN of this token cannot be changed"


@dataclass(frozen=True, slots=True)
class _Login:
    """Who is logged in."""

    number: int
    pin: bytes | None = field(repr=False)
    """The PIN; empty if it was entered at the token itself."""


class KeyNotFoundError(KeyUnavailableError):
    """A session does not show a private key that it should."""


class _SessionLostError(KeyUnavailableError):
    """A session of earlier is none any more."""


class Token:
    """A PKCS#11 token that is in use.

    A token that goes away and comes back is opened again, and logged in as it was.

    Args:
        source: where it is found.
        first: a session with it.
        max_sessions: how many sessions to have at a time, if the token allows so many.
    """

    def __init__(self, source: TokenSource, first: Session, max_sessions: int) -> None:
        self.name: Final = source.name
        self.info: Final[TokenInfo] = first.token
        if 0 < first.token.max_sessions < max_sessions:
            max_sessions = first.token.max_sessions
        if TokenFlags.PROTECTED_AUTHENTICATION_PATH in first.token.flags:
            # Each would want the PIN at the keypad.
            max_sessions = 1
        self.source: Final = source
        self._pool = SessionPool(partial(connect, source, first.token), first, max_sessions)
        self._limiter = trio.CapacityLimiter(max_sessions)
        self._login_lock = threading.Lock()
        self._login = _Login(0, None)
        self._standing_pin: bytes | None = None
        self._logging_out: threading.Thread | None = None
        self._credentials: Sequence[Credential] = ()

    @property
    def needs_login(self) -> bool:
        """Whether the token has a PIN at all."""
        return TokenFlags.LOGIN_REQUIRED in self.info.flags

    @property
    def has_keypad(self) -> bool:
        """Whether its PIN is entered at the token itself (2.40, 5.6, C_Login without a PIN)."""
        return TokenFlags.PROTECTED_AUTHENTICATION_PATH in self.info.flags

    @property
    def is_logged_in(self) -> bool:
        """Whether a PIN was right, and has not been ended by a logout or a wrong one."""
        return self._login.pin is not None

    def pin_for(self, key: TokenObject) -> bytes | None:
        """Gives the PIN for an operation of a key that wants it each time."""
        return self._login.pin if key.always_authenticate else None

    def credentials(self) -> Sequence[Credential]:
        """The keys of the token that were asked for, each with its certificate."""
        return self._credentials

    def set_credentials(self, credentials: Sequence[Credential]) -> None:
        """Tells the token which of its keys are asked for."""
        self._credentials = credentials

    async def login(self, pin: bytes) -> LoginResult:
        """Has the token check its PIN, and opens its keys if it is right.

        In any case this ends what an earlier one has opened. A token that has no PIN takes the
        empty one and no other; one with a keypad asks for its PIN there, whatever is given here. A
        cancelled caller waits for the token, since a try is at stake.

        Raises:
            KeyUnavailableError: The token is not there or does not work; the PIN was not compared.
        """
        return await trio.to_thread.run_sync(self.login_sync, pin, limiter=self._limiter)

    async def logout(self) -> None:
        """Ends what a PIN has opened."""
        await trio.to_thread.run_sync(self._logout, limiter=self._limiter)

    def stay_logged_in(self) -> None:
        """Has the token be logged in as it is now, whenever no other PIN opens it."""
        self._standing_pin = self._login.pin

    def end_login(self) -> None:
        """Ends what a PIN has opened, without waiting: the PIN is forgotten at once.

        A thread logs the sessions out, which what comes next waits for.
        """
        if self._login.pin != self._standing_pin:
            self._end_login()
            self._logging_out = threading.Thread(target=self._log_out_idle, daemon=True)
            self._logging_out.start()

    def is_same(self, other: "Token") -> bool:
        """Tells whether another object is for the same token."""
        ours, theirs = self.source, other.source
        same_module = (ours.module, ours.parameters) == (theirs.module, theirs.parameters)
        return same_module and self.info.is_same_token(other.info)

    async def follow_change(self, new: bytes) -> None:
        """Hears that the token's PIN was changed by another object for the same token."""
        await trio.to_thread.run_sync(self._follow_change, new, limiter=self._limiter)

    async def change_pin(self, new: bytes) -> ChangeResult:
        """Changes the PIN that the token is logged in with; then it is logged in with the new one.

        A cancelled caller waits for the token.

        Raises:
            KeyUnavailableError: The token is not there or does not work, or is not logged in.
        """
        return await trio.to_thread.run_sync(self._change_pin, new, limiter=self._limiter)

    async def pin_status(self) -> LoginResult:
        """Asks the token what it says of its PIN, which costs no try; OK means nothing special.

        Raises:
            KeyUnavailableError: The token is not there or does not work.
        """
        return await trio.to_thread.run_sync(
            self.pin_status_sync, abandon_on_cancel=True, limiter=self._limiter
        )

    async def perform(self, operation: Callable[[Session], _T]) -> _T:
        """Does an operation in a session, in a worker thread.

        A cancelled caller does not wait: the thread gives the session back when it is done.

        Raises:
            InvalidInputError: The operation raised it.
            KeyUnavailableError: The token is not there or does not work, or is not logged in.
        """
        return await trio.to_thread.run_sync(
            self.perform_sync, operation, abandon_on_cancel=True, limiter=self._limiter
        )

    def close(self) -> None:
        """Closes all sessions. Takes up to some seconds for a token that hangs."""
        self._forget_login()
        self._pool.close()
        self._await_logout()

    def login_sync(self, pin: bytes) -> LoginResult:
        """See `login`; blocks."""
        if not self.needs_login:
            return LoginResult.OK if not pin else LoginResult.WRONG
        with self._login_lock:
            self._end_login()
        if self.has_keypad:
            pin = b""
        elif not pin or b"\0" in pin:
            # An empty PIN tells some modules to ask for it themselves; NSS ends a PIN at a NUL.
            return LoginResult.WRONG
        session = self._take_alive()
        with self._login_lock:
            self._end_login()
            try:
                result = self._try(session, pin)
            except BaseException:
                self._pool.discard(session)
                raise
            if result is LoginResult.OK:
                self._login = _Login(self._login.number, pin)
            if result is LoginResult.OK or self._standing_pin is None:
                session.login_number = self._login.number
        self._give_back(session)
        return result

    def _end_login(self) -> None:
        """Ends the login; sessions follow before they are next used."""
        self._login = _Login(self._login.number + 1, self._standing_pin)

    def _forget_login(self) -> None:
        """Ends the login when its PIN is of no more use."""
        self._standing_pin = None
        self._end_login()

    def _try(self, session: Session, pin: bytes) -> LoginResult:
        try:
            session.login(pin)
        except CryptokiError as error:
            if error.reason == "CKR_PIN_LOCKED":
                return LoginResult.LOCKED
            if error.reason in _CANCELLED:
                return LoginResult.CANCELLED
            if error.reason in _WRONG_PIN:
                return self._tries_left(session)
            raise KeyUnavailableError(f"{self.name} does not take a PIN: {error}") from error
        return LoginResult.OK

    def _tries_left(self, session: Session) -> LoginResult:
        try:
            status = self._pin_status(session)
        except KeyUnavailableError:
            return LoginResult.WRONG
        return LoginResult.WRONG if status is LoginResult.OK else status

    def pin_status_sync(self) -> LoginResult:
        """See `pin_status`; blocks."""
        session = self._take_alive()
        try:
            return self._pin_status(session)
        finally:
            self._give_back(session)

    def _pin_status(self, session: Session) -> LoginResult:
        try:
            flags = session.cryptoki.token(session.token.slot).flags
        except CryptokiError as error:
            raise KeyUnavailableError(f"{self.name} cannot be used: {error}") from error
        if TokenFlags.USER_PIN_LOCKED in flags:
            return LoginResult.LOCKED
        if TokenFlags.USER_PIN_FINAL_TRY in flags:
            return LoginResult.LAST_TRY
        if TokenFlags.USER_PIN_COUNT_LOW in flags:
            return LoginResult.FEW_LEFT
        return LoginResult.OK

    def _logout(self) -> None:
        with self._login_lock:
            self._end_login()
        self._log_out_idle()

    def _log_out_idle(self) -> None:
        for session in self._pool.take_all_idle():
            self._give_back(session)

    def _await_logout(self) -> None:
        if self._logging_out is not None:
            self._logging_out.join()

    def _change_pin(self, new: bytes) -> ChangeResult:
        pin = self._login.pin
        if pin is None:
            raise LoginNeededError(f"{self.name} is not logged in")
        if self.has_keypad:
            return ChangeResult.IMPOSSIBLE
        if not new or b"\0" in new:
            # An empty one would leave a database open to all.
            return ChangeResult.UNFIT
        # The token may allow no session beside the one that changes it.
        self._discard_idle()
        parameters = self.source.parameters_to_write or self.source.parameters
        session = connect(replace(self.source, parameters=parameters), self.info)
        try:
            session.cryptoki.set_pin(pin, new)
        except CryptokiError as error:
            if error.reason in _UNFIT_PIN:
                return ChangeResult.UNFIT
            if error.reason in _NEVER_CHANGED:
                return ChangeResult.IMPOSSIBLE
            if error.reason in _PIN_REFUSED:
                with self._login_lock:
                    self._forget_login()
                raise self._other_pin() from error
            raise KeyUnavailableError(f"{self.name} does not change its PIN: {error}") from error
        finally:
            session.cryptoki.close()
        self._set_login_pin(new)
        return ChangeResult.OK

    def _follow_change(self, new: bytes) -> None:
        # SoftHSM, for one, knows a token's PIN as it was when its process began.
        self._discard_idle()
        if self.is_logged_in:
            self._set_login_pin(new)

    def _set_login_pin(self, pin: bytes) -> None:
        with self._login_lock:
            if self._standing_pin is not None:
                self._standing_pin = pin
            self._login = _Login(self._login.number + 1, pin)

    def _take_alive(self) -> Session:
        """Takes a session that is known to work, so that what follows need not be tried twice."""
        self._await_logout()
        while True:
            session = self._pool.take()
            if not session.was_used or session.is_alive():
                session.was_used = True
                return session
            self._pool.discard(session)
            self._discard_idle()

    def _discard_idle(self) -> None:
        for session in self._pool.take_all_idle():
            self._pool.discard(session)

    def _give_back(self, session: Session) -> None:
        """Gives a session back, logged out if the token was meanwhile."""
        try:
            if self._login.pin is None:
                self._follow_login(session)
        except (CryptokiError, KeyUnavailableError):
            self._pool.discard(session)
        else:
            self._pool.give_back(session)

    def perform_sync(self, operation: Callable[[Session], _T]) -> _T:
        """See `perform`; blocks. What fails in a session of earlier is tried again in a new one."""
        try:
            return self._perform_once(operation)
        except _SessionLostError:
            # So, if the token was away, are the other sessions of earlier.
            self._discard_idle()
            return self._perform_once(operation)

    def _perform_once(self, operation: Callable[[Session], _T]) -> _T:
        session = self._pool.take()
        was_used, session.was_used = session.was_used, True
        try:
            self._follow_login(session)
            result = operation(session)
        except CryptokiError as error:
            if error.reason == "CKR_USER_NOT_LOGGED_IN" and not self.is_logged_in:
                self._give_back(session)
                raise LoginNeededError(f"{self.name} is not logged in") from error
            self._pool.discard(session)
            if error.reason in _PIN_REFUSED:
                # One key wants its PIN each time (CKA_ALWAYS_AUTHENTICATE).
                with self._login_lock:
                    self._forget_login()
                raise self._other_pin() from error
            text = f"{self.name}: {error}"
            if was_used and error.reason in _LOST:
                raise _SessionLostError(text) from error
            raise KeyUnavailableError(text) from error
        except KeyNotFoundError as error:
            # With some modules a token that was taken out just seems to be empty.
            self._pool.discard(session)
            if was_used:
                raise _SessionLostError(str(error)) from error
            raise
        except (InvalidInputError, KeyUnavailableError):
            self._give_back(session)
            raise
        except BaseException:
            self._pool.discard(session)
            raise
        self._give_back(session)
        return result

    def _follow_login(self, session: Session) -> None:
        """Logs a session in or out, as another has been before.

        Raises:
            CryptokiError: The session is of no more use.
            KeyUnavailableError: The PIN that was right is wrong now; it is not tried again.
        """
        if session.login_number == self._login.number:
            return
        # One at a time, so that a PIN that has been changed costs one try at most.
        with self._login_lock:
            login = self._login
            if login.pin is None:
                session.logout()
            elif self.has_keypad:
                # Nobody expects to be asked now.
                self._end_login()
                raise KeyUnavailableError(f"{self.name} wants its PIN at its keypad again")
            else:
                try:
                    session.login(login.pin)
                except CryptokiError as error:
                    if error.reason in _PIN_REFUSED:
                        self._forget_login()
                        raise self._other_pin() from error
                    raise
            session.login_number = login.number

    def _other_pin(self) -> LoginNeededError:
        return LoginNeededError(f"{self.name} has another PIN now; it must be entered again")
