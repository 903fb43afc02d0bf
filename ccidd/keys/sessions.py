# SPDX-License-Identifier: Apache-2.0
"""Sessions with a PKCS#11 token: several at a time, and new ones where a token was lost.

Everything here blocks, and is called from worker threads, or before anything else runs.

Source: PKCS #11 Cryptographic Token Interface Base Specification Version 2.40, 2.6.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ccidd.keys.cryptoki import (
    Cryptoki,
    CryptokiError,
    LibraryInfo,
    TokenFlags,
    TokenInfo,
    TokenObject,
)
from ccidd.keys.key import KeyUnavailableError

_MAX_NAMED: Final = 5
"""Tokens that a message names."""


class NoSessionLeftError(KeyUnavailableError):
    """A token does not allow another session now."""


@dataclass(frozen=True, slots=True)
class TokenSource:
    """Where a token is found.

    Args:
        name: what messages call it.
        module: the path of the PKCS#11 module.
        parameters: what the module takes at its initialisation, if it takes any.
        parameters_to_write: what it takes instead, for a session that is to change something.
        matches: tells whether a token is the one.
        timeout: seconds that the module may take for anything.
    """

    name: str
    module: str
    parameters: str | None
    matches: Callable[[LibraryInfo, TokenInfo], bool] = field(repr=False)
    timeout: float
    parameters_to_write: str | None = None


class Session:
    """A session with a token."""

    def __init__(self, cryptoki: Cryptoki, token: TokenInfo, mechanisms: frozenset[str]) -> None:
        self.cryptoki: Final = cryptoki
        self.token: Final = token
        self.mechanisms: Final = mechanisms
        self.login_number = 0
        """Which of the token's logins and logouts it has followed; see `ccidd.keys.token`."""
        self.was_used = False
        self._private_keys: Sequence[TokenObject] | None = None

    def private_keys(self) -> Sequence[TokenObject]:
        """The private keys that are visible."""
        if self._private_keys is None:
            self._private_keys = self.cryptoki.objects("CKO_PRIVATE_KEY")
        return self._private_keys

    def login(self, pin: bytes) -> None:
        """Logs in; see `Cryptoki.login`."""
        self._private_keys = None
        self.cryptoki.login(pin)

    def logout(self) -> None:
        """Logs out, if logged in."""
        self._private_keys = None
        self.cryptoki.logout()

    def is_alive(self) -> bool:
        """Tells whether the session still is one, and with the same token."""
        try:
            self.cryptoki.check()
            return self.cryptoki.token(self.token.slot).is_same_token(self.token)
        except CryptokiError:
            return False


def connect(source: TokenSource, known: TokenInfo | None = None) -> Session:
    """Opens a session in a new process.

    Args:
        source: where the token is found.
        known: the token as it was before; one of the same name is not taken for it.

    Raises:
        KeyUnavailableError: There is no such token, or more than one, or it does not work.
        NoSessionLeftError: The token does not allow another session now.
    """
    cryptoki = Cryptoki(source.timeout)
    try:
        library = cryptoki.load(source.module, source.parameters)
        token = _find(source, known, library, cryptoki.tokens())
        cryptoki.open(token.slot)
        return Session(cryptoki, token, cryptoki.mechanisms(token.slot))
    except CryptokiError as error:
        cryptoki.close()
        if error.reason == "CKR_SESSION_COUNT":
            raise NoSessionLeftError(
                f"{source.name} has no session left; does another program use it?"
            ) from error
        raise KeyUnavailableError(f"{source.name} cannot be used: {error}") from error
    except BaseException:
        cryptoki.close()
        raise


def _find(
    source: TokenSource, known: TokenInfo | None, library: LibraryInfo, tokens: Sequence[TokenInfo]
) -> TokenInfo:
    present = [token for token in tokens if token.flags & TokenFlags.TOKEN_INITIALIZED]
    found = [
        token
        for token in present
        if source.matches(library, token) and (known is None or token.is_same_token(known))
    ]
    if not found:
        labels = sorted(token.label for token in present)
        names = ", ".join(map(repr, labels[:_MAX_NAMED])) or "none"
        raise KeyUnavailableError(
            f"{source.name} is not there; tokens that {source.module} has: {names}"
        )
    if len(found) > 1:
        raise KeyUnavailableError(
            f"{source.name} may be any of {len(found)} tokens that {source.module} has;"
            " add serial= or slot-id= to its URI"
        )
    return found[0]


class SessionPool:
    """The sessions with a token.

    Args:
        connect: opens another one.
        first: the one that is open.
        limit: how many there may be at a time; fewer if the token does not allow so many.
    """

    def __init__(self, connect: Callable[[], Session], first: Session, limit: int) -> None:
        self._connect = connect
        self._limit = limit
        self._changed = threading.Condition()
        self._idle = [first]
        self._sessions = {first}
        self._places_taken = 1
        self._closed = False

    def take(self) -> Session:
        """Takes a session that nobody uses; waits where the token allows no other.

        Raises:
            KeyUnavailableError: The token is not there or does not work, or the pool is closed.
        """
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._idle or self._places_taken < self._limit
                )
                self._check_open()
                if self._idle:
                    return self._idle.pop()
                self._places_taken += 1
            try:
                session = self._connect()
            except KeyUnavailableError as error:
                if not self._can_do_without(error):
                    raise
                continue
            except BaseException:
                self._give_up_place()
                raise
            with self._changed:
                self._sessions.add(session)
            return session

    def _check_open(self) -> None:
        if self._closed:
            raise KeyUnavailableError("the token was closed")

    def _can_do_without(self, error: KeyUnavailableError) -> bool:
        """Waits for one of the sessions that there are, if there are any, as no other was opened.

        SoftHSM, for one, does not find a token at the moment when another session logs in.
        """
        with self._changed:
            self._places_taken -= 1
            self._changed.notify_all()
            if not self._places_taken:
                return False
            if isinstance(error, NoSessionLeftError):
                self._limit = self._places_taken
            self._changed.wait_for(lambda: self._closed or self._idle or not self._places_taken)
            return True

    def _give_up_place(self) -> None:
        with self._changed:
            self._places_taken -= 1
            self._changed.notify_all()

    def give_back(self, session: Session) -> None:
        """Gives back a session that was taken."""
        with self._changed:
            if not self._closed:
                self._idle.append(session)
                self._changed.notify_all()
                return
        self.discard(session)

    def discard(self, session: Session) -> None:
        """Closes a session that was taken, and is of no more use."""
        session.cryptoki.close()
        with self._changed:
            self._sessions.discard(session)
        self._give_up_place()

    def take_all_idle(self) -> list[Session]:
        """Takes all sessions that nobody uses."""
        with self._changed:
            idle, self._idle = self._idle, []
            return idle

    def close(self) -> None:
        """Closes all sessions; those in use by force, so that those who use them get an error."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            for session in self._sessions.difference(idle):
                session.cryptoki.kill()
            self._changed.notify_all()
        for session in idle:
            session.cryptoki.end()
        for session in idle:
            self.discard(session)
