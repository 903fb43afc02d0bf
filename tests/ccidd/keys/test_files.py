# SPDX-License-Identifier: Apache-2.0
import datetime as dt
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from ccidd.errors import UserError
from ccidd.keys.files import load_credentials, located, read_secret
from ccidd.keys.key import KeyAlgorithm
from credentials import credential, private_key

P_256, P_384 = KeyAlgorithm.P_256, KeyAlgorithm.P_384


def key_pem(algorithm: KeyAlgorithm, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return private_key(algorithm, 0).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def certificate_pem(algorithm: KeyAlgorithm) -> bytes:
    return credential(algorithm).certificate.public_bytes(Encoding.PEM)


def issued(
    subject: str, issuer: str, number: int, issuer_number: int, *, is_ca: bool | None
) -> x509.Certificate:
    """Makes a certificate of the P-256 key with a number, signed by that with another."""
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (subject, issuer)
    ]
    key, issuer_key = private_key(P_256, number), private_key(P_256, issuer_number)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder(names[1], names[0], key.public_key(), 1000 + number)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
    if is_ca is not None:
        constraints = x509.BasicConstraints(ca=is_ca, path_length=None)
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


OWN = credential(P_256).certificate
AUTHORITY = issued("CA", "CA", 1, 1, is_ca=True)
OLD_AUTHORITY = issued("old CA", "old CA", 1, 1, is_ca=None)
OF_OLD_AUTHORITY = issued("key", "old CA", 0, 1, is_ca=False)
RENEWED = issued("key", "CA", 0, 1, is_ca=False)


def p12(
    password: bytes | None,
    others: Sequence[x509.Certificate] = (AUTHORITY,),
    own: x509.Certificate = OWN,
) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    key = private_key(P_256, 0)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return pkcs12.serialize_key_and_certificates(b"name", key, own, others, encryption)


def write(directory: Path, content: bytes, mode: int = 0o600) -> Path:
    path = directory / "keys"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def openssl(*arguments: str | Path) -> bytes:
    command = ["openssl", *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def one_of_each(directory: Path) -> tuple[Path, Path]:
    """Writes a key and its certificate into files of their own."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    key.write_bytes(key_pem(P_256))
    certificate.write_bytes(certificate_pem(P_256))
    return key, certificate


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


# Each is a way to encrypt a key in PEM, for OpenSSL's command line.
@pytest.mark.parametrize(
    "encryption",
    [
        "ec -aes128",
        "ec -aes256",
        "ec -des3",
        "pkcs8 -topk8 -v2 aes-256-cbc",
        "pkcs8 -topk8 -v2 aes-128-cbc -v2prf hmacWithSHA512",
        "pkcs8 -topk8 -v2 des3",
        "pkcs8 -topk8 -v1 PBE-SHA1-3DES",
        "pkcs8 -topk8 -scrypt",
    ],
)
def test_encrypted_pem_of_openssl_is_read(tmp_path: Path, encryption: str) -> None:
    key, _certificate = one_of_each(tmp_path)
    encrypted = openssl(*encryption.split(), "-in", key, "-passout", "pass:right")
    assert b"ENCRYPTED" in encrypted
    path = write(tmp_path, encrypted + certificate_pem(P_256))
    (loaded,) = load_credentials(path, b"right")
    assert loaded.key.public_key == credential(P_256).key.public_key
    with pytest.raises(UserError, match="is the password right"):
        load_credentials(path, b"wrong")
    with pytest.raises(UserError, match="give password-file="):
        load_credentials(path, None)


@pytest.mark.parametrize(
    "encryption",
    [
        "",
        "-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES",
        "-keypbe aes-128-cbc -certpbe NONE -macalg sha512",
        "-keypbe NONE -certpbe NONE",
    ],
)
def test_pkcs12_of_openssl_is_read(tmp_path: Path, encryption: str) -> None:
    key, certificate = one_of_each(tmp_path)
    store = openssl(
        *("pkcs12", "-export", "-inkey", key, "-in", certificate, "-passout", "pass:right"),
        *encryption.split(),
    )
    (loaded,) = load_credentials(write(tmp_path, store), b"right")
    assert loaded.certificate == credential(P_256).certificate
    with pytest.raises(UserError, match="is the password right"):
        load_credentials(write(tmp_path, store), b"wrong")


def test_keys_of_ssh_are_read(tmp_path: Path) -> None:
    key = private_key(KeyAlgorithm.ED25519, 0)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    content = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    content += certificate_pem(KeyAlgorithm.ED25519)
    (loaded,) = load_credentials(write(tmp_path, content), None)
    assert loaded.key.algorithm is KeyAlgorithm.ED25519


def test_other_forms_are_told_what_to_do(tmp_path: Path) -> None:
    key, certificate = one_of_each(tmp_path)
    for content, message in (
        (openssl("pkey", "-in", key, "-outform", "DER"), "private key in DER"),
        (
            openssl("pkcs8", "-topk8", "-in", key, "-outform", "DER", "-passout", "pass:x"),
            "private key in DER",
        ),
        (openssl("x509", "-in", certificate, "-outform", "DER"), "certificate in DER"),
        (
            key_pem(P_256) + openssl("x509", "-in", certificate, "-trustout"),
            "a TRUSTED CERTIFICATE",
        ),
        (
            openssl(
                *("ec", "-aes-256-ctr", "-in", key, "-passout", "pass:right"),
            ),
            "encrypt the key in another way",
        ),
    ):
        with pytest.raises(UserError, match=message) as refused:
            load_credentials(write(tmp_path, content), b"right")
        assert "\n" not in str(refused.value)


def test_of_several_keys_in_pkcs12_none_is_left_out_in_silence(tmp_path: Path) -> None:
    content = p12(b"x", [AUTHORITY, credential(P_384).certificate])
    with pytest.raises(UserError, match=r"another key \(CN=test P-384 0\), .* make a PEM file"):
        load_credentials(write(tmp_path, content), b"x")
    for content in (p12(b"x", [OLD_AUTHORITY], OF_OLD_AUTHORITY), p12(b"x", [RENEWED, AUTHORITY])):
        assert load_credentials(write(tmp_path, content), b"x")


@pytest.mark.parametrize(
    ("mode", "count"),
    [(0o600, 0), (0o400, 0), (0o640, 0), (0o644, 1), (0o660, 1), (0o602, 1)],
)
def test_files_that_are_open_to_others_give_a_warning(
    tmp_path: Path, mode: int, count: int
) -> None:
    content = key_pem(P_256) + certificate_pem(P_256)
    path = write(tmp_path, content, mode)
    with capture_logs() as logs:
        assert load_credentials(path, None)
    assert [entry["event"] for entry in logs] == ["key_file_open_to_others"] * count
    assert all(entry["mode"] == f"{mode:04o}" for entry in logs)


@pytest.mark.parametrize(
    ("start", "event"),
    [(-20, "certificate_expired"), (10, "certificate_not_yet_valid")],
)
def test_a_certificate_that_is_not_valid_now_gives_a_warning(
    tmp_path: Path, start: int, event: str
) -> None:
    key = private_key(P_256, 0)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = credential(P_256).certificate.subject
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + dt.timedelta(days=start))
        .not_valid_after(now + dt.timedelta(days=start + 10))
        .sign(key, hashes.SHA256())
    )
    content = key_pem(P_256) + certificate.public_bytes(Encoding.PEM)
    with capture_logs() as logs:
        assert load_credentials(write(tmp_path, content), None)
    assert [entry["event"] for entry in logs] == [event]


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


def test_a_credential_of_systemds_is_read_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alice.pin").write_bytes(b"123456\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret(Path("credential:alice.pin")) == b"123456"
    assert located(Path("alice.pin")) == Path("alice.pin")


@pytest.mark.parametrize("name", ["bob.pin", "", ".", "../credentials/alice.pin"])
def test_what_systemd_did_not_pass_is_no_credential(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "credentials"
    directory.mkdir()
    (directory / "alice.pin").write_bytes(b"123456\n")
    with pytest.raises(UserError, match="passed no credential"):
        located(Path(f"credential:{name}"), {"CREDENTIALS_DIRECTORY": str(directory)})


def test_without_systemd_there_are_no_credentials() -> None:
    with pytest.raises(UserError, match="service of systemd's with LoadCredential="):
        located(Path("credential:alice.pin"), {})
