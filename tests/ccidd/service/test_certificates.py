# SPDX-License-Identifier: Apache-2.0
"""Certificates and requests."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

from ccidd.errors import UserError
from ccidd.keys.key import KeyAlgorithm
from ccidd.service.certificates import (
    Issuer,
    Purpose,
    authority,
    common_name,
    issue,
    parse_subject,
    request,
    signing_key,
)
from ccidd.service.state import State
from crash import CHEAP
from credentials import private_key

SIGNING = Purpose("signing", signs=True, commits=True)
RECEIVING = Purpose("receiving", receives=True)
NAME = common_name("Someone")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(tmp_path, cost=CHEAP) as state:
        yield state


def test_the_purpose_of_a_key_is_its_usage() -> None:
    rsa = private_key(KeyAlgorithm.RSA_2048, 0).public_key()
    ec = private_key(KeyAlgorithm.P_256, 0).public_key()
    usage = SIGNING.key_usage(rsa)
    assert (usage.digital_signature, usage.content_commitment) == (True, True)
    assert not usage.key_encipherment
    assert not usage.key_agreement
    usage = RECEIVING.key_usage(rsa)
    assert (usage.key_encipherment, usage.key_agreement, usage.digital_signature) == (
        True,
        False,
        False,
    )
    usage = RECEIVING.key_usage(ec)
    assert (usage.key_encipherment, usage.key_agreement) == (False, True)


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P_256, KeyAlgorithm.RSA_2048])
def test_a_self_signed_certificate(algorithm: KeyAlgorithm) -> None:
    key = private_key(algorithm, 0)
    usage = SIGNING.key_usage(key.public_key())
    certificate = issue(key.public_key(), NAME, usage, Issuer(NAME, signing_key(key)))
    certificate.verify_directly_issued_by(certificate)
    assert certificate.public_key() == key.public_key()
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert not constraints.value.ca
    now = dt.datetime.now(dt.UTC)
    assert certificate.not_valid_before_utc < now - dt.timedelta(hours=23)
    assert certificate.not_valid_after_utc > now + dt.timedelta(days=3600)


def test_the_authority_is_made_once_and_is_one(state: State, tmp_path: Path) -> None:
    certificate, issuer = authority(state)
    assert authority(state)[0] == certificate
    key = private_key(KeyAlgorithm.RSA_2048, 0)
    usage = SIGNING.key_usage(key.public_key())
    leaf = issue(key.public_key(), NAME, usage, issuer)
    leaf.verify_directly_issued_by(certificate)
    assert leaf.extensions.get_extension_for_class(
        x509.AuthorityKeyIdentifier
    ).value == x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    )
    state.resources.close()
    with State(tmp_path, cost=CHEAP) as again:
        assert authority(again)[0] == certificate


def test_the_authority_can_certify_keys_that_cannot_sign(state: State) -> None:
    certificate, issuer = authority(state)
    key: Any = x25519.X25519PrivateKey.generate().public_key()
    usage = RECEIVING.key_usage(key)
    issue(key, NAME, usage, issuer).verify_directly_issued_by(certificate)
    assert usage.key_agreement


def test_an_ed25519_key_signs() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    public_key: Any = key.public_key()
    certificate = issue(public_key, NAME, SIGNING.key_usage(public_key), Issuer(NAME, key))
    certificate.verify_directly_issued_by(certificate)


def test_an_x25519_key_does_not_sign() -> None:
    with pytest.raises(UserError, match="X25519 key cannot sign"):
        signing_key(x25519.X25519PrivateKey.generate())


def test_a_request_holds_the_name_and_the_usage() -> None:
    key = private_key(KeyAlgorithm.P_256, 0)
    usage = SIGNING.key_usage(key.public_key())
    csr = request(key, parse_subject("CN=Some One,O=Us"), usage)
    assert csr.is_signature_valid
    assert csr.public_key() == key.public_key()
    assert csr.subject.rfc4514_string() == "CN=Some One,O=Us"
    assert csr.extensions.get_extension_for_class(x509.KeyUsage).value == usage


@pytest.mark.parametrize("text", ["", "Some One", "CN", "=x", "XX=y"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--subject"):
        parse_subject(text)
