# SPDX-License-Identifier: Apache-2.0
"""The keys that a stored card holds, as contents of its memory.

`key/9A` is the private key 9A (PKCS#8 in DER), `certificate/9A` its certificate (X.509 in DER). A
key may be without a certificate for a while: until it is signed elsewhere, and imported.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from ccidd.keys.key import Credential, KeyAlgorithm, PrivateKey, algorithm_of
from ccidd.keys.local import LocalEcKey, LocalPrivateKey, LocalRsaKey, local_key

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
    def from_der(cls, reference: int, private_key: bytes, certificate: bytes | None) -> Self:
        """Reads PKCS#8 and X.509 in DER."""
        # Checked when it was made or imported, and unchanged since (AES-GCM); it takes long.
        key = load_der_private_key(private_key, None, unsafe_skip_rsa_key_validation=True)
        return cls(
            reference,
            _supported(key),
            None if certificate is None else x509.load_der_x509_certificate(certificate),
        )

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


def key_contents(keys: Iterable[StoredKey]) -> dict[str, bytes]:
    """Gives the contents of a card's memory that stand for keys."""
    contents = {}
    for key in keys:
        contents[f"{_KEY}{key.reference:02X}"] = key.private_key.private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
        )
        if key.certificate is not None:
            contents[f"{_CERTIFICATE}{key.reference:02X}"] = key.certificate.public_bytes(
                Encoding.DER
            )
    return contents


def keys_in(contents: Mapping[str, bytes]) -> Sequence[StoredKey]:
    """Gives the keys in a card's memory, in the order of their references."""
    references = sorted(name.removeprefix(_KEY) for name in contents if name.startswith(_KEY))
    return [
        StoredKey.from_der(
            int(reference, 16),
            contents[_KEY + reference],
            contents.get(_CERTIFICATE + reference),
        )
        for reference in references
    ]


def private_key_of(key: PrivateKey) -> LocalPrivateKey:
    """Gives what is inside of a key that was read from a file."""
    assert isinstance(key, LocalRsaKey | LocalEcKey)
    return key._key  # noqa: SLF001 (a key leaves its wrapper only to be stored)
