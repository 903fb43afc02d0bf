# SPDX-License-Identifier: Apache-2.0
"""Which key of a card each key of a token becomes: by what its certificate says that it is for.

Source: RFC 5280, 4.2.1.3 (key usage) and 4.2.1.12 (extended key usage); what the keys of a card are
for is told by NIST SP 800-73-4, part 1, 3.1.3 and 3.2, and of a CAC by the order of its keys.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ccidd.card.piv.references import RETIRED_KEYS, KeyReference
from ccidd.keys.key import Credential, Ed25519Key, X25519Key

_LOGIN: Final = frozenset(
    {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SMARTCARD_LOGON,
        x509.ObjectIdentifier("1.3.6.1.5.2.3.4"),  # id-pkinit-KPClientAuth (RFC 4556, 3.2.1)
    }
)
_CARD_AUTHENTICATION: Final = x509.ObjectIdentifier("2.16.840.1.101.3.6.8")
"""id-PIV-cardAuth (FIPS 201-3, table B-3)."""

_E = TypeVar("_E", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a certificate says that its key is for; all, where it says nothing.

    Attributes:
        signs: for signatures.
        commits: for signatures that bind a person, as it says itself.
        receives: for what others encrypt.
        logs_in: for logging in somewhere, as it says itself.
        is_of_card: for the authentication of the card, without its holder.
    """

    signs: bool
    commits: bool
    receives: bool
    logs_in: bool
    is_of_card: bool

    @classmethod
    def of(cls, credential: Credential) -> "Usage":
        """Reads it."""
        key, certificate = credential.key, credential.certificate
        usage = _extension(certificate, x509.KeyUsage)
        extended = _extension(certificate, x509.ExtendedKeyUsage)
        purposes = set() if extended is None else set(extended)
        commits = usage is not None and usage.content_commitment
        signs = usage is None or usage.digital_signature or commits
        receives = usage is None or usage.key_encipherment or usage.key_agreement
        return cls(
            signs=signs and not isinstance(key, X25519Key),
            commits=commits,
            receives=receives and not isinstance(key, Ed25519Key),
            logs_in=signs and bool(purposes & _LOGIN),
            is_of_card=_CARD_AUTHENTICATION in purposes,
        )


def _extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (ValueError, x509.ExtensionNotFound):
        return None


_Rule = tuple[int, Callable[[Usage], bool]]

# The first that fits takes the place. First what a certificate says clearly:
_CLEAR: Final[Sequence[_Rule]] = (
    (KeyReference.CARD_AUTHENTICATION, lambda usage: usage.is_of_card),
    (KeyReference.AUTHENTICATION, lambda usage: usage.logs_in and not usage.commits),
    (KeyReference.AUTHENTICATION, lambda usage: usage.logs_in),
    (KeyReference.SIGNATURE, lambda usage: usage.commits),
    (KeyReference.KEY_MANAGEMENT, lambda usage: usage.receives and not usage.signs),
)
# and then what it can be used for:
_POSSIBLE: Final[Sequence[_Rule]] = (
    (KeyReference.AUTHENTICATION, lambda usage: usage.signs),
    (KeyReference.SIGNATURE, lambda usage: usage.signs),
    (KeyReference.KEY_MANAGEMENT, lambda usage: usage.receives),
    *((reference, lambda _usage: True) for reference in RETIRED_KEYS),
)


def place(
    credentials: Sequence[Credential],
    references: Collection[int],
    chosen: Mapping[int, Credential],
) -> tuple[dict[int, Credential], list[Credential]]:
    """Places the keys of a token.

    Args:
        credentials: the keys; of several that fit a place the first takes it.
        references: the key references that there are on the card, in the order of the result.
        chosen: keys whose places are given.

    Returns:
        The keys by their references, and those for which there is no place.
    """
    placed = dict(chosen)
    chosen_keys = {each.key.subject_public_key_info() for each in chosen.values()}
    left = [
        (each, Usage.of(each))
        for each in credentials
        if each.key.subject_public_key_info() not in chosen_keys
    ]
    for reference, fits in (*_CLEAR, *_POSSIBLE):
        if reference not in references or reference in placed:
            continue
        for index, (credential, usage) in enumerate(left):
            if fits(usage):
                placed[reference] = credential
                del left[index]
                break
    ordered = {reference: placed[reference] for reference in references if reference in placed}
    return ordered, [credential for credential, _usage in left]
