# SPDX-License-Identifier: Apache-2.0
"""The keys that a stored card holds, as contents of its memory.

On a card with the PIV card application they are that application's (`ccidd.card.piv.records`). A
CAC is given its keys, so that they are kept here: `key/9A` is the private key 9A (PKCS#8 in DER),
`certificate/9A` its certificate (X.509 in DER).

A key may be without a certificate for a while: until it is signed elsewhere, and imported.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_der_private_key,
    load_pem_private_key,
)

from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.piv import personalisation
from ccidd.card.piv.contents import certificate_in
from ccidd.card.piv.records import ABSENT, KeyRecord, key_name, object_name, private_key_der
from ccidd.card.piv.references import KeyReference, Origin, certificate_tag
from ccidd.keys.key import Credential, KeyAlgorithm, algorithm_of
from ccidd.keys.local import LocalPrivateKey, local_key

_KEY: Final = "key/"
_CERTIFICATE: Final = "certificate/"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key of a stored card.

    Attributes:
        reference: its key reference.
        private_key: the key.
        certificate: its certificate, if there is one yet.
    """

    reference: int
    private_key: LocalPrivateKey = field(repr=False)
    certificate: x509.Certificate | None

    @classmethod
    def from_pem(cls, reference: int, private_key: bytes, certificate: bytes) -> Self:
        """Reads PKCS#8 and X.509 in PEM, as schema 1 of the state had them."""
        key = load_pem_private_key(private_key, None, unsafe_skip_rsa_key_validation=True)
        return cls(reference, _supported(key), x509.load_pem_x509_certificate(certificate))

    @property
    def algorithm(self) -> KeyAlgorithm:
        """The kind of key."""
        return algorithm_of(self.private_key.public_key())

    @property
    def credential(self) -> Credential | None:
        """Key and certificate for a card, if there is a certificate."""
        if self.certificate is None:
            return None
        return Credential(local_key(self.private_key), self.certificate)


def _supported(key: object) -> LocalPrivateKey:
    local_key(key)
    return key  # type: ignore[return-value] # local_key refuses all others


def key_contents(key: StoredKey, origin: Origin, *, piv: bool) -> dict[str, bytes]:
    """Gives the contents of a card's memory that stand for a key and its certificate.

    Args:
        key: the key.
        origin: where it comes from.
        piv: whether the card has the PIV card application.
    """
    if piv:
        contents = personalisation.key_contents(key.reference, key.private_key, origin)
    else:
        contents = {f"{_KEY}{key.reference:02X}": private_key_der(key.private_key)}
    if key.certificate is not None:
        contents |= certificate_contents(key.reference, key.certificate, piv=piv)
    return contents


def certificate_contents(
    reference: int, certificate: x509.Certificate, *, piv: bool
) -> dict[str, bytes]:
    """Gives the contents of a card's memory that stand for the certificate of a key."""
    if piv:
        return personalisation.certificate_contents(reference, certificate)
    return {f"{_CERTIFICATE}{reference:02X}": certificate.public_bytes(Encoding.DER)}


def keys_in(contents: Mapping[str, bytes]) -> Sequence[StoredKey]:
    """Gives the keys in a card's memory, in the order in which `KeyReference` has them."""
    order = [int(reference) for reference in KeyReference]
    return sorted(_keys_in(contents), key=lambda key: order.index(key.reference))


def _keys_in(contents: Mapping[str, bytes]) -> Iterator[StoredKey]:
    for reference in KeyReference:
        value = contents.get(key_name(reference), ABSENT)
        if value != ABSENT:
            container = contents.get(object_name(certificate_tag(reference)))
            yield StoredKey(
                reference, KeyRecord.decode(value).private_key(), _certificate(container)
            )
    for name, value in contents.items():
        if name.startswith(_KEY):
            reference_text = name.removeprefix(_KEY)
            certificate = contents.get(_CERTIFICATE + reference_text)
            # Checked when it was made or imported, and unchanged since (AES-GCM); it takes long.
            key = load_der_private_key(value, None, unsafe_skip_rsa_key_validation=True)
            yield StoredKey(
                int(reference_text, 16),
                _supported(key),
                None if certificate is None else x509.load_der_x509_certificate(certificate),
            )


def _certificate(container: bytes | None) -> x509.Certificate | None:
    """Reads what a guest may have written."""
    if not container:
        return None
    try:
        return certificate_in(container)
    except (ValueError, LookupError, OSError, RemoteProtocolError):
        return None
