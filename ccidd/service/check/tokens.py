# SPDX-License-Identifier: Apache-2.0
"""PKCS#11 modules and tokens: what they tell without a login."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from ccidd.errors import UserError
from ccidd.keys.key import KeyUnavailableError
from ccidd.keys.pkcs11 import open_present_token
from ccidd.keys.token import LoginResult, Token
from ccidd.keys.tokenwatch import PresentToken, list_tokens
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.check.certificates import look_at_certificate
from ccidd.service.check.finding import Finding, Severity, ok, refusal, warning
from ccidd.service.options import CardOptions
from ccidd.service.tokenchoice import TokenChoice
from ccidd.service.where import Where

TOKEN_TIMEOUT: Final = 15.0
"""Seconds that a token has for anything while it is looked at."""


def look_at_tokens(options: CardOptions) -> Iterator[Finding]:
    """Looks at the modules and tokens of a `--card` with `token`.

    Raises:
        UserError: A module that it names cannot be used.
    """
    choice = TokenChoice.of(options)
    choice.check_modules()
    found: list[PresentToken] = []
    for module in choice.modules:
        try:
            listed = list_tokens(module, timeout=TOKEN_TIMEOUT)
        except UserError as error:
            yield refusal(error, Severity.WARNING, options.where.of("token"))
            continue
        tokens = sorted(listed, key=lambda token: token.info.label)
        labels = ", ".join(repr(each.info.label) for each in tokens) or "none"
        yield ok(options.where, f"the PKCS#11 module {module} works; tokens there: {labels}")
        found += [each for each in tokens if choice.includes(each)]
    for present in found:
        try:
            yield from _look_at_token(choice, present)
        except (UserError, KeyUnavailableError) as error:
            yield warning(
                options.where, f"the token {present.info.label!r} cannot be used: {error}"
            )
    yield from _look_at_count(options, found)


def _look_at_count(options: CardOptions, found: Sequence[PresentToken]) -> Iterator[Finding]:
    if not found:
        yield warning(
            options.where.of("token"),
            "there is no such token now; the slot is empty until it comes",
        )
    elif len(found) > options.slot_count:
        yield warning(
            options.where,
            f"there are {len(found)} such tokens for {options.slot_count} slots; the others wait",
        )


def _look_at_token(choice: TokenChoice, present: PresentToken) -> Iterator[Finding]:
    options = choice.options
    # Its PIN stays where it is: a login may cost a try.
    uri = replace(choice.uri, pin_source=None)
    token = open_present_token(present, uri, timeout=TOKEN_TIMEOUT)
    try:
        yield from look_at_pin(options.where, token)
        keys = choice.place(token, choice.named_keys(token))
        for reference, each in keys.placed.items():
            kind = CARD_TYPES[options.type]
            yield from look_at_certificate(f"{options.where}", kind, reference, each.certificate)
        names = ", ".join(f"{reference:02X}" for reference in keys.placed)
        yield ok(options.where, f"{token.name} is a {options.type} card with the keys {names}")
    finally:
        token.close()


def look_at_pin(where: Where, token: Token) -> Iterator[Finding]:
    """Looks at what a token says of its PIN."""
    if not token.needs_login:
        return
    try:
        status = token.pin_status_sync()
    except KeyUnavailableError as error:
        yield warning(where, f"{error}")
        return
    if status is not LoginResult.OK:
        yield warning(where, f"{token.name} says that its PIN is {status.value}")
