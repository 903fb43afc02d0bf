# SPDX-License-Identifier: Apache-2.0
"""Private keys and certificates from files: PKCS#12 (RFC 7292) and PEM (RFC 7468)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

from ccidd.errors import UserError
from ccidd.keys.key import Credential, PrivateKey
from ccidd.keys.local import local_key

_MAX_FILE_SIZE: Final = 1 << 20
"""Bytes; a larger file is not a key file, and is not worth reading."""

# RFC 7468, section 3: the labels of the private keys that cryptography reads all end alike.
_PEM_BLOCK: Final = re.compile(
    rb"-----BEGIN (?P<label>[A-Z0-9 ]+)-----\r?\n.*?-----END (?P=label)-----", re.DOTALL
)


def read_file(path: Path) -> bytes:
    """Reads a small file that an option names.

    Raises:
        UserError: It cannot be read, or is larger than 1 MiB.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_SIZE + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_FILE_SIZE:
        raise UserError(f"{path} is larger than 1 MiB: is it the right file?")
    return content


def read_secret(path: Path) -> bytes:
    """Reads a PIN or password from a file: its first line, without the line's end.

    Raises:
        UserError: The file cannot be read, or its first line is empty.
    """
    secret = read_file(path).split(b"\n", 1)[0].removesuffix(b"\r")
    if not secret:
        raise UserError(f"{path} is empty; put the secret into its first line")
    return secret


def load_credentials(path: Path, password: bytes | None) -> list[Credential]:
    """Reads every private key of a file, each with its certificate, in the order of the file.

    Args:
        path: a PKCS#12 file (one key), or a PEM file with any number of keys and certificates in
            any order. Certificates without a key, those of issuers for example, are left out.
        password: what the file or its keys are encrypted with.

    Raises:
        UserError: The file cannot be read or decrypted, holds no key, a key without a certificate
            or a key of an unsupported kind.
    """
    content = read_file(path)
    try:
        if b"-----BEGIN " in content:
            return parse_pem(content, password)
        return _load_pkcs12(content, password)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _load_pkcs12(content: bytes, password: bytes | None) -> list[Credential]:
    try:
        key, certificate, _others = pkcs12.load_key_and_certificates(content, password)
    except (ValueError, UnsupportedAlgorithm) as error:
        # cryptography does not tell a wrong password from a broken file.
        hint = "is the password right?" if password else "does it need password-file=?"
        raise UserError(f"cannot be read as PEM or PKCS#12; {hint}") from error
    if key is None or certificate is None:
        raise UserError("holds no private key with its certificate")
    return [Credential(local_key(key), certificate)]


def parse_pem(content: bytes, password: bytes | None) -> list[Credential]:
    """Reads PEM text, as `load_credentials` reads a file."""
    keys: list[PrivateKey] = []
    certificates: list[x509.Certificate] = []
    for block in _PEM_BLOCK.finditer(content):
        label = block["label"].decode()
        try:
            if label.endswith("PRIVATE KEY"):
                keys.append(_load_pem_key(block[0], password))
            elif label == "CERTIFICATE":
                certificates.append(x509.load_pem_x509_certificate(block[0]))
        except (ValueError, UnsupportedAlgorithm) as error:
            hint = "; is the password right?" if label.endswith("PRIVATE KEY") else ""
            raise UserError(f"has a {label} that cannot be read{hint}") from error
    if not keys:
        raise UserError("holds no private key")
    return [_with_certificate(key, certificates) for key in keys]


def _load_pem_key(block: bytes, password: bytes | None) -> PrivateKey:
    try:
        return local_key(load_pem_private_key(block, password))
    except TypeError as error:
        if password is None:
            raise UserError("holds an encrypted private key; give password-file=") from error
        # A password was given for a key that has none: others in the file may need it.
        return local_key(load_pem_private_key(block, None))


def _with_certificate(key: PrivateKey, certificates: Sequence[x509.Certificate]) -> Credential:
    for certificate in certificates:
        if certificate.public_key() == key.public_key:
            return Credential(key, certificate)
    raise UserError(f"holds no certificate for its {key.algorithm.value} key")
