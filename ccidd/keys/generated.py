# SPDX-License-Identifier: Apache-2.0
"""Private keys that ccidd makes itself, with self-signed certificates."""

import datetime as dt
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ccidd.keys.key import KeyAlgorithm
from ccidd.keys.local import LocalPrivateKey

_VALIDITY: Final = dt.timedelta(days=3650)


def generate_key(algorithm: KeyAlgorithm) -> LocalPrivateKey:
    """Makes a private key. Takes up to some seconds for RSA."""
    match algorithm:
        case KeyAlgorithm.P_256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyAlgorithm.P_384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyAlgorithm.RSA_2048:
            return rsa.generate_private_key(65537, 2048)
        case KeyAlgorithm.RSA_3072:
            return rsa.generate_private_key(65537, 3072)
        case KeyAlgorithm.RSA_4096:
            return rsa.generate_private_key(65537, 4096)


def private_key_pem(key: LocalPrivateKey) -> bytes:
    """A private key in unencrypted PKCS#8 (RFC 5958), in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def self_signed_certificate(
    key: LocalPrivateKey, common_name: str, key_usage: x509.KeyUsage
) -> x509.Certificate:
    """Makes a certificate for a key, signed with the key itself and valid for ten years."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    # A guest's clock may be somewhat behind the host's.
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _VALIDITY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def key_usage(
    *,
    digital_signature: bool = False,
    content_commitment: bool = False,
    key_encipherment: bool = False,
    key_agreement: bool = False,
) -> x509.KeyUsage:
    """The key usage extension (RFC 5280, 4.2.1.3) with only the given bits set."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=content_commitment,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=key_agreement,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
