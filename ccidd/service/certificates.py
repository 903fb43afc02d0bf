# SPDX-License-Identifier: Apache-2.0
"""Certificates for the keys of stored cards: self-signed, or of a test authority of ccidd's.

Source: RFC 5280 (certificates), RFC 2986 (requests). The authority is for tests: whoever has the
state has its key, and it revokes nothing.
"""

import datetime as dt
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import NameOID

from ccidd.errors import UserError
from ccidd.keys.generated import (
    certificate_builder,
    issued_certificate,
    key_usage,
    signature_hash,
)
from ccidd.keys.key import PublicKey
from ccidd.keys.local import LocalPrivateKey
from ccidd.service.state import State

SigningKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_AUTHORITY_VALIDITY: Final = dt.timedelta(days=7300)


@dataclass(frozen=True, slots=True)
class Purpose:
    """What one of a card's keys is for.

    Attributes:
        name: what it is called.
        signs: whether for signatures, of challenges for one.
        commits: whether for signatures that bind a person.
        receives: whether for what others encrypt.
    """

    name: str
    signs: bool = False
    commits: bool = False
    receives: bool = False

    def key_usage(self, public_key: PublicKey) -> x509.KeyUsage:
        """Gives the key usage extension for a key of this purpose (4.2.1.3)."""
        agrees = isinstance(public_key, ec.EllipticCurvePublicKey | x25519.X25519PublicKey)
        return key_usage(
            digital_signature=self.signs,
            content_commitment=self.commits,
            key_encipherment=self.receives and not agrees,
            key_agreement=self.receives and agrees,
        )


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs certificates.

    Attributes:
        name: its name.
        private_key: what it signs with.
    """

    name: x509.Name
    private_key: SigningKey = field(repr=False)


def parse_subject(text: str) -> x509.Name:
    """Reads a distinguished name (RFC 4514), such as `CN=Some One,O=Somewhere`.

    Raises:
        UserError: It is none.
    """
    try:
        name = x509.Name.from_rfc4514_string(text)
    except ValueError as error:
        raise UserError(f"--subject={text} is no name such as CN=Some One,O=Somewhere") from error
    if not list(name):
        raise UserError("--subject needs a name such as CN=Some One,O=Somewhere")
    return name


def common_name(text: str) -> x509.Name:
    """Gives a name that has nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def issue(
    public_key: PublicKey, subject: x509.Name, usage: x509.KeyUsage, issuer: Issuer
) -> x509.Certificate:
    """Makes a certificate, valid for ten years."""
    return issued_certificate(
        public_key, subject, usage, issuer=issuer.name, issuer_key=issuer.private_key
    )


def request(
    private_key: LocalPrivateKey, subject: x509.Name, usage: x509.KeyUsage
) -> x509.CertificateSigningRequest:
    """Makes a request for a certificate, to be signed elsewhere.

    Raises:
        UserError: The key cannot sign.
    """
    key = signing_key(private_key)
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(usage, critical=True)
        .sign(key, signature_hash(key))
    )


def signing_key(key: object) -> SigningKey:
    """Gives a private key that can sign certificates.

    Raises:
        UserError: It cannot, as X25519 keys cannot.
    """
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        return key
    raise UserError("an X25519 key cannot sign its own certificate or request; use --issuer=ca")


def authority(state: State) -> tuple[x509.Certificate, Issuer]:
    """Gives the test authority of a state directory, made when it is first needed."""
    if state.authority() is None:
        key = ec.generate_private_key(ec.SECP384R1())
        issuer = Issuer(common_name("ccidd test authority"), key)
        made = (
            certificate_builder(key.public_key(), issuer.name, issuer.name, _AUTHORITY_VALIDITY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_authority_usage(), critical=True)
            .sign(key, signature_hash(key))
        )
        state.add_authority(
            made.public_bytes(Encoding.DER),
            key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        )
    stored = state.authority()
    assert stored is not None
    certificate = x509.load_der_x509_certificate(stored[0])
    private_key = load_der_private_key(stored[1], None)
    assert isinstance(private_key, ec.EllipticCurvePrivateKey)
    return certificate, Issuer(certificate.subject, private_key)


def _authority_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
