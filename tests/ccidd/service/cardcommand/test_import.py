# SPDX-License-Identifier: Apache-2.0
"""`ccidd card import`."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    pkcs12,
)

from card_command import P_256, P_384, Command, keys, matches, pem, refused
from cards import transmit
from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU
from ccidd.card.piv.contents import certificate_in, discovery_object
from ccidd.keys.key import KeyAlgorithm
from ccidd.service.cardkeys import keys_in
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.state import State, StoredMemory
from credentials import credential, private_key
from piv import selected


def p12(algorithm: KeyAlgorithm, password: bytes | None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    key, certificate = private_key(algorithm, 0), credential(algorithm).certificate
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return pkcs12.serialize_key_and_certificates(b"name", key, certificate, None, encryption)


@pytest.fixture
def key_files(tmp_path: Path) -> dict[str, Path]:
    contents = {
        "two": pem(P_256) + pem(P_384),
        "third": pem(P_256, 1),
        "p12": p12(P_256, None),
        "encrypted": p12(P_256, b"password"),
        "nothing": b"nothing",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


def test_keys_are_imported_where_there_is_room(
    card: Command, alice: str, state: State, key_files: dict[str, Path]
) -> None:
    card("import", alice, "--key=9d", key_files["two"])
    assert keys(state, alice) == ["9A P-384", "9D P-256"]
    card("import", alice, key_files["third"])
    assert keys(state, alice) == ["9A P-384", "9C P-256", "9D P-256"]
    message = refused(card, "import", alice, "--key=9A", key_files["p12"])
    assert "the card has a key 9A already; --replace" in message
    shown = card("import", alice, "--key=9A", "--replace", key_files["p12"])
    assert "key   9A P-256    CN=test P-256 0" in shown
    stored = keys_in(state.contents(state.card(alice).guid))[0]
    assert stored.certificate == credential(P_256).certificate
    assert stored.private_key.public_key() == private_key(P_256, 0).public_key()


def test_encrypted_files_are_imported(
    card: Command,
    alice: str,
    state: State,
    key_files: dict[str, Path],
    secret: Callable[[str], Path],
) -> None:
    password = f"--password-file={secret('password')}"
    card("import", alice, key_files["encrypted"], password)
    assert keys(state, alice) == ["9A P-256"]
    for options in ([], [f"--password-file={secret('wrong')}"]):
        assert "encrypted" in refused(card, "import", alice, key_files["encrypted"], *options)


def test_a_file_that_cannot_be_imported_changes_nothing(
    card: Command,
    alice: str,
    state: State,
    key_files: dict[str, Path],
) -> None:
    refused(card, "import", alice, key_files["two"], key_files["nothing"])
    message = refused(card, "import", alice, key_files["third"], "--key=9A", "--key=9E")
    assert message == "there is no private key for --key=9E in the files"
    too_many = refused(card, "import", alice, *[key_files["two"]] * 13)
    assert "no room for another key" in too_many
    twice = ("--key=9A", "--key=9A", "--replace", key_files["two"])
    assert "a key 9A already" in refused(card, "import", alice, *twice)
    assert keys(state, alice) == []


def test_a_certificate_that_was_signed_elsewhere_is_imported(
    card: Command, state: State, tmp_path: Path
) -> None:
    """By openssl, from the request that create has written."""
    card("create", "bob", "--key=9A=P-256", f"--csr={tmp_path}")
    card("create", "carol", "--key=9A=P-256")
    for name, subject in (("issuer", "/CN=Issuer"),):
        openssl(
            tmp_path,
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.pem"),
        )
    issuer = ("-CA", "issuer.pem", "-CAkey", "issuer.key", "-copy_extensions", "copy")
    openssl(tmp_path, "x509", "-req", "-in", "bob-9A.csr", *issuer, "-out", "bob.pem")
    chain = tmp_path / "chain.pem"
    chain.write_bytes((tmp_path / "issuer.pem").read_bytes() + (tmp_path / "bob.pem").read_bytes())
    assert "no certificate for a key of the card" in refused(card, "import", "carol", chain)
    before = keys_in(state.contents(state.card("bob").guid))[0].private_key.public_key()
    card("import", "bob", chain)
    (key,) = keys_in(state.contents(state.card("bob").guid))
    assert key.certificate is not None
    assert key.certificate.issuer.rfc4514_string() == "CN=Issuer"
    assert key.private_key.public_key() == before


# A CHUID: FASC-N, GUID, expiration date, an empty signature.
CHUID = bytes.fromhex(
    "3019D4E739DA739CED39CE739D836858210842108421C84210C3EB"
    "34100102030405060708090A0B0C0D0E0F1035083230333031323331" + "3E00FE00"
)
DISCOVERY = discovery_object()
KEY_HISTORY = bytes.fromhex("C10101C20100F31A") + b"http://example.test/x.cert" + b"\xfe\x00"


async def object_of(state: State, name: str, tag: str) -> bytes:
    """Reads a data object as a guest would."""
    record = state.card(name)
    served = CARD_TYPES[record.type].make({}, StoredMemory(state, record), ())
    host = await selected(served)
    tags = tlv.encode(0x5C, bytes.fromhex(tag))
    response = await transmit(host, CommandAPDU(0, 0xCB, 0x3F, 0xFF, tags, 65536, extended=True))
    assert response.sw == 0x9000, f"{response.sw:04X}"
    return response.data


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(("5FC102", CHUID, tlv.encode(0x53, CHUID)), id="what is inside"),
        pytest.param(("5fc102", tlv.encode(0x53, CHUID), tlv.encode(0x53, CHUID)), id="all of it"),
        pytest.param(("5FC10C", KEY_HISTORY, tlv.encode(0x53, KEY_HISTORY)), id="key history"),
        pytest.param(("7E", DISCOVERY, DISCOVERY), id="discovery object"),
        pytest.param(("7E", DISCOVERY[2:], DISCOVERY), id="what is inside that"),
    ],
)
def test_data_objects_are_imported_as_they_are(
    card: Command, alice: str, state: State, tmp_path: Path, case: tuple[str, bytes, bytes]
) -> None:
    tag, content, expected = case
    file = tmp_path / "object"
    file.write_bytes(content)
    card("import", alice, f"{tag}={file}")
    assert trio.run(object_of, state, alice, tag) == expected


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_certificate_is_imported_as_a_data_object(
    card: Command, alice: str, state: State, tmp_path: Path, encoding: Encoding
) -> None:
    """Of a key that is not on the card, as of a key that was retired."""
    certificate = credential(P_256).certificate
    file = tmp_path / "certificate"
    file.write_bytes(certificate.public_bytes(encoding))
    card("import", alice, f"5FC10D={file}")
    stored = tlv.decode_to_dict(trio.run(object_of, state, alice, "5FC10D"))[0x53]
    assert certificate_in(stored) == certificate


def test_keys_and_data_objects_are_imported_together_or_not_at_all(
    card: Command, alice: str, state: State, key_files: dict[str, Path], tmp_path: Path
) -> None:
    chuid = tmp_path / "chuid"
    chuid.write_bytes(CHUID)
    good = f"5FC102={chuid}"
    biometric = tmp_path / "biometric"
    biometric.write_bytes(DISCOVERY[:-2] + b"\x50\x00")
    for option, message in {
        f"5FC102={key_files['nothing']}": "nothing has no data object 5FC102",
        f"5FC103={tmp_path / 'missing'}": "missing",
        f"7E={chuid}": "chuid has no data object 7E",
        f"7E={key_files['nothing']}": "nothing has no data object 7E",
        f"5E0000={chuid}": "5E0000=",
        f"7E={biometric}": "its PIN usage policy stands for what the card does not have",
        "5FC102=": "5FC102=",
    }.items():
        assert message in refused(card, "import", alice, key_files["third"], good, option)
    assert keys(state, alice) == []
    card("import", alice, key_files["third"], good)
    assert keys(state, alice) == ["9A P-256"]
    assert trio.run(object_of, state, alice, "5FC102") == tlv.encode(0x53, CHUID)


def test_an_empty_file_takes_an_object_away(
    card: Command, state: State, key_files: dict[str, Path], tmp_path: Path
) -> None:
    """As of a retired key whose certificate is not on the card."""
    empty = tmp_path / "empty"
    empty.touch()
    card("create", "bob", "--empty")
    card("import", "bob", "--key=82", key_files["third"], f"5FC10D={empty}")
    with pytest.raises(AssertionError, match="6A82"):
        trio.run(object_of, state, "bob", "5FC10D")
    assert keys(state, "bob") == ["82 P-256"]


def test_the_global_pin_is_set(
    card: Command, alice: str, state: State, secret: Callable[[str], Path]
) -> None:
    """The discovery object that is imported decides whether it is used."""
    assert "has no global PIN; `ccidd card reset-pin --which=global`" in refused(
        card, "unblock", alice, "--which=global"
    )
    shown = card("reset-pin", alice, "--which=global")
    pin = re.search(r"^global PIN (\d+)$", shown, re.MULTILINE)
    assert pin
    assert matches(state, alice, 0x00, pin[1].encode().ljust(8, b"\xff"))
    card(
        *("change-pin", alice, "--which=global"),
        *(f"--pin-file={secret(pin[1])}", f"--new-pin-file={secret('87654321')}"),
    )
    assert matches(state, alice, 0x00, b"87654321")
    assert "global PIN 3 of 3 tries left" in card("show", alice)
    message = refused(card, "unblock", alice, "--which=global", "--with-puk")
    assert "the PUK does not unblock the global PIN" in message
    card("create", "common", "--type=cac", "--empty")
    assert "has no global PIN" in refused(card, "reset-pin", "common", "--which=global")


def test_data_objects_that_are_too_much_for_the_card(
    card: Command, alice: str, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(tlv.encode(0xBC, bytes(140_000)))
    card("import", alice, f"5FC103={large}")
    assert "no room for all" in refused(card, "import", alice, f"5FC108={large}")


def test_a_cac_has_no_data_objects(card: Command, tmp_path: Path) -> None:
    card("create", "common", "--type=cac", "--empty")
    assert "has no PIV data objects" in refused(card, "import", "common", "7E=x")


def openssl(directory: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], check=False, capture_output=True, text=True, cwd=directory
    )
    assert done.returncode == 0, done.stderr


def test_nothing_is_imported_while_the_card_is_served(
    card: Command, alice: str, state: State, key_files: dict[str, Path]
) -> None:
    StoredMemory(state, state.card(alice))
    message = refused(card, "import", alice, key_files["third"])
    assert "the card alice is being served by this process already" in message
