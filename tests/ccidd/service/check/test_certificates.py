# SPDX-License-Identifier: Apache-2.0
import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.check.certificates import look_at_certificate

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "me")])
NOW = dt.datetime.now(dt.UTC)


def certificate(
    begin: dt.timedelta,
    end: dt.timedelta,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> x509.Certificate:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(NAME, NAME, key.public_key(), 1)
    return (
        builder.not_valid_before(NOW + begin).not_valid_after(NOW + end).sign(key, hashes.SHA256())
    )


def days(number: int) -> dt.timedelta:
    return dt.timedelta(days=number)


@pytest.mark.parametrize(
    ("begin", "end", "reference", "findings"),
    [
        (-1, 100, 0x9A, []),
        (-1, 31, 0x9A, []),
        (-1, 29, 0x9A, ["warning  here: the certificate of the key 9A (CN=me) expires on "]),
        (-9, -1, 0x9A, ["error    here: the certificate of the key 9A (CN=me) has expired on "]),
        (-9, -1, 0x9C, ["error    here: the certificate of the key 9C (CN=me) has expired on "]),
        # What was encrypted for it is still read.
        (-9, -1, 0x9D, ["warning  here: the certificate of the key 9D (CN=me) has expired on "]),
        (-9, -1, 0x82, ["warning  here: the certificate of the key 82 (CN=me) has expired on "]),
        (
            1,
            100,
            0x9A,
            ["warning  here: the certificate of the key 9A (CN=me) is not valid before"],
        ),
    ],
)
def test_validity(begin: int, end: int, reference: int, findings: list[str]) -> None:
    made = certificate(days(begin), days(end))
    found = list(look_at_certificate("here", CARD_TYPES["piv"], reference, made))
    assert len(found) == len(findings)
    for line, beginning in zip(map(str, found), findings, strict=True):
        assert line.startswith(beginning)


def test_a_weak_key() -> None:
    made = certificate(days(-1), days(100), rsa.generate_private_key(65537, 1024))
    (found,) = look_at_certificate("here", CARD_TYPES["piv"], 0x9A, made)
    assert f"{found}".startswith("warning  here: ")
    assert "has a weak key of 1024 bits" in found.text
