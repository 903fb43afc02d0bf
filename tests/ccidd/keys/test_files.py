# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from ccidd.errors import UserError
from ccidd.keys.files import load_credentials, read_secret
from ccidd.keys.key import KeyAlgorithm
from credentials import credential, private_key

P_256, P_384 = KeyAlgorithm.P_256, KeyAlgorithm.P_384


def key_pem(algorithm: KeyAlgorithm, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return private_key(algorithm, 0).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def certificate_pem(algorithm: KeyAlgorithm) -> bytes:
    return credential(algorithm).certificate.public_bytes(Encoding.PEM)


def p12(password: bytes | None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    own = credential(P_256)
    key = private_key(P_256, 0)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    others = [credential(P_384).certificate]
    return pkcs12.serialize_key_and_certificates(b"name", key, own.certificate, others, encryption)


def write(directory: Path, content: bytes) -> Path:
    path = directory / "keys"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("password", [None, b"pass word"])
def test_a_pkcs12_file_gives_its_key_with_its_certificate(
    tmp_path: Path, password: bytes | None
) -> None:
    (loaded,) = load_credentials(write(tmp_path, p12(password)), password)
    assert loaded.key.public_key == credential(P_256).key.public_key
    assert loaded.certificate == credential(P_256).certificate


def test_a_pem_file_gives_its_keys_in_its_order(tmp_path: Path) -> None:
    content = b"some text\n" + certificate_pem(P_384) + key_pem(P_256) + key_pem(P_384)
    content += certificate_pem(KeyAlgorithm.RSA_2048) + certificate_pem(P_256)
    loaded = load_credentials(write(tmp_path, content), None)
    assert [c.key.algorithm for c in loaded] == [P_256, P_384]
    assert [c.certificate for c in loaded] == [
        credential(P_256).certificate,
        credential(P_384).certificate,
    ]


def test_a_password_opens_the_encrypted_keys_beside_others(tmp_path: Path) -> None:
    content = certificate_pem(P_256) + certificate_pem(P_384)
    content += key_pem(P_256, b"secret") + key_pem(P_384)
    loaded = load_credentials(write(tmp_path, content), b"secret")
    assert [c.key.algorithm for c in loaded] == [P_256, P_384]


@pytest.mark.parametrize(
    ("content", "password", "message"),
    [
        pytest.param(b"", None, "cannot be read as PEM or PKCS#12; does it need", id="empty"),
        pytest.param(b"\0" * 100, b"x", "is the password right", id="no PKCS#12"),
        pytest.param(p12(b"right"), b"wrong", "is the password right", id="wrong password"),
        pytest.param(p12(b"right"), None, "password-file=", id="no password"),
        pytest.param(certificate_pem(P_256), None, "no private key", id="no key"),
        pytest.param(key_pem(P_256), None, "no certificate for its P-256 key", id="no certificate"),
        pytest.param(key_pem(P_256) + certificate_pem(P_384), None, "no certificate", id="foreign"),
        pytest.param(key_pem(P_256, b"right"), None, "encrypted private key", id="PEM, encrypted"),
        pytest.param(key_pem(P_256, b"right"), b"wrong", "password right", id="PEM, wrong one"),
        pytest.param(
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            None,
            "CERTIFICATE that cannot be read",
            id="broken certificate",
        ),
    ],
)
def test_what_cannot_be_used_is_named_with_its_file(
    tmp_path: Path, content: bytes, password: bytes | None, message: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UserError) as refused:
        load_credentials(path, password)
    assert str(path) in str(refused.value)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read_or_are_too_large(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_credentials(tmp_path / "missing", None)
    with pytest.raises(UserError, match="Is a directory"):
        load_credentials(tmp_path, None)
    with pytest.raises(UserError, match="larger than 1 MiB"):
        load_credentials(write(tmp_path, bytes((1 << 20) + 1)), None)


@pytest.mark.parametrize("content", [b"123456", b"123456\n", b"123456\r\nmore\n"])
def test_a_secret_is_the_first_line(tmp_path: Path, content: bytes) -> None:
    assert read_secret(write(tmp_path, content)) == b"123456"


@pytest.mark.parametrize("content", [b"", b"\n123456\n"])
def test_an_empty_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="is empty"):
        read_secret(write(tmp_path, content))
