# SPDX-License-Identifier: Apache-2.0
"""Keys with certificates, each made once in a test run; all self-signed, but those of X25519."""

from functools import cache

from cryptography import x509
from cryptography.x509.oid import NameOID

from ccidd.keys.generated import (
    generate_key,
    issued_certificate,
    key_usage,
    self_signed_certificate,
)
from ccidd.keys.key import Credential, KeyAlgorithm
from ccidd.keys.local import LocalPrivateKey, local_key


@cache
def private_key(algorithm: KeyAlgorithm, number: int) -> LocalPrivateKey:
    """Gives a private key; another number gives another key."""
    return generate_key(algorithm)


def credential(algorithm: KeyAlgorithm, number: int = 0) -> Credential:
    """Gives that key with a certificate."""
    return _credential(algorithm, number)


@cache
def _credential(algorithm: KeyAlgorithm, number: int) -> Credential:
    key = private_key(algorithm, number)
    common_name = f"test {algorithm.value} {number}"
    if algorithm is KeyAlgorithm.X25519:
        # It cannot sign its own.
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        issuer = credential(KeyAlgorithm.P_256)
        certificate = issued_certificate(
            key.public_key(),
            subject,
            key_usage(key_agreement=True),
            issuer=issuer.certificate.subject,
            issuer_key=private_key(KeyAlgorithm.P_256, 0),
        )
    else:
        usage = key_usage(digital_signature=True)
        certificate = self_signed_certificate(key, common_name, usage)
    return Credential(local_key(key), certificate)
