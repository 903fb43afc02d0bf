# SPDX-License-Identifier: Apache-2.0
"""Files that go on a stored card, and files that are made from one."""

import argparse
import contextlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ccidd.card.piv.references import Origin
from ccidd.errors import UserError
from ccidd.keys.files import load_credentials, read_file
from ccidd.keys.key import Credential
from ccidd.keys.local import private_key_of
from ccidd.service.cardkeys import StoredKey, certificate_contents, key_contents, keys_in
from ccidd.service.cardobjects import check_room, named_object, read_object
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.certificates import request
from ccidd.service.newcard import Blank, subject_of
from ccidd.service.secretinput import can_ask, given_secret, secret
from ccidd.service.state import CardRecord, State, StoredMemory


def import_files(
    state: State,
    record: CardRecord,
    files: Sequence[Path],
    references: Sequence[int],
    options: argparse.Namespace,
) -> None:
    """Puts keys, certificates and data objects on a card: all of them, or none.

    Args:
        state: where the card is.
        record: the card.
        files: private keys with their certificates, or certificates alone, or data objects, which
            are named TAG=FILE.
        references: where the keys go, in their order; the rest goes where there is room.
        options: `--replace`, and the options of the password.

    Raises:
        UserError: A file cannot be used, there is no room, or a process serves the card.
    """
    with contextlib.closing(StoredMemory(state, record)) as memory:
        _store(memory, record, _read(memory.contents, record, files, references, options))


def change_contents(state: State, record: CardRecord, changes: Mapping[str, bytes]) -> None:
    """Changes what is written on a card.

    Raises:
        UserError: A process serves the card, or it cannot be changed.
    """
    with contextlib.closing(StoredMemory(state, record)) as memory:
        _store(memory, record, changes)


def _store(memory: StoredMemory, record: CardRecord, changes: Mapping[str, bytes]) -> None:
    try:
        trio.run(memory.store, changes)
    except OSError as error:
        raise UserError(f"the card {record.name} cannot be changed: {error.strerror}") from error


def _read(
    contents: Mapping[str, bytes],
    record: CardRecord,
    files: Sequence[Path],
    references: Sequence[int],
    options: argparse.Namespace,
) -> Mapping[str, bytes]:
    """Reads what is put on a card; gives it as contents of its memory."""
    piv = CARD_TYPES[record.type].has_piv
    changes: dict[str, bytes] = {}
    stored = {key.reference: key for key in keys_in(contents)}
    password = given_secret(options, "password")
    added: dict[int, StoredKey] = {}
    wanted = list(references)
    for file in files:
        if (found := named_object(file)) is not None:
            changes |= read_object(*found, record)
            continue
        if _has_certificates_alone(file):
            for key in _with_certificates(file, {**stored, **added}):
                changes |= certificate_contents(*key, piv=piv)
            continue
        for credential in _load(file, password, options):
            reference = _place(wanted, record, {**stored, **added})
            if reference in added or (reference in stored and not options.replace):
                raise UserError(
                    f"{file}: the card has a key {reference:02X} already;"
                    " --replace puts another in its place"
                )
            added[reference] = StoredKey(
                reference, private_key_of(credential.key), credential.certificate
            )
            changes |= key_contents(added[reference], Origin.IMPORTED, piv=piv)
    if wanted:
        raise UserError(f"there is no private key for --key={wanted[0]:02X} in the files")
    check_room({**contents, **changes}, record)
    return changes


def _place(wanted: list[int], record: CardRecord, taken: Iterable[int]) -> int:
    if wanted:
        return wanted.pop(0)
    for reference in CARD_TYPES[record.type].purposes:
        if reference not in taken:
            return reference
    raise UserError("the card has no room for another key; choose one with --key and --replace")


def _load(file: Path, password: bytes | None, options: argparse.Namespace) -> Sequence[Credential]:
    try:
        return load_credentials(file, password)
    except UserError:
        if password is not None or not can_ask():
            raise
    # It may be encrypted; what is wrong otherwise shows again.
    return load_credentials(file, secret(options, "password", f"Password of {file}"))


def _has_certificates_alone(file: Path) -> bool:
    content = read_file(file)
    return b"-----BEGIN CERTIFICATE-----" in content and b"PRIVATE KEY-----" not in content


def _with_certificates(
    file: Path, keys: Mapping[int, StoredKey]
) -> Sequence[tuple[int, x509.Certificate]]:
    """Finds the keys that a file's certificates are for; those of issuers are left out."""
    try:
        certificates = x509.load_pem_x509_certificates(read_file(file))
    except ValueError as error:
        raise UserError(f"{file} has a certificate that cannot be read") from error
    found = [
        (key.reference, certificate)
        for certificate in certificates
        for key in keys.values()
        if key.private_key.public_key() == certificate.public_key()
    ]
    if not found:
        raise UserError(f"{file} has no certificate for a key of the card")
    return found


def request_for(key: StoredKey, record: CardRecord, subject: x509.Name | None) -> bytes:
    """Makes a request for a certificate of a stored key, in PEM.

    Args:
        key: the key.
        record: its card.
        subject: who it is for; by default whoever its certificate is for now.

    Raises:
        UserError: The key cannot sign.
    """
    if subject is None and key.certificate is not None:
        subject = key.certificate.subject
    return _request(key, record.type, subject, record.name or "ccidd")


def write_requests(keys: Iterable[StoredKey], blank: Blank, directory: Path) -> None:
    """Writes requests for the certificates of a new card's keys.

    Raises:
        UserError: They cannot be written, or a key cannot sign.
    """
    for key in keys:
        pem = _request(key, blank.type, blank.subject, blank.label)
        write_pem([pem], directory / f"{blank.name}-{key.reference:02X}.csr")


def _request(key: StoredKey, kind: str, subject: x509.Name | None, label: str) -> bytes:
    public_key = key.private_key.public_key()
    usage = CARD_TYPES[kind].purposes[key.reference].key_usage(public_key)
    name = subject or subject_of(kind, key.reference, label)
    return request(key.private_key, name, usage).public_bytes(Encoding.PEM)


def write_pem(pem: Sequence[bytes], output: Path | None) -> None:
    """Writes PEM to a file, or to standard output.

    Raises:
        UserError: It cannot be written.
    """
    if output is None:
        sys.stdout.write(b"".join(pem).decode())
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(b"".join(pem))
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from error
