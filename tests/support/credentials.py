# SPDX-License-Identifier: Apache-2.0
"""Keys with certificates, each made once in a test run."""

from functools import cache

from ccidd.keys.generated import generate_key, key_usage, self_signed_certificate
from ccidd.keys.key import Credential, KeyAlgorithm
from ccidd.keys.local import LocalPrivateKey, local_key


@cache
def private_key(algorithm: KeyAlgorithm, number: int) -> LocalPrivateKey:
    """Gives a private key; another number gives another key."""
    return generate_key(algorithm)


@cache
def credential(algorithm: KeyAlgorithm, number: int = 0) -> Credential:
    """Gives that key with a self-signed certificate."""
    key = private_key(algorithm, number)
    usage = key_usage(digital_signature=True)
    certificate = self_signed_certificate(key, f"test {algorithm.value} {number}", usage)
    return Credential(local_key(key), certificate)
