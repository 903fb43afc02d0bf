# SPDX-License-Identifier: Apache-2.0
"""What certificates and keys say of themselves: whether they are valid, and strong enough.

An expired certificate is an error where the key logs in or signs, which others then refuse. What
was encrypted for one is read with its key for ever, so there it is a warning.

Source: RFC 5280, 4.1.2.5 (validity); NIST SP 800-78-4, 3.1 and SP 800-131A (strength).
"""

import datetime as dt
from collections.abc import Iterator
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from ccidd.service.cardtypes import CardType
from ccidd.service.check.finding import Finding, error, warning

SOON: Final = dt.timedelta(days=30)
"""Before the end of its validity, a certificate gives a warning."""

_LEAST_RSA: Final = 2048
_WEAK_HASHES: Final = (hashes.MD5, hashes.SHA1)


def look_at_certificate(
    where: str, kind: CardType, reference: int, certificate: x509.Certificate
) -> Iterator[Finding]:
    """Looks at a certificate.

    Args:
        where: what its card is called.
        kind: the kind of card.
        reference: the key reference of its key.
        certificate: the certificate.
    """
    name = f"the certificate of the key {reference:02X} ({certificate.subject.rfc4514_string()})"
    is_for_old_things = kind.purposes[reference].receives
    yield from look_at_validity(where, name, certificate, outlives=is_for_old_things)
    try:
        key, signature = certificate.public_key(), certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _LEAST_RSA:
        yield warning(where, f"{name} has a weak key of {key.key_size} bits; make another")
    if isinstance(signature, _WEAK_HASHES):
        yield warning(where, f"{name} is signed over {signature.name.upper()}, which many refuse")


def look_at_validity(
    where: str, name: str, certificate: x509.Certificate, *, outlives: bool = False
) -> Iterator[Finding]:
    """Looks at when a certificate is valid.

    Args:
        where: where it is used.
        name: what it is called.
        certificate: the certificate.
        outlives: whether it is of use when it has expired.
    """
    now = dt.datetime.now(dt.UTC)
    end, begin = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if now > end:
        report = warning if outlives else error
        yield report(where, f"{name} has expired on {end:%Y-%m-%d}; renew it")
    elif now + SOON > end:
        yield warning(where, f"{name} expires on {end:%Y-%m-%d}; renew it")
    if now < begin:
        yield warning(where, f"{name} is not valid before {begin:%Y-%m-%d %H:%M} UTC")
