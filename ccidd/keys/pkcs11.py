# SPDX-License-Identifier: Apache-2.0
"""PKCS#11 tokens, named by URIs.

Source: RFC 7512; PKCS #11 Cryptographic Token Interface Base Specification Version 2.40.
"""

import sysconfig
from functools import partial
from pathlib import Path
from typing import Final

from ccidd.errors import UserError
from ccidd.keys.cryptoki import LibraryInfo, TokenFlags, TokenInfo
from ccidd.keys.files import read_secret
from ccidd.keys.inventory import Wanted, find_credentials
from ccidd.keys.key import KeyUnavailableError
from ccidd.keys.sessions import TokenSource, connect
from ccidd.keys.token import LoginResult, Token
from ccidd.keys.uri import Pkcs11Uri, parse_uri

__all__ = ["MAX_SESSIONS", "TIMEOUT", "LoginResult", "Token", "open_token"]

TIMEOUT: Final = 60.0
"""Seconds that a token may take for anything; some wait for their holder to touch them."""

MAX_SESSIONS: Final = 4
"""Sessions with a token at a time: few cards share one, and each costs a process."""


def open_token(uri: str, *, timeout: float = TIMEOUT, max_sessions: int = MAX_SESSIONS) -> Token:
    """Opens a PKCS#11 token, and finds its keys. Blocks; called before anything else runs.

    With `pin-source` the token is logged in from the start; but not if it says that its PIN was
    wrong before, since a service that is started again and again would block it.

    Args:
        uri: RFC 7512; `module-path` (or `module-name`) is needed. `object` and `id` choose among
            the keys; else all keys with certificates are taken, in the order of their CKA_ID.
        timeout: seconds that the token may take for anything.
        max_sessions: how many sessions to have at a time, if the token allows so many.

    Raises:
        UserError: The URI is wrong, the token cannot be used, or has no such key.
    """
    parsed = parse_uri(uri)
    if parsed.type not in {None, "cert", "private"}:
        raise UserError(f"a PKCS#11 URI with type={parsed.type}, but a card needs a private key")
    pin = _pin(parsed.pin_source) if parsed.pin_source is not None else None
    source = TokenSource(
        name="the PKCS#11 token" if parsed.token is None else f"the token {parsed.token!r}",
        module=_module(parsed),
        parameters=None,
        matches=partial(_matches, parsed),
        timeout=timeout,
    )
    try:
        token = Token(source, connect(source), max_sessions)
        try:
            _check(token, pin)
            token.set_credentials(find_credentials(token, Wanted(parsed.object, parsed.id)))
        except BaseException:
            token.close()
            raise
    except KeyUnavailableError as error:
        raise UserError(str(error)) from error
    return token


def _check(token: Token, pin: bytes | None) -> None:
    if TokenFlags.PROTECTED_AUTHENTICATION_PATH in token.info.flags:
        raise UserError(f"{token.name} wants its PIN at a keypad of its own; use another token")
    if pin is None:
        return
    status = token.pin_status_sync()
    if status is not LoginResult.OK:
        raise UserError(
            f"{token.name} says that its PIN is {status.value}: the PIN of pin-source= is not"
            " tried; log in once with another program (pkcs11-tool --login --test)"
        )
    result = token.login_sync(pin)
    if result is not LoginResult.OK:
        raise UserError(f"the PIN of pin-source= for {token.name} is {result.value}")


def _pin(pin_source: str) -> bytes:
    """Reads the PIN from a file (RFC 7512, 2.4: a path, or a URI for one)."""
    path = pin_source.removeprefix("file:").removeprefix("//")
    if not path.startswith("/"):
        raise UserError("a PKCS#11 URI whose pin-source is no absolute path of a file")
    return read_secret(Path(path))


def _module(uri: Pkcs11Uri) -> str:
    """Gives the path of the module."""
    if uri.module_path is not None:
        if not uri.module_path.startswith("/"):
            raise UserError("a PKCS#11 URI whose module-path is no absolute path")
        if not Path(uri.module_path).is_file():
            raise UserError(f"there is no PKCS#11 module {uri.module_path}")
        return uri.module_path
    if uri.module_name is None:
        # p11-kit would name all modules of the machine, and one of them may use this very reader.
        raise UserError("a PKCS#11 URI without ?module-path=, the path of the PKCS#11 module")
    if "/" in uri.module_name:
        raise UserError("a PKCS#11 URI whose module-name is a path; use module-path")
    directories = _module_directories()
    for directory in directories:
        # RFC 7512, 2.3: less what the platform puts before and behind the name.
        for file in (f"{uri.module_name}.so", f"lib{uri.module_name}.so"):
            if (directory / file).is_file():
                return str(directory / file)
    raise UserError(
        f"there is no PKCS#11 module {uri.module_name!r} in"
        f" {', '.join(map(str, directories))}; use module-path"
    )


def _module_directories() -> list[Path]:
    """Where distributions put PKCS#11 modules."""
    triplet = sysconfig.get_config_var("MULTIARCH") or ""
    return [Path("/usr/lib", triplet, "pkcs11"), Path("/usr/lib64/pkcs11"), Path("/usr/lib/pkcs11")]


def _matches(uri: Pkcs11Uri, library: LibraryInfo, token: TokenInfo) -> bool:
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
