# SPDX-License-Identifier: Apache-2.0
"""Where the keys of a card come from that `--card` describes: files, NSS databases, tokens."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ccidd.errors import UserError
from ccidd.keys.files import load_credentials, read_secret
from ccidd.keys.key import Credential
from ccidd.keys.nss import open_database
from ccidd.keys.pkcs11 import TIMEOUT, open_token
from ccidd.keys.token import LoginResult, Token
from ccidd.service.cardtypes import CardType
from ccidd.service.options import KEY_OPTION, NSS, PKCS11, CardOptions

_CERTIFICATE: Final = re.compile(r"cert([1-9][0-9]?)")


@dataclass(slots=True)
class Keys:
    """The keys of a card.

    Attributes:
        placed: the keys by their references, in the order of the references.
        tokens: the tokens that some of them are on.
    """

    placed: dict[int, Credential] = field(default_factory=dict)
    tokens: list[Token] = field(default_factory=list)

    @property
    def are_on_tokens(self) -> bool:
        """Whether all keys are on tokens."""
        there = [id(each) for token in self.tokens for each in token.credentials()]
        return all(id(each) in there for each in self.placed.values())


class KeySources:
    """Opens what the options of a card name.

    Args:
        options: the options.
        kind: the kind of card.
        resources: closes the tokens, in the end.
        log_in: whether tokens are logged in to, which may cost a try of their PIN. Without, what
            they show without a login is all that is looked at.
        timeout: seconds that a token may take for anything.
    """

    def __init__(
        self,
        options: CardOptions,
        kind: CardType,
        resources: contextlib.ExitStack,
        *,
        log_in: bool = True,
        timeout: float = TIMEOUT,
    ) -> None:
        self._options = options
        self._kind = kind
        self._resources = resources
        self._log_in = log_in
        self._timeout = timeout
        self._where = options.where
        self._tokens: list[Token] = []
        password_file = options.one("password-file")
        with self._where.naming("password-file"):
            self._password = read_secret(Path(password_file)) if password_file else None

    def keys(self) -> Keys:
        """Opens the keys.

        Raises:
            UserError: A file, a database or a token cannot be used, or there is no room for a key.
        """
        placed = dict(self._placed())
        others = [*self._from_files(), *self._from_nss(), *self._from_tokens()]
        free = [reference for reference in self._kind.purposes if reference not in placed]
        if len(others) > len(free):
            total, room = len(others) + len(placed), len(self._kind.purposes)
            raise self._where.error(f"{total} keys, but a card has {room}")
        placed.update(zip(free, others, strict=False))
        if len({each.key.subject_public_key_info() for each in placed.values()}) < len(placed):
            raise self._where.error("the same key is there twice")
        order = [reference for reference in self._kind.purposes if reference in placed]
        return Keys({reference: placed[reference] for reference in order}, self._tokens)

    def log_in(self) -> None:
        """Logs the tokens in with the password of `password-file`, for a card with its own PIN.

        If tokens are not logged in to, it is only checked that there is a password.

        Raises:
            UserError: A token needs a password, or another one.
        """
        for token in self._tokens:
            if not token.needs_login or token.is_logged_in:
                continue
            if token.has_keypad:
                raise self._where.error(
                    f"{token.name} wants its PIN at a keypad of its own: leave this out", "pin-file"
                )
            if self._password is None:
                raise self._where.error(
                    f"{token.name} needs a PIN: leave out pin-file, and the card's PIN is that one;"
                    " or put it into password-file=FILE"
                )
            if not self._log_in:
                continue
            result = token.login_sync(self._password)
            if result is not LoginResult.OK:
                raise self._where.error(
                    f"the PIN of {token.name} is {result.value}", "password-file"
                )

    def _placed(self) -> Iterator[tuple[int, Credential]]:
        for name in self._options.values:
            match = KEY_OPTION.fullmatch(name)
            if match is not None:
                with self._where.naming(name):
                    key = self._one(self._options.one(name) or "")
                yield int(match[1], 16), key

    def _one(self, source: str) -> Credential:
        """Opens a source that is one key."""
        credentials: Sequence[Credential]
        if source.startswith(PKCS11):
            credentials = self._open_token(source)
        elif source.startswith(NSS):
            credentials = self._database([source.removeprefix(NSS)])
        else:
            credentials = load_credentials(Path(source), self._password)
        if len(credentials) != 1:
            raise UserError(f"{source} holds {len(credentials)} keys, and one is needed")
        return credentials[0]

    def _from_files(self) -> Sequence[Credential]:
        found: list[Credential] = []
        with self._where.naming("keys"):
            for file in self._options.values.get("keys", ()):
                found += load_credentials(Path(file), self._password)
        return found

    def _from_nss(self) -> Sequence[Credential]:
        """Opens the certificates of `cert1=`, `cert2=`, ...; without any, all of the database."""
        numbered = {
            int(match[1]): self._options.one(name) or ""
            for name in self._options.values
            if (match := _CERTIFICATE.fullmatch(name)) is not None
        }
        nicknames = [numbered[number] for number in sorted(numbered)]
        uses_some = any(
            value.startswith(NSS)
            for name, (value, *_) in self._options.values.items()
            if KEY_OPTION.fullmatch(name)
        )
        if not nicknames and (uses_some or self._options.one("nss") is None):
            return ()
        with self._where.naming("nss"):
            return self._database(nicknames)

    def _from_tokens(self) -> Sequence[Credential]:
        found: list[Credential] = []
        with self._where.naming("pkcs11"):
            for uri in self._options.values.get("pkcs11", ()):
                found += self._open_token(uri)
        return found

    def _database(self, nicknames: Sequence[str]) -> Sequence[Credential]:
        database = self._options.one("nss")
        assert database is not None
        return self._token(open_database(database, nicknames, timeout=self._timeout))

    def _open_token(self, uri: str) -> Sequence[Credential]:
        return self._token(open_token(uri, timeout=self._timeout, log_in=self._log_in))

    def _token(self, token: Token) -> Sequence[Credential]:
        self._resources.callback(token.close)
        self._tokens.append(token)
        return token.credentials()


def pins_from_files(options: CardOptions) -> Mapping[str, tuple[bytes, str]]:
    """Reads the files with PIN and PUK.

    Returns:
        What is in each, and its name, by option.

    Raises:
        UserError: One cannot be read.
    """
    found = {}
    for name in ("pin-file", "puk-file"):
        file = options.one(name)
        if file is not None:
            with options.where.naming(name):
                found[name] = read_secret(Path(file)), file
    return found
