# SPDX-License-Identifier: Apache-2.0
"""Finds keys with their certificates on a PKCS#11 token.

Before a login a token shows no private keys, as a rule, so keys are found by their certificates,
which it shows: the two have the same CKA_ID.

Source: PKCS #11 Cryptographic Token Interface Base Specification Version 2.40, 4.6.3 and 4.9.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ccidd.errors import UserError
from ccidd.keys.certificates import is_issuer, warn_unless_valid
from ccidd.keys.cryptoki import TokenObject
from ccidd.keys.key import Credential, PublicKey, algorithm_of
from ccidd.keys.sessions import Session
from ccidd.keys.token import Token
from ccidd.keys.tokenkeys import KeyName, lacking_mechanism, token_key

_CKC_X_509: Final = 0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class KeyNotShownError(UserError):
    """A token shows nothing that is asked for; after a login it may show more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which keys are asked for: those of a label or of a CKA_ID, or all."""

    label: str | None = None
    id: bytes | None = None

    @property
    def is_named(self) -> bool:
        """Whether some certain key is asked for."""
        return self.label is not None or self.id is not None

    def includes(self, found: TokenObject) -> bool:
        """Tells whether an object is asked for by its own name."""
        return self.label in {None, found.label} and self.id in {None, found.id}


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a token shows now."""

    certificates: Sequence[TokenObject]
    public_keys: Sequence[TokenObject]
    private_keys: Sequence[TokenObject]

    @classmethod
    def of(cls, session: Session) -> "Inventory":
        """Reads it."""
        return cls(
            session.cryptoki.objects("CKO_CERTIFICATE"),
            session.cryptoki.objects("CKO_PUBLIC_KEY"),
            session.private_keys(),
        )

    def find(self, wanted: Wanted) -> list[TokenObject]:
        """Finds the certificates of what is asked for, which may be named as its key is."""
        keys = (*self.public_keys, *self.private_keys)
        ids = {key.id for key in keys if wanted.includes(key)} - {b""}
        found = [
            certificate
            for certificate in self.certificates
            if certificate.type == _CKC_X_509
            and (wanted.includes(certificate) or certificate.id in ids)
        ]
        return sorted(found, key=lambda certificate: (certificate.id, certificate.label))

    def may_have_key(self, name: KeyName, *, is_issuer: bool) -> bool:
        """Tells whether a certificate's private key is here, as far as the token shows it.

        Args:
            name: what finds the key.
            is_issuer: whether the certificate is that of an issuer.
        """
        if self.private_keys:
            return any(name.is_name_of(key) for key in self.private_keys)
        same_id = [key for key in self.public_keys if key.id == name.id]
        if same_id:
            return any(name.is_name_of(key) for key in same_id)
        return not self.public_keys and not is_issuer


def find_credentials(token: Token, wanted: Wanted) -> list[Credential]:
    """Finds keys with their certificates. Blocks.

    Of certificates for the same key the one that is valid longest is taken.

    Raises:
        KeyUnavailableError: The token does not work.
        KeyNotShownError: There is nothing that is asked for.
        UserError: It cannot be used.
    """
    inventory, credentials, left_out = _find(token, wanted)
    if not credentials and left_out and wanted.is_named:
        raise UserError(left_out[0])
    if not credentials:
        named = f" {wanted.label!r}" if wanted.label is not None else ""
        named += f" with the ID {wanted.id.hex()}" if wanted.id is not None else ""
        there = ", ".join(repr(c.label) for c in inventory.certificates) or "none"
        if token.needs_login and not token.is_logged_in:
            there += " (if it shows them after a login only, give it a pin-source)"
        raise KeyNotShownError(
            f"{token.name} has no certificate{named} with a private key;"
            f" certificates there: {there}{''.join(f'; {reason}' for reason in left_out)}"
        )
    for reason in left_out:
        log.info("certificate_left_out", reason=reason)
    chosen = _longest_valid(credentials)
    for credential in chosen:
        warn_unless_valid(credential.certificate, token.name)
    return chosen


def usable_certificates(token: Token, wanted: Wanted) -> frozenset[bytes]:
    """Tells which certificates `find_credentials` would find now, in DER. Blocks.

    Raises:
        KeyUnavailableError: The token does not work.
    """
    _inventory, credentials, _left_out = _find(token, wanted)
    return frozenset(each.certificate_der() for each in _longest_valid(credentials))


def _find(token: Token, wanted: Wanted) -> tuple[Inventory, list[Credential], list[str]]:
    """Gives what a token shows, its keys, and why other certificates have none."""

    def read(session: Session) -> tuple[Inventory, frozenset[str]]:
        return Inventory.of(session), session.mechanisms

    inventory, mechanisms = token.perform_sync(read)
    credentials = []
    left_out = []
    for found in inventory.find(wanted):
        try:
            credentials.append(_credential(token, inventory, mechanisms, found, wanted))
        except UserError as error:
            left_out.append(f"the certificate {found.label!r} on {token.name} {error}")
    return inventory, credentials, left_out


def _credential(
    token: Token,
    inventory: Inventory,
    mechanisms: frozenset[str],
    found: TokenObject,
    wanted: Wanted,
) -> Credential:
    """Makes a credential; the texts of errors go on from the certificate's name."""
    try:
        certificate = x509.load_der_x509_certificate(found.value)
        public_key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError("cannot be read") from error
    try:
        algorithm = algorithm_of(public_key)
    except UserError as error:
        raise UserError(f"has an unsuitable key: {error}") from error
    assert isinstance(public_key, PublicKey)
    name = KeyName(found.id, found.label, public_key)
    if not inventory.may_have_key(name, is_issuer=is_issuer(certificate) and not wanted.is_named):
        raise UserError("has no private key there")
    lacking = lacking_mechanism(algorithm, mechanisms)
    if lacking:
        raise UserError(f"has an {algorithm.value} key, for which the token lacks {lacking}")
    return Credential(token_key(token, name), certificate)


def _longest_valid(credentials: Iterable[Credential]) -> list[Credential]:
    chosen: dict[bytes, Credential] = {}
    for credential in credentials:
        key = credential.key.subject_public_key_info()
        other = chosen.setdefault(key, credential)
        if credential.certificate.not_valid_after_utc > other.certificate.not_valid_after_utc:
            chosen[key] = credential
    return list(chosen.values())
