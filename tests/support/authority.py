# SPDX-License-Identifier: Apache-2.0
"""A certificate authority, and directories as QEMU's tls-creds-x509 has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    """An authority of a name."""

    def __init__(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        now = datetime.now(tz=UTC)
        builder = _builder(subject, subject, key, now - DAY, now + 100 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False
        )
        self.issued = Issued(builder.sign(key, SHA256()), key)

    def issue(
        self,
        name: str = "peer",
        *,
        hosts: Sequence[str] = ("127.0.0.1", "::1", "localhost"),
        begins: timedelta = -DAY,
        ends: timedelta = 10 * DAY,
        purposes: Sequence[x509.ObjectIdentifier] = (
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.CLIENT_AUTH,
        ),
    ) -> Issued:
        """Issues a certificate, valid from and to so long from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(tz=UTC)
        own = self.issued.certificate
        builder = _builder(_name(name), own.subject, key, now + begins, now + ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), False)
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, False)
        return Issued(builder.sign(self.issued.key, SHA256()), key)

    def revocations(self, *revoked: Issued, ends: timedelta = DAY) -> bytes:
        """Gives a list of certificates that are revoked, valid so long from now."""
        now = datetime.now(tz=UTC)
        builder = x509.CertificateRevocationListBuilder(
            self.issued.certificate.subject, now - 2 * DAY, now + ends
        )
        for each in revoked:
            number = each.certificate.serial_number
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder(number, now - DAY).build()
            )
        return builder.sign(self.issued.key, SHA256()).public_bytes(Encoding.PEM)

    def write(self, directory: Path, role: str, issued: Issued) -> Path:
        """Makes a directory with what a peer in a role needs."""
        directory.mkdir(exist_ok=True)
        (directory / "ca-cert.pem").write_bytes(self.issued.pem)
        (directory / f"{role}-cert.pem").write_bytes(issued.pem)
        key = directory / f"{role}-key.pem"
        key.touch(0o600)
        key.write_bytes(issued.key_pem)
        return directory


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests, Inc."),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer,
        subject,
        key.public_key(),
        x509.random_serial_number(),
        begin,
        end,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
