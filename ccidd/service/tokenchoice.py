# SPDX-License-Identifier: Apache-2.0
"""Which tokens become cards, and where their keys go: what `--card=TYPE,token=…` says of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import structlog

from ccidd.errors import UserError
from ccidd.keys.inventory import Wanted, find_credentials
from ccidd.keys.key import Credential
from ccidd.keys.modules import check_module, configured_modules, module_of
from ccidd.keys.pkcs11 import check_uri, matches
from ccidd.keys.token import Token
from ccidd.keys.tokenwatch import PresentToken, probe_module
from ccidd.keys.uri import Pkcs11Uri, parse_uri
from ccidd.service.cardtypes import CARD_TYPES, key_reference
from ccidd.service.options import ANY_TOKEN, KEY_OPTION, CardOptions
from ccidd.service.placement import place

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """What becomes of a token's keys.

    Attributes:
        placed: those that are on the card, by key reference.
        left_out: those for which there is no place, or that such a card cannot have.
    """

    placed: Mapping[int, Credential]
    left_out: Sequence[Credential]


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """What a `--card` says of tokens.

    Attributes:
        options: all that it says.
        uri: what names its tokens.
        modules: the paths of the PKCS#11 modules that they are looked for with.
        named: the keys whose places are given.
    """

    options: CardOptions
    uri: Pkcs11Uri
    modules: Sequence[str]
    named: Mapping[int, Wanted]

    @classmethod
    def of(cls, options: CardOptions) -> Self:
        """Reads it.

        Raises:
            UserError: The URI is wrong, there is no such module, or a key is named wrongly.
        """
        name = options.one("token") or ""
        with options.where.naming("token"):
            uri = Pkcs11Uri() if name == ANY_TOKEN else parse_uri(name)
            check_uri(uri)
        return cls(options, uri, _modules(options, uri), dict(_named_keys(options)))

    def check_modules(self) -> None:
        """Sees to it that the modules that it names are modules. Blocks.

        Raises:
            UserError: One is something else, which it would be for ever.
        """
        if "module" in self.options.values or self.uri.names_module:
            with self.options.where.naming("token" if self.uri.names_module else "module"):
                for module in self.modules:
                    probe_module(module)

    def includes(self, token: PresentToken) -> bool:
        """Tells whether a token is one that is to become a card."""
        return matches(self.uri, token.library, token.info)

    def named_keys(self, token: Token) -> dict[int, Credential]:
        """Finds the keys whose places are given; one that is not there leaves its place empty.

        Blocks.

        Raises:
            KeyUnavailableError: The token does not work.
        """
        chosen: dict[int, Credential] = {}
        for reference, wanted in self.named.items():
            try:
                chosen[reference] = find_credentials(token, wanted)[0]
            except UserError as error:
                log.info("key_not_found", reference=f"{reference:02X}", reason=str(error))
        return chosen

    def place(self, token: Token, chosen: Mapping[int, Credential]) -> TokenKeys:
        """Gives each key of a token its place.

        Args:
            token: the token.
            chosen: what `named_keys` found.

        Raises:
            UserError: It has no PIN, or no key that such a card can have.
        """
        if not token.needs_login:
            raise UserError(f"{token.name} has no PIN, so that anybody could use its keys")
        kind, switches = CARD_TYPES[self.options.type], self.options.switches
        usable = [each for each in token.credentials() if kind.takes(each.key, switches)]
        placed, left = place(usable, list(kind.purposes), chosen)
        if not placed:
            raise UserError(f"{token.name} has no key that a {self.options.type} card can have")
        unfit = [each for each in token.credentials() if each not in usable]
        return TokenKeys(placed, [*left, *unfit])


def _modules(options: CardOptions, uri: Pkcs11Uri) -> Sequence[str]:
    """Gives the modules whose tokens are followed."""
    with options.where.naming("module"):
        given = [check_module(path) for path in options.values.get("module", ())]
    with options.where.naming("token"):
        named = module_of(uri)
        modules = [named] if named is not None else given or configured_modules()
        if not modules:
            raise UserError("p11-kit has no PKCS#11 modules configured; add module=PATH")
    return modules


def _named_keys(options: CardOptions) -> Sequence[tuple[int, Wanted]]:
    """Reads the options that give keys their places."""
    named = []
    for name in options.values:
        match = KEY_OPTION.fullmatch(name)
        if match is not None:
            uri = parse_uri(options.one(name) or "")
            named.append((key_reference(match[1], options.type), Wanted(uri.object, uri.id)))
    return named
