# SPDX-License-Identifier: Apache-2.0
"""Real PKCS#11 tokens and NSS databases with the keys of `credentials`: SoftHSM's, certutil's."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import PyKCS11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)

from ccidd.keys.key import KeyAlgorithm
from credentials import credential, private_key

SOFTHSM: Final = "/usr/lib/softhsm/libsofthsm2.so"
PIN: Final = b"123456"
SO_PIN: Final = b"12345678"

# DER: OBJECT IDENTIFIER for the curves, PrintableString for Ed25519, as PKCS #11 3.0 has it.
_EC_PARAMS: Final = {
    KeyAlgorithm.P_256: bytes.fromhex("06082a8648ce3d030107"),
    KeyAlgorithm.P_384: bytes.fromhex("06052b81040022"),
    KeyAlgorithm.ED25519: b"\x13\x0cedwards25519",
    KeyAlgorithm.X25519: b"\x13\x0acurve25519",
}
# SoftHSM has no CKK_EC_MONTGOMERY.
_CKK: Final = {
    KeyAlgorithm.ED25519: PyKCS11.CKK_EC_EDWARDS,
    KeyAlgorithm.X25519: PyKCS11.CKK_EC_EDWARDS,
}

Template = list[tuple[int, object]]


@dataclass(frozen=True)
class StoredKey:
    """A key to be put onto a token, with its certificate."""

    algorithm: KeyAlgorithm
    id: bytes
    label: str
    number: int = 0
    with_certificate: bool = True
    with_public_key: bool = True
    certificate_of: tuple[KeyAlgorithm, int] | None = None
    """Another key whose certificate it gets."""
    always_authenticate: bool = False
    may_sign: bool = True
    may_decrypt: bool = True
    is_hidden: bool = False
    """Whether its certificate is seen after a login only."""


class SoftHsm:
    """Tokens of SoftHSM, in a directory of their own; the environment names it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.tokens = directory / "tokens"
        self.tokens.mkdir(parents=True)
        self._configuration = directory / "softhsm2.conf"
        monkeypatch.setenv("SOFTHSM2_CONF", str(self._configuration))
        self.configure()

    def configure(self, *lines: str) -> None:
        text = [f"directories.tokendir = {self.tokens}", "log.level = ERROR", *lines]
        self._configuration.write_text("\n".join(text) + "\n")

    def add(self, label: str, keys: Sequence[StoredKey]) -> str:
        """Makes a token, and gives the URI that names it."""
        library = PyKCS11.PyKCS11Lib()
        library.load(SOFTHSM)
        try:
            slot = library.getSlotList()[-1]
            library.initToken(slot, SO_PIN, label.ljust(32))
            (slot,) = [
                slot
                for slot in library.getSlotList(tokenPresent=True)
                if library.getTokenInfo(slot).label.strip() == label
            ]
            session = library.openSession(slot, PyKCS11.CKF_RW_SESSION)
            session.login(SO_PIN, PyKCS11.CKU_SO)
            session.initPin(PIN)
            session.logout()
            _put(session, keys)
            session.closeSession()
        finally:
            library.unload()
        return uri(token=label)

    def put(self, label: str, keys: Sequence[StoredKey]) -> None:
        """Puts further keys on a token."""
        library = PyKCS11.PyKCS11Lib()
        library.load(SOFTHSM)
        try:
            (slot,) = [
                slot
                for slot in library.getSlotList(tokenPresent=True)
                if library.getTokenInfo(slot).label.strip() == label
            ]
            session = library.openSession(slot, PyKCS11.CKF_RW_SESSION)
            _put(session, keys)
            session.closeSession()
        finally:
            library.unload()

    def remove(self) -> None:
        """Takes all tokens out."""
        self.tokens.rename(self.directory / "removed")
        self.tokens.mkdir()

    def bring_back(self) -> None:
        self.tokens.rmdir()
        (self.directory / "removed").rename(self.tokens)

    def set_pin(self, label: str, old: bytes, new: bytes) -> None:
        """Changes a token's PIN, as another program would."""
        command = ["pkcs11-tool", "--module", SOFTHSM, "--token-label", label, "--login"]
        command += ["--pin", old.decode(), "--change-pin", "--new-pin", new.decode()]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


def uri(module: str = SOFTHSM, *, pin_file: Path | None = None, **attributes: str) -> str:
    """Makes a PKCS#11 URI."""
    path = ";".join(f"{name}={quote(value, safe='%')}" for name, value in attributes.items())
    pin = f"&pin-source=file:{pin_file}" if pin_file is not None else ""
    return f"pkcs11:{path}?module-path={module}{pin}"


def _put(session: PyKCS11.Session, keys: Sequence[StoredKey]) -> None:
    session.login(PIN)
    for key in keys:
        for template in _templates(key):
            session.createObject(template)
    session.logout()


def _templates(key: StoredKey) -> list[Template]:
    common: Template = [
        (PyKCS11.CKA_TOKEN, PyKCS11.CK_TRUE),
        (PyKCS11.CKA_ID, key.id),
        (PyKCS11.CKA_LABEL, key.label),
    ]
    public: Template = [(PyKCS11.CKA_CLASS, PyKCS11.CKO_PUBLIC_KEY), *common]
    private: Template = [
        (PyKCS11.CKA_CLASS, PyKCS11.CKO_PRIVATE_KEY),
        *common,
        (PyKCS11.CKA_PRIVATE, PyKCS11.CK_TRUE),
        (PyKCS11.CKA_SENSITIVE, PyKCS11.CK_TRUE),
        (PyKCS11.CKA_SIGN, _flag(key.may_sign)),
        (PyKCS11.CKA_DECRYPT, _flag(key.may_decrypt)),
        (PyKCS11.CKA_DERIVE, PyKCS11.CK_TRUE),
        (PyKCS11.CKA_ALWAYS_AUTHENTICATE, _flag(key.always_authenticate)),
    ]
    more_public, more_private = _numbers(key)
    templates = [private + more_private]
    if key.with_public_key:
        templates.append([*public, (PyKCS11.CKA_PRIVATE, PyKCS11.CK_FALSE), *more_public])
    if key.with_certificate:
        certificate = credential(*(key.certificate_of or (key.algorithm, key.number))).certificate
        templates.append(
            [
                (PyKCS11.CKA_CLASS, PyKCS11.CKO_CERTIFICATE),
                *common,
                (PyKCS11.CKA_CERTIFICATE_TYPE, PyKCS11.CKC_X_509),
                (PyKCS11.CKA_PRIVATE, _flag(key.is_hidden)),
                (PyKCS11.CKA_SUBJECT, certificate.subject.public_bytes()),
                (PyKCS11.CKA_VALUE, certificate.public_bytes(Encoding.DER)),
            ]
        )
    return templates


def _flag(value: bool) -> int:  # noqa: FBT001 (a converter)
    return int(PyKCS11.CK_TRUE if value else PyKCS11.CK_FALSE)


def _numbers(key: StoredKey) -> tuple[Template, Template]:
    """The attributes of the public and of the private key that make up the key."""
    private = private_key(key.algorithm, key.number)
    if isinstance(private, rsa.RSAPrivateKey):
        numbers = private.private_numbers()
        n, e = numbers.public_numbers.n, numbers.public_numbers.e
        public: Template = [
            (PyKCS11.CKA_KEY_TYPE, PyKCS11.CKK_RSA),
            (PyKCS11.CKA_MODULUS, _number(n)),
            (PyKCS11.CKA_PUBLIC_EXPONENT, _number(e)),
        ]
        return public, [
            *public,
            (PyKCS11.CKA_PRIVATE_EXPONENT, _number(numbers.d)),
            (PyKCS11.CKA_PRIME_1, _number(numbers.p)),
            (PyKCS11.CKA_PRIME_2, _number(numbers.q)),
            (PyKCS11.CKA_EXPONENT_1, _number(numbers.dmp1)),
            (PyKCS11.CKA_EXPONENT_2, _number(numbers.dmq1)),
            (PyKCS11.CKA_COEFFICIENT, _number(numbers.iqmp)),
        ]
    common: Template = [
        (PyKCS11.CKA_KEY_TYPE, _CKK.get(key.algorithm, PyKCS11.CKK_EC)),
        (PyKCS11.CKA_EC_PARAMS, _EC_PARAMS[key.algorithm]),
    ]
    if isinstance(private, ec.EllipticCurvePrivateKey):
        value = private.private_numbers().private_value.to_bytes(private.key_size // 8)
        point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    else:
        assert isinstance(private, (ed25519.Ed25519PrivateKey, x25519.X25519PrivateKey))
        value = private.private_bytes_raw()
        point = private.public_key().public_bytes_raw()
    octet_string = b"\4" + bytes([len(point)]) + point
    return [*common, (PyKCS11.CKA_EC_POINT, octet_string)], [*common, (PyKCS11.CKA_VALUE, value)]


def _number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8)


def nss_database(directory: Path, keys: dict[str, tuple[KeyAlgorithm, int]], password: str) -> Path:
    """Makes an NSS database with keys by their nicknames."""
    directory.mkdir()
    password_file = directory / "password"
    password_file.write_text(password + "\n")
    database = ["-d", f"sql:{directory}"]
    if password:
        _run("certutil", "-N", *database, "-f", password_file)
    else:
        _run("certutil", "-N", *database, "--empty-password")
    for nickname, (algorithm, number) in keys.items():
        key = private_key(algorithm, number)
        assert isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey))
        # What certutil of Debian 12 reads.
        encryption = (
            PrivateFormat.PKCS12.encryption_builder()
            .kdf_rounds(1000)
            .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
            .build(b"transport")
        )
        file = directory / "import.p12"
        certificate = credential(algorithm, number).certificate
        file.write_bytes(
            pkcs12.serialize_key_and_certificates(
                nickname.encode(), key, certificate, None, encryption
            )
        )
        _run("pk12util", "-i", file, *database, "-k", password_file, "-W", "transport")
        file.unlink()
    return directory


def register_module(database: Path, name: str, library: str | Path) -> None:
    """Has an NSS database list a PKCS#11 module, as modutil does it."""
    _run("modutil", "-force", "-dbdir", f"sql:{database}", "-add", name, "-libfile", library)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)
