# SPDX-License-Identifier: Apache-2.0
"""Which keys of a card the keys of a token become."""

from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose

from ccidd.keys.generated import certificate_builder, key_usage, signature_hash
from ccidd.keys.key import Credential, KeyAlgorithm
from ccidd.keys.local import local_key
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.placement import place
from credentials import credential, private_key

CARD_AUTHENTICATION = x509.ObjectIdentifier("2.16.840.1.101.3.6.8")

SIGNS = key_usage(digital_signature=True)
COMMITS = key_usage(content_commitment=True)
BINDS = key_usage(digital_signature=True, content_commitment=True)
RECEIVES = key_usage(key_encipherment=True)
AGREES = key_usage(key_agreement=True)
ALL = key_usage(digital_signature=True, key_encipherment=True)

LOGIN = [Purpose.CLIENT_AUTH]
LOGON = [Purpose.SMARTCARD_LOGON]
MAIL = [Purpose.EMAIL_PROTECTION]
NOTHING: list[x509.ObjectIdentifier] = []

Uses = tuple[x509.KeyUsage | None, list[x509.ObjectIdentifier]]


def with_usage(
    number: int, usage: x509.KeyUsage | None, purposes: list[x509.ObjectIdentifier]
) -> Credential:
    key = private_key(KeyAlgorithm.P_256, number)
    assert isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
    name = x509.Name.from_rfc4514_string(f"CN={number}")
    builder = certificate_builder(key.public_key(), name, name)
    if usage is not None:
        builder = builder.add_extension(usage, critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return Credential(local_key(key), builder.sign(key, signature_hash(key)))


def placed(kind: str, *uses: Uses) -> dict[int, int]:
    """Places keys; gives the number of each by its reference."""
    credentials = [with_usage(number, *each) for number, each in enumerate(uses)]
    found, left = place(credentials, CARD_TYPES[kind].purposes, {})
    assert not left
    return {reference: credentials.index(each) for reference, each in found.items()}


@pytest.mark.parametrize("kind", ["piv", "cac", "piv+cac"])
@pytest.mark.parametrize(
    ("uses", "places"),
    [
        # One key is the one to log in with, unless its certificate says something else.
        ([(SIGNS, NOTHING)], {0x9A: 0}),
        ([(None, NOTHING)], {0x9A: 0}),
        ([(ALL, NOTHING)], {0x9A: 0}),
        ([(BINDS, LOGIN)], {0x9A: 0}),
        ([(COMMITS, NOTHING)], {0x9C: 0}),
        ([(RECEIVES, NOTHING)], {0x9D: 0}),
        ([(AGREES, NOTHING)], {0x9D: 0}),
        # Certificates that say clearly what they are for, in any order.
        ([(SIGNS, LOGIN), (BINDS, MAIL), (RECEIVES, MAIL)], {0x9A: 0, 0x9C: 1, 0x9D: 2}),
        ([(RECEIVES, MAIL), (BINDS, MAIL), (SIGNS, LOGON)], {0x9A: 2, 0x9C: 1, 0x9D: 0}),
        ([(COMMITS, NOTHING), (SIGNS, LOGIN)], {0x9A: 1, 0x9C: 0}),
        # What is for all things to log in with stands back for what is for that alone.
        ([(BINDS, LOGIN), (SIGNS, LOGIN)], {0x9A: 1, 0x9C: 0}),
        # A login certificate takes the first key from one that could have it too.
        ([(SIGNS, MAIL), (SIGNS, LOGIN)], {0x9A: 1, 0x9C: 0}),
        # Those that say nothing are taken in their order.
        ([(None, NOTHING)] * 4, {0x9A: 0, 0x9C: 1, 0x9D: 2, 0x82: 3}),
        ([(SIGNS, NOTHING)] * 3, {0x9A: 0, 0x9C: 1, 0x82: 2}),
        # Keys to decrypt old mail with.
        ([(RECEIVES, MAIL)] * 3, {0x9D: 0, 0x82: 1, 0x83: 2}),
    ],
)  # fmt: skip
def test_certificates_say_what_their_keys_are_for(
    kind: str, uses: Sequence[Uses], places: dict[int, int]
) -> None:
    assert placed(kind, *uses) == places


def test_the_key_of_the_card_itself_is_known_by_its_purpose() -> None:
    card = (SIGNS, [CARD_AUTHENTICATION])
    assert placed("piv", card, (SIGNS, NOTHING)) == {0x9A: 1, 0x9E: 0}
    assert placed("cac", card, (SIGNS, NOTHING)) == {0x9A: 0, 0x9C: 1}


def test_keys_of_one_purpose_go_where_they_can_be_used() -> None:
    keys = [credential(KeyAlgorithm.X25519), credential(KeyAlgorithm.ED25519)]
    found, _ = place(keys, CARD_TYPES["piv"].purposes, {})
    assert found == {0x9A: keys[1], 0x9D: keys[0]}


def test_a_place_that_is_given_is_kept() -> None:
    keys = [with_usage(number, SIGNS, LOGIN) for number in range(3)]
    found, left = place(keys, CARD_TYPES["piv"].purposes, {0x9D: keys[0]})
    assert found == {0x9A: keys[1], 0x9C: keys[2], 0x9D: keys[0]}
    assert list(found) == [0x9A, 0x9C, 0x9D]
    assert left == []


def test_there_may_be_more_keys_than_places() -> None:
    keys = [with_usage(number, RECEIVES, NOTHING) for number in range(15)]
    found, left = place(keys, CARD_TYPES["cac"].purposes, {})
    assert len(found) == 14
    assert left == keys[14:]
