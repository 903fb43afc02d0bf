# SPDX-License-Identifier: Apache-2.0
"""PKCS#11 tokens, named by URIs.

Source: RFC 7512; PKCS #11 Cryptographic Token Interface Base Specification Version 2.40.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from ccidd.errors import UserError
from ccidd.keys.cryptoki import LibraryInfo, TokenInfo
from ccidd.keys.files import CREDENTIAL, read_secret
from ccidd.keys.inventory import Wanted, find_credentials
from ccidd.keys.key import KeyUnavailableError
from ccidd.keys.modules import module_of
from ccidd.keys.sessions import TokenSource, connect
from ccidd.keys.token import LoginResult, Token
from ccidd.keys.tokenwatch import PresentToken
from ccidd.keys.uri import Pkcs11Uri, check_key_uri, parse_uri

__all__ = [
    "MAX_SESSIONS",
    "TIMEOUT",
    "LoginResult",
    "PinRefusedError",
    "Token",
    "check_uri",
    "matches",
    "open_present_token",
    "open_token",
]

TIMEOUT: Final = 60.0
"""Seconds that a token may take for anything; some wait for their holder to touch them."""

MAX_SESSIONS: Final = 4
"""Sessions with a token at a time: few cards share one, and each costs a process."""


class PinRefusedError(UserError):
    """A token has another PIN than the one of `pin-source`, which has cost it a try."""


def open_token(
    uri: str,
    *,
    timeout: float = TIMEOUT,
    max_sessions: int = MAX_SESSIONS,
    log_in: bool = True,
) -> Token:
    """Opens a PKCS#11 token, and finds its keys. Blocks; called before anything else runs.

    With `pin-source` the token is logged in from the start; but not if it says that its PIN was
    wrong before, since a service that is started again and again would block it.

    Args:
        uri: RFC 7512; `module-path` (or `module-name`) is needed. `object` and `id` choose among
            the keys; else all keys with certificates are taken, in the order of their CKA_ID.
        timeout: seconds that the token may take for anything.
        max_sessions: how many sessions to have at a time, if the token allows so many.
        log_in: whether to use a `pin-source`.

    Raises:
        UserError: The URI is wrong, the token cannot be used, or has no such key.
    """
    parsed = parse_uri(uri)
    check_key_uri(parsed, needs_module=True)
    check_uri(parsed)
    module = module_of(parsed)
    assert module is not None
    source = TokenSource(
        name="the PKCS#11 token" if parsed.token is None else f"the token {parsed.token!r}",
        module=module,
        parameters=None,
        matches=partial(matches, parsed),
        timeout=timeout,
    )
    if not log_in:
        parsed = replace(parsed, pin_source=None)
    return _open(source, None, parsed, max_sessions)


def open_present_token(present: PresentToken, uri: Pkcs11Uri, *, timeout: float = TIMEOUT) -> Token:
    """Opens a PKCS#11 token that was seen, and finds its keys; see `open_token`. Blocks.

    Args:
        present: the token.
        uri: which of its keys are wanted, and where its PIN is, if it is needed to see them.
        timeout: seconds that the token may take for anything.

    Raises:
        UserError: It is there no more, cannot be used, or has no such key.
    """

    def is_it(_library: LibraryInfo, token: TokenInfo) -> bool:
        return not present.number or token.slot == present.info.slot

    source = TokenSource(f"the token {present.info.label!r}", present.module, None, is_it, timeout)
    return _open(source, present.info, uri, MAX_SESSIONS)


def check_uri(uri: Pkcs11Uri) -> bytes | None:
    """Gives the PIN that a URI for keys names a file with, if it names one.

    Raises:
        UserError: The URI is for something else than keys, or the file cannot be read.
    """
    check_key_uri(uri)
    return None if uri.pin_source is None else _pin(uri.pin_source)


def _open(source: TokenSource, known: TokenInfo | None, uri: Pkcs11Uri, max_sessions: int) -> Token:
    pin = check_uri(uri)
    try:
        token = Token(source, connect(source, known), max_sessions)
        try:
            _check(token, pin)
            token.set_credentials(find_credentials(token, Wanted(uri.object, uri.id)))
        except BaseException:
            token.close()
            raise
    except KeyUnavailableError as error:
        raise UserError(str(error)) from error
    return token


def _check(token: Token, pin: bytes | None) -> None:
    if pin is None:
        return
    if token.has_keypad:
        raise UserError(f"{token.name} wants its PIN at a keypad of its own; leave out pin-source")
    status = token.pin_status_sync()
    if status is not LoginResult.OK:
        raise UserError(
            f"{token.name} says that its PIN is {status.value}: the PIN of pin-source= is not"
            " tried; log in once with another program (pkcs11-tool --login --test)"
        )
    result = token.login_sync(pin)
    if result is not LoginResult.OK:
        raise PinRefusedError(f"the PIN of pin-source= for {token.name} is {result.value}")
    token.stay_logged_in()


def _pin(pin_source: str) -> bytes:
    """Reads the PIN from a file (RFC 7512, 2.4: a path, or a URI for one), or a credential."""
    if pin_source.startswith(CREDENTIAL):
        return read_secret(Path(pin_source))
    path = pin_source.removeprefix("file:").removeprefix("//")
    if not path.startswith("/"):
        raise UserError("a PKCS#11 URI whose pin-source is no absolute path of a file")
    return read_secret(Path(path))


def matches(uri: Pkcs11Uri, library: LibraryInfo, token: TokenInfo) -> bool:
    """Tells whether a URI names a token: RFC 7512, 2.3, whatever it has must be the same."""
    pairs = (
        (uri.token, token.label),
        (uri.manufacturer, token.manufacturer),
        (uri.serial, token.serial),
        (uri.model, token.model),
        (uri.library_manufacturer, library.manufacturer),
        (uri.library_description, library.description),
        (uri.library_version, library.version),
        (uri.slot_id, token.slot),
        (uri.slot_description, token.slot_description),
        (uri.slot_manufacturer, token.slot_manufacturer),
    )
    return all(asked is None or asked == there for asked, there in pairs)
