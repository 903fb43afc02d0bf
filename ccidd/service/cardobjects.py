# SPDX-License-Identifier: Apache-2.0
"""PIV data objects from files, as test cards are published: one file for each object.

Source: NIST SP 800-73-4, part 1, tables 3 (tags) and 10 (certificates); part 2, 3.1.2.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509

from ccid_protocol import tlv
from ccid_protocol.apdu import StatusWord
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.application import CardError
from ccidd.card.piv.contents import certificate_container
from ccidd.card.piv.objects import CONTAINERS, EXTENSION_TAGS, UNWRAPPED, check_discovery, have_room
from ccidd.card.piv.records import ABSENT, is_object_name, object_name
from ccidd.card.piv.references import KeyReference, ObjectTag
from ccidd.errors import UserError
from ccidd.keys.files import read_file
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.state import CardRecord

_NAMED: Final = re.compile(r"(7E|7F61|5F[0-9A-F]{4})=(.+)", re.IGNORECASE | re.DOTALL)
_DATA: Final = 0x53
_CERTIFICATE_TAGS: Final = frozenset(reference.certificate_tag for reference in KeyReference)


def named_object(argument: Path) -> tuple[int, Path] | None:
    """Tells tag and file of an argument TAG=FILE, and None of any other."""
    match = _NAMED.fullmatch(str(argument))
    return None if match is None else (int(match[1], 16), Path(match[2]))


def read_object(tag: int, file: Path, record: CardRecord) -> dict[str, bytes]:
    """Reads a data object; gives it as contents of the card's memory.

    Args:
        tag: its tag.
        file: what is inside the data object 53, or all of it; or a certificate (X.509, PEM or DER).
            An empty one hides the object.
        record: the card.

    Raises:
        UserError: The card has no such object, or the file cannot be used.
    """
    if not CARD_TYPES[record.type].has_piv:
        raise UserError(f"the card {record.name} is {record.type}, which has no PIV data objects")
    if tag not in CONTAINERS and tag not in EXTENSION_TAGS:
        raise UserError(f"{tag:X}={file}: {tag:X} is no tag of a PIV data object")
    return {object_name(tag): _content(tag, file)}


def check_room(contents: Mapping[str, bytes], record: CardRecord) -> None:
    """Checks that a card has room for the data objects that are to be on it.

    Raises:
        UserError: It has not.
    """
    if not have_room([len(value) for name, value in contents.items() if is_object_name(name)]):
        raise UserError(f"the card {record.name} has no room for all these data objects")


def _content(tag: int, file: Path) -> bytes:
    """Gives what the card stores: what is inside the data object 53, or the whole of some."""
    raw = read_file(file)
    if not raw:
        return ABSENT
    if tag in _CERTIFICATE_TAGS:
        certificate = _certificate(raw)
        if certificate is not None:
            return certificate_container(certificate)
    try:
        fields = list(tlv.decode(raw))
        if tag in UNWRAPPED:
            return _unwrapped(tag, raw, fields, file)
        if [each.tag for each in fields] == [_DATA]:
            raw = fields[0].value
            fields = list(tlv.decode(raw))
    except (RemoteProtocolError, CardError):
        fields = []
    if not fields:
        raise UserError(f"{file} has no data object {tag:X}")
    return raw


def _unwrapped(tag: int, raw: bytes, fields: Sequence[tlv.Tlv], file: Path) -> bytes:
    """Takes an object that does not stand in a data object 53, or only what is inside it."""
    if [each.tag for each in fields] == [tag]:
        template = fields[0].value
    else:
        template, raw = raw, tlv.encode(tag, raw)
    if tag == ObjectTag.DISCOVERY:
        try:
            check_discovery(template)
        except CardError as error:
            if error.sw != StatusWord.FUNCTION_NOT_SUPPORTED:
                raise
            raise UserError(
                f"{file}: its PIN usage policy stands for what the card does not have;"
                " 40 00, 60 10 and 60 20 can be"
            ) from error
    return raw


def _certificate(raw: bytes) -> x509.Certificate | None:
    try:
        if raw.startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(raw)
        return x509.load_der_x509_certificate(raw)
    except ValueError:
        return None
