# SPDX-License-Identifier: Apache-2.0
"""Private keys that ccidd makes itself, and certificates for them (RFC 5280)."""

import datetime as dt
from functools import partial
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ccidd.errors import UserError
from ccidd.keys.key import KeyAlgorithm, PublicKey
from ccidd.keys.local import LocalPrivateKey, compute

_RSA_SIZES: Final = {
    KeyAlgorithm.RSA_1024: 1024,
    KeyAlgorithm.RSA_2048: 2048,
    KeyAlgorithm.RSA_3072: 3072,
    KeyAlgorithm.RSA_4096: 4096,
}


def generate_key(algorithm: KeyAlgorithm) -> LocalPrivateKey:
    """Makes a private key. Takes up to some seconds for RSA, and blocks: see `generate`."""
    match algorithm:
        case KeyAlgorithm.P_256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyAlgorithm.P_384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyAlgorithm.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case KeyAlgorithm.X25519:
            return x25519.X25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, _RSA_SIZES[algorithm])


async def generate(algorithm: KeyAlgorithm) -> LocalPrivateKey:
    """Makes a private key in a worker thread, which a cancelled caller does not wait for."""
    return await compute(partial(generate_key, algorithm))


def private_key_pem(key: LocalPrivateKey) -> bytes:
    """A private key in unencrypted PKCS#8 (RFC 5958), in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def self_signed_certificate(
    key: LocalPrivateKey, common_name: str, key_usage: x509.KeyUsage
) -> x509.Certificate:
    """Makes a certificate for a key, signed with the key itself and valid for ten years.

    Raises:
        UserError: The key cannot sign, as X25519 keys cannot.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    return issued_certificate(key.public_key(), name, key_usage, issuer=name, issuer_key=key)


def issued_certificate(
    public_key: PublicKey,
    subject: x509.Name,
    key_usage: x509.KeyUsage,
    *,
    issuer: x509.Name,
    issuer_key: LocalPrivateKey,
) -> x509.Certificate:
    """Makes a certificate for a key, signed with its issuer's key and valid for ten years.

    Raises:
        UserError: The issuer's key cannot sign, as X25519 keys cannot.
    """
    if isinstance(issuer_key, x25519.X25519PrivateKey):
        raise UserError("an X25519 key cannot sign a certificate; let another key issue it")
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        certificate_builder(public_key, subject, issuer)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage, critical=True)
        .add_extension(authority, critical=False)
        .sign(issuer_key, signature_hash(issuer_key))
    )


def certificate_builder(
    public_key: PublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    validity: dt.timedelta = dt.timedelta(days=3650),
) -> x509.CertificateBuilder:
    """Begins a certificate with what all have that ccidd makes.

    Args:
        public_key: the key.
        subject: whose it is.
        issuer: who is going to sign it.
        validity: for how long it is good, from yesterday.
    """
    # A guest's clock may be somewhat behind the host's.
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + validity)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def signature_hash(key: LocalPrivateKey) -> hashes.SHA256 | None:
    """The hash for a key's signatures on certificates; Ed25519 signs what is not hashed."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


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
