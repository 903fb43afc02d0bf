# SPDX-License-Identifier: Apache-2.0
"""What a new PIV card comes with.

The functions give contents for the card's memory; whoever makes the card stores them there with its
PINs, all at once. See `records` for the names.
"""

import datetime as dt
import uuid
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ccidd.card.piv import records
from ccidd.card.piv.attestation import issuer_certificate
from ccidd.card.piv.contents import certificate_container
from ccidd.card.piv.management_key import ManagementKey
from ccidd.card.piv.records import KeyRecord, key_name, object_name, private_key_der
from ccidd.card.piv.references import (
    ATTESTATION_KEY,
    Origin,
    PinPolicy,
    certificate_tag,
    default_pin_policy,
)
from ccidd.keys.generated import key_usage
from ccidd.keys.local import LocalPrivateKey

VALIDITY: Final = dt.timedelta(days=3650)
"""How long a new card is valid."""

# FIPS 201-3, table B-3.
_PIV_CONTENT_SIGNING: Final = x509.ObjectIdentifier("2.16.840.1.101.3.6.7")


def factory_contents(
    management_key: ManagementKey | None,
    *,
    guid: uuid.UUID | None = None,
    expires: dt.date | None = None,
    attestation: bool = False,
) -> dict[str, bytes]:
    """Gives the contents of a card that has no keys yet; takes some milliseconds.

    Args:
        management_key: the administration key; without one nobody can change the card from a
            guest, but for its PINs.
        guid: the card's GUID, a random one if none is given.
        expires: its last day, ten years from now if none is given.
        attestation: whether it can attest keys, which is of use with the extensions.
    """
    guid = guid or uuid.uuid4()
    expires = expires or dt.datetime.now(dt.UTC).date() + VALIDITY
    signing_key = ec.generate_private_key(ec.SECP256R1())
    certificate = _content_signing_certificate(signing_key, guid, expires)
    contents = {
        records.GUID: guid.bytes,
        records.EXPIRES: expires.strftime("%Y%m%d").encode(),
        records.CONTENT_SIGNING_KEY: private_key_der(signing_key),
        records.CONTENT_SIGNING_CERTIFICATE: certificate.public_bytes(Encoding.DER),
    }
    if management_key is not None:
        contents[records.MANAGEMENT_KEY] = management_key.encode()
    if attestation:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = issuer_certificate(key, f"ccidd PIV attestation {guid}")
        contents |= key_contents(ATTESTATION_KEY, key, Origin.GENERATED)
        contents |= certificate_contents(ATTESTATION_KEY, issuer)
    return contents


def key_contents(
    reference: int,
    key: LocalPrivateKey,
    origin: Origin = Origin.IMPORTED,
    pin_policy: PinPolicy | None = None,
) -> dict[str, bytes]:
    """Gives the contents that put a private key on the card.

    Args:
        reference: its reference.
        key: the key.
        origin: where it came from.
        pin_policy: its security condition for use, if not the one of its reference.
    """
    if pin_policy is None:
        pin_policy = default_pin_policy(reference)
    return {key_name(reference): KeyRecord.of(key, origin, pin_policy).encode()}


def certificate_contents(reference: int, certificate: x509.Certificate) -> dict[str, bytes]:
    """Gives the contents that put the certificate of a key on the card."""
    return {object_name(certificate_tag(reference)): certificate_container(certificate)}


def _content_signing_certificate(
    key: ec.EllipticCurvePrivateKey, guid: uuid.UUID, expires: dt.date
) -> x509.Certificate:
    """SP 800-73-4, part 1, 3.1.2.1: of the issuer, for content signing alone."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ccidd PIV issuer of {guid}")])
    now = dt.datetime.now(dt.UTC)
    # The whole last day is the card's.
    end = dt.datetime.combine(expires, dt.time.max, dt.UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A guest's clock may be somewhat behind the host's.
        .not_valid_before(min(now, end) - dt.timedelta(days=1))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_PIV_CONTENT_SIGNING]), critical=True)
        .sign(key, hashes.SHA256())
    )
