# SPDX-License-Identifier: Apache-2.0
"""The values of `--allow`, `--socket-mode` and `--socket-group`: who may connect.

Source: RFC 4514 (the subject of a certificate as a string).
"""

import grp
import pwd
import re
from collections.abc import Sequence
from typing import Final

from ccidd.errors import UserError
from ccidd.service.options import split
from ccidd.transport.access import Rules, is_overflow
from ccidd.transport.tls import parse_subject

_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_MAX_ID: Final = 2**32 - 2
_FINGERPRINT: Final = re.compile(r"(?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}")
_MODE: Final = re.compile(r"0?[0-7]{3}")


def parse_allow(values: Sequence[str]) -> Rules:
    """Reads the values of `--allow`, and looks up the users and groups that they name.

    Raises:
        UserError: A value says nobody.
    """
    users, groups = set(), set()
    subjects, fingerprints = set(), set()
    for value in (each for text in values for each in split(text)):
        kind, _, who = value.partition(":")
        match kind:
            case "uid" if who:
                users.add(_known("uid", _user(who), value))
            case "gid" if who:
                groups.add(_known("gid", _group(who), value))
            case "cert" if _FINGERPRINT.fullmatch(who):
                fingerprints.add(bytes.fromhex(who.replace(":", "")))
            case "cert" if "=" in who:
                subjects.add(_subject(who))
            case "cert":
                raise UserError(
                    f"{value}: this is neither the whole subject of a certificate, such as"
                    " CN=alice, nor its SHA-256 fingerprint"
                )
            case _:
                raise UserError(
                    f"{value}: this is none of uid:USER, gid:GROUP and cert:SUBJECT"
                    " (a comma in a subject is written twice)"
                )
    return Rules(frozenset(users), frozenset(groups), frozenset(subjects), frozenset(fingerprints))


def _user(name: str) -> int:
    if _NUMBER.fullmatch(name) and int(name) <= _MAX_ID:
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError) as error:
        raise UserError(f"uid:{name}: there is no such user") from error


def _group(name: str) -> int:
    try:
        return group_number(name)
    except UserError as error:
        raise UserError(f"gid:{error}") from error


def group_number(name: str) -> int:
    """Gives the number of a group.

    Args:
        name: its name, or its number.

    Raises:
        UserError: There is no such group.
    """
    if _NUMBER.fullmatch(name) and int(name) <= _MAX_ID:
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError) as error:
        raise UserError(f"{name}: there is no such group") from error


def _known(kind: str, number: int, value: str) -> int:
    if is_overflow(kind, number):
        raise UserError(
            f"{value}: in this user namespace (PrivateUsers=) that is everybody who is not"
            " known in it"
        )
    return number


def _subject(text: str) -> str:
    """Gives a subject in the one form in which those of peers are compared with it."""
    try:
        return parse_subject(text)
    except ValueError as error:
        raise UserError(f"cert:{text}: this is no subject: {error}") from error


def parse_mode(text: str) -> int:
    """Reads the mode of a socket.

    Args:
        text: three octal digits, or four of which the first is zero.

    Raises:
        UserError: It is none.
    """
    if not _MODE.fullmatch(text):
        raise UserError(f"{text}: this is no mode of a socket, such as 0660")
    return int(text, 8)
