# SPDX-License-Identifier: Apache-2.0
"""Key files for cards, and what the host does with the public halves."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ccid_protocol import tlv
from ccidd.keys.generated import generate_key, key_usage, private_key_pem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccidd.keys.key import KeyAlgorithm
    from ccidd.keys.local import LocalPrivateKey

# An extension that says nothing, under the arc for examples.
_PADDING_EXTENSION: Final = x509.ObjectIdentifier("2.999.1")
_OCTET_STRING: Final = 0x04


def card_option(
    algorithms: Sequence[KeyAlgorithm], pin: str, directory: Path, *, padding_size: int = 0
) -> str:
    """Make a key file with new keys and a PIN file, and return the `--card` that uses them.

    Args:
        algorithms: Of the keys 9A, 9C, 9D and 9E, as many as are wanted.
        pin: The PIN.
        directory: Where the files go.
        padding_size: Bytes by which the certificates are larger than they need to be.
    """
    pem = b""
    for number, algorithm in enumerate(algorithms):
        key = generate_key(algorithm)
        certificate = _certificate(key, f"key {number} {algorithm.value}", padding_size)
        pem += private_key_pem(key) + certificate.public_bytes(Encoding.PEM)
    (directory / "keys.pem").write_bytes(pem)
    (directory / "pin").write_text(f"{pin}\n", encoding="ascii")
    return f"--card=piv,keys={directory / 'keys.pem'},pin-file={directory / 'pin'}"


def _certificate(key: LocalPrivateKey, common_name: str, padding_size: int) -> x509.Certificate:
    assert not isinstance(key, x25519.X25519PrivateKey), "it cannot sign its certificate"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    usage = key_usage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=isinstance(key.public_key(), rsa.RSAPublicKey),
    )
    nothing = tlv.encode(_OCTET_STRING, bytes(padding_size))
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(usage, critical=True)
        .add_extension(x509.UnrecognizedExtension(_PADDING_EXTENSION, nothing), critical=False)
        .sign(key, hashes.SHA256())
    )


def check_signature(certificate: x509.Certificate, signature: bytes, data: bytes) -> None:
    """Hold an ECDSA or PKCS #1 v1.5 signature with SHA-256 against the data.

    Raises:
        cryptography.exceptions.InvalidSignature: It is not the key's signature of the data.
    """
    match certificate.public_key():
        case ec.EllipticCurvePublicKey() as key:
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPublicKey() as key:
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        case key:
            raise TypeError(type(key).__name__)
