# SPDX-License-Identifier: Apache-2.0
"""Private keys and certificates from files: PKCS#12 (RFC 7292) and PEM (RFC 7468).

A key file that others than its owner may read or change gives a warning, and is used all the same:
to refuse it would not make it any more secret. Its group may read it, as Debian's group ssl-cert
does.

A file may be one of the credentials that systemd passes to a service (systemd.exec(5),
"Credentials"), and is named credential:NAME then.
"""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_pem_private_key,
    load_ssh_private_key,
    pkcs12,
)

from ccidd.errors import UserError
from ccidd.keys.certificates import is_issuer, warn_unless_valid
from ccidd.keys.key import Credential, PrivateKey
from ccidd.keys.local import local_key

CREDENTIAL: Final = "credential:"
"""What the name of a credential begins with, where the path of a file could be."""

_MAX_FILE_SIZE: Final = 1 << 20
"""Bytes; a larger file is not a key file, and is not worth reading."""

_TOO_OPEN: Final = stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH

# RFC 7468, section 3: the labels of the private keys that cryptography reads all end alike.
_PEM_BLOCK: Final = re.compile(
    rb"-----BEGIN (?P<label>[A-Z0-9 ]+)-----\r?\n.*?-----END (?P=label)-----", re.DOTALL
)
_CERTIFICATE_LABELS: Final = ("CERTIFICATE", "X509 CERTIFICATE")
_SSH_LABEL: Final = "OPENSSH PRIVATE KEY"

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def located(path: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Gives the file that is meant: of credential:NAME, the one that systemd passed.

    Args:
        path: the file, or credential:NAME.
        environ: where systemd says where the credentials are.

    Raises:
        UserError: There is no such credential.
    """
    text = os.fspath(path)
    if not text.startswith(CREDENTIAL):
        return path
    name = text.removeprefix(CREDENTIAL)
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if directory is None:
        raise UserError(f"{text} is for a service of systemd's with LoadCredential={name}")
    file = Path(directory, name)
    if "/" in name or not file.is_file():
        raise UserError(f"systemd passed no credential {name!r}; LoadCredential= of the unit does")
    return file


def read_file(path: Path) -> bytes:
    """Reads a small file, or a credential, that an option names.

    Raises:
        UserError: It cannot be read, or is larger than 1 MiB.
    """
    content, _mode = _read_with_mode(path)
    return content


def read_key_file(path: Path) -> bytes:
    """Reads a file with private keys; it gives a warning if it is open to others.

    Raises:
        UserError: It cannot be read, or is larger than 1 MiB.
    """
    content, mode = _read_with_mode(path)
    _warn_if_open_to_others(path, mode)
    return content


def _read_with_mode(path: Path) -> tuple[bytes, int]:
    path = located(path)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_FILE_SIZE + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_FILE_SIZE:
        raise UserError(f"{path} is larger than 1 MiB: is it the right file?")
    return content, mode


def is_open_to_others(mode: int) -> bool:
    """Tells by its mode whether others than its owner may read or change a file with a secret.

    Its group may read it.
    """
    return stat.S_ISREG(mode) and bool(mode & _TOO_OPEN)


def _warn_if_open_to_others(path: Path, mode: int) -> None:
    if is_open_to_others(mode):
        log.warning(
            "key_file_open_to_others",
            file=str(path),
            mode=f"{stat.S_IMODE(mode):04o}",
            advice=f"chmod u=rw,g=,o= {path}",
        )


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

    Certificates that are not valid now, and files that are open to others, give a warning.

    Args:
        path: a PKCS#12 file (one key), or a PEM file with any number of keys and certificates in
            any order. Certificates without a key, those of issuers for example, are left out.
        password: what the file or its keys are encrypted with.

    Raises:
        UserError: The file cannot be read or decrypted, holds no key, a key without a certificate
            or a key of an unsupported kind.
    """
    content = read_key_file(path)
    try:
        if b"-----BEGIN " in content:
            credentials = parse_pem(content, password)
        else:
            credentials = [_load_pkcs12(content, password)]
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    for credential in credentials:
        warn_unless_valid(credential.certificate, str(path))
    return credentials


def _load_pkcs12(content: bytes, password: bytes | None) -> Credential:
    try:
        store = pkcs12.load_pkcs12(content, password)
    except (ValueError, UnsupportedAlgorithm) as error:
        _refuse_der(content)
        # cryptography does not tell a wrong password from a broken file.
        hint = "is the password right?" if password else "does it need password-file=?"
        raise UserError(f"cannot be read as PEM or PKCS#12; {hint}") from error
    found = [store.cert, *store.additional_certs]
    certificates = [each.certificate for each in found if each is not None]
    if store.key is None:
        raise UserError("holds no private key")
    credential = _with_certificate(local_key(store.key), certificates)
    for certificate in certificates:
        if _is_of_another_key(certificate, certificates, credential.key):
            raise UserError(
                f"holds a certificate of another key ({certificate.subject.rfc4514_string()}), and"
                " of a PKCS#12 file one key is read; make a PEM file of it"
                " (openssl pkcs12 -in FILE -out FILE.pem)"
            )
    return credential


def _is_of_another_key(
    certificate: x509.Certificate, certificates: Sequence[x509.Certificate], key: PrivateKey
) -> bool:
    """Tells whether a file holds another key, of which `cryptography` does not tell."""
    others = [each for each in certificates if each != certificate]
    issues_others = any(each.issuer == certificate.subject for each in others)
    return not (is_issuer(certificate) or issues_others or _is_for(certificate, key))


def _refuse_der(content: bytes) -> None:
    """Tells what to do with a bare key or certificate in DER, if that is what the file is."""
    try:
        x509.load_der_x509_certificate(content)
    except ValueError:
        pass
    else:
        raise UserError(
            "is a certificate in DER; put it into one PEM file with its private key"
            " (openssl x509 -inform DER)"
        )
    try:
        load_der_private_key(content, None)
    except TypeError:
        # It has a password.
        pass
    except (ValueError, UnsupportedAlgorithm):
        return
    raise UserError(
        "is a private key in DER; put it into one PEM file with its certificate"
        " (openssl pkey -inform DER)"
    )


def parse_pem(content: bytes, password: bytes | None) -> list[Credential]:
    """Reads PEM text, as `load_credentials` reads a file."""
    keys: list[PrivateKey] = []
    certificates: list[x509.Certificate] = []
    labels = []
    for block in _PEM_BLOCK.finditer(content):
        label = block["label"].decode()
        labels.append(label)
        if label.endswith("PRIVATE KEY"):
            keys.append(_load_pem_key(label, block[0], password))
        elif label in _CERTIFICATE_LABELS:
            certificates.append(_load_pem_certificate(label, block[0]))
    if not keys:
        raise UserError("holds no private key")
    try:
        return [_with_certificate(key, certificates) for key in keys]
    except UserError as error:
        if "TRUSTED CERTIFICATE" in labels:
            raise UserError(
                f"{error}, but a TRUSTED CERTIFICATE, which is a form of OpenSSL's own;"
                " convert it (openssl x509)"
            ) from error
        raise


def _load_pem_certificate(label: str, block: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(block)
    except ValueError as error:
        raise UserError(f"has a {label} that cannot be read") from error


def _load_pem_key(label: str, block: bytes, password: bytes | None) -> PrivateKey:
    load = load_ssh_private_key if label == _SSH_LABEL else load_pem_private_key
    try:
        try:
            return local_key(load(block, password))
        except TypeError as error:
            if password is None:
                raise UserError("holds an encrypted private key; give password-file=") from error
            # A password was given for a key that has none: others in the file may need it.
            return local_key(load(block, None))
    except UnsupportedAlgorithm as error:
        tool = "ssh-keygen -p -m PKCS8" if label == _SSH_LABEL else "openssl pkcs8 -topk8"
        raise UserError(
            f"has a {label} in a form that cannot be read; convert it ({tool})"
        ) from error
    except ValueError as error:
        raise UserError(
            f"has a {label} that cannot be read; is the password right?"
            " If it is, encrypt the key in another way (openssl pkcs8 -topk8)"
            if password
            else f"has a {label} that cannot be read"
        ) from error


def _with_certificate(key: PrivateKey, certificates: Sequence[x509.Certificate]) -> Credential:
    for certificate in certificates:
        if _is_for(certificate, key):
            return Credential(key, certificate)
    raise UserError(f"holds no certificate for its {key.algorithm.value} key")


def _is_for(certificate: x509.Certificate, key: PrivateKey) -> bool:
    try:
        return certificate.public_key() == key.public_key
    except (ValueError, UnsupportedAlgorithm):
        # It is perhaps an issuer's, of a kind that keys here do not have.
        return False
