# SPDX-License-Identifier: Apache-2.0
"""What certificates say of themselves, and warnings of it (RFC 5280)."""

import datetime as dt

import structlog
from cryptography import x509

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def warn_unless_valid(certificate: x509.Certificate, where: str) -> None:
    """Logs a warning of a certificate that is not valid at present; cards may have such ones.

    Source: RFC 5280, 4.1.2.5.

    Args:
        certificate: the certificate.
        where: the file or token that it is from.
    """
    now = dt.datetime.now(dt.UTC)
    if now > certificate.not_valid_after_utc:
        event, date = "certificate_expired", certificate.not_valid_after_utc
    elif now < certificate.not_valid_before_utc:
        event, date = "certificate_not_yet_valid", certificate.not_valid_before_utc
    else:
        return
    subject = certificate.subject.rfc4514_string()
    log.warning(event, where=where, subject=subject, date=date.isoformat())


def is_issuer(certificate: x509.Certificate) -> bool:
    """Tells whether a certificate is that of an issuer (RFC 5280, 4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound):
        return False
