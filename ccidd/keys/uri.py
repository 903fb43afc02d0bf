# SPDX-License-Identifier: Apache-2.0
"""PKCS#11 URIs: the names of tokens, and of keys and certificates on them (RFC 7512).

Sans-I/O. Stricter than the RFC in one point: `pin-value` is refused, as a PIN is never in an
argument.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from ccidd.errors import UserError

# RFC 7512, 2.3: the characters that may stand for themselves, and those written %XX. The path has
# "&" besides, the query "/", "?" and "|".
_PLAIN: Final = r"A-Za-z0-9\-._~:\[\]@!$'()*+,="
_PATH_VALUE: Final = re.compile(rf"(?:[{_PLAIN}&]|%[0-9A-Fa-f]{{2}})*")
_QUERY_VALUE: Final = re.compile(rf"(?:[{_PLAIN}/?|]|%[0-9A-Fa-f]{{2}})*")
_VERSION: Final = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?")
_NUMBER: Final = re.compile(r"[0-9]{1,20}")

_TYPES: Final = ("public", "private", "cert", "secret-key", "data")
_MAX_LENGTH: Final = 4096


class Version(NamedTuple):
    """The version of a PKCS#11 library (CK_VERSION)."""

    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """A PKCS#11 URI; None stands for an attribute that is not there, and so matches anything.

    Source: RFC 7512, 2.3; the names are those of its attributes, and texts are decoded.
    """

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    library_manufacturer: str | None = None
    library_description: str | None = None
    library_version: Version | None = None
    object: str | None = None
    type: str | None = None
    id: bytes | None = None
    slot_description: str | None = None
    slot_manufacturer: str | None = None
    slot_id: int | None = None
    pin_source: str | None = None
    module_name: str | None = None
    module_path: str | None = None

    @property
    def names_module(self) -> bool:
        """Whether it says which module its token is found with."""
        return self.module_name is not None or self.module_path is not None


def check_key_uri(uri: Pkcs11Uri, *, needs_module: bool = False) -> None:
    """Holds a URI against what it is to name: keys, or a token with keys.

    Args:
        uri: the URI.
        needs_module: whether it is to say the module, too. p11-kit would name all modules of the
            machine, and one of them may use the very reader that ccidd serves.

    Raises:
        UserError: It is for something else, or names no module.
    """
    if uri.type not in {None, "cert", "private"}:
        raise UserError(f"a PKCS#11 URI with type={uri.type}, but a card needs a private key")
    if needs_module and not uri.names_module:
        raise UserError("a PKCS#11 URI without ?module-path=, the path of the PKCS#11 module")


def parse_uri(uri: str) -> Pkcs11Uri:
    """Parses a PKCS#11 URI.

    Raises:
        UserError: It breaks the grammar, names an attribute twice or one that RFC 7512 does not
            have, or contains a PIN. The text does not repeat the URI, in which that PIN may be.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme.lower() != "pkcs11":
        raise UserError("a PKCS#11 URI begins with pkcs11:")
    if len(uri) > _MAX_LENGTH:
        raise UserError(f"a PKCS#11 URI of more than {_MAX_LENGTH} characters")
    path, question_mark, query = rest.partition("?")
    if question_mark and not query:
        raise UserError("a PKCS#11 URI with nothing behind its ?")
    attributes = _split(path, ";", _PATH_VALUE, "path", _PATH_ATTRIBUTES)
    attributes |= _split(query, "&", _QUERY_VALUE, "query", _QUERY_ATTRIBUTES)
    values = {
        name.replace("-", "_"): _ATTRIBUTES[name](name, value) for name, value in attributes.items()
    }
    return Pkcs11Uri(**values)  # type: ignore[arg-type]  # each reader gives its field's type


def _split(
    component: str,
    separator: str,
    grammar: re.Pattern[str],
    place: str,
    known: frozenset[str],
) -> dict[str, str]:
    """Splits a component into attributes and their values, which are still encoded."""
    attributes: dict[str, str] = {}
    for attribute in component.split(separator) if component else ():
        name, equals, value = attribute.partition("=")
        if not equals:
            raise UserError(f"a PKCS#11 URI has a part without = in its {place}")
        if name == "pin-value":
            raise UserError(
                "a PKCS#11 URI must not contain a PIN (pin-value); put it into a file, and the"
                " file's path into pin-source"
            )
        if name not in known:
            hint = "; it belongs into the other half" if name in _ATTRIBUTES else ""
            raise UserError(
                f"a PKCS#11 URI with {name[:40]!r}, which its {place} cannot have{hint}"
            )
        if name in attributes:
            raise UserError(f"a PKCS#11 URI with {name} twice")
        if not grammar.fullmatch(value):
            raise UserError(
                f"a PKCS#11 URI with a character in its {name} that must be written as %XX"
            )
        attributes[name] = value
    return attributes


def _text(name: str, value: str) -> str:
    try:
        text = unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"a PKCS#11 URI whose {name} is not in UTF-8") from error
    if "\0" in text:
        raise UserError(f"a PKCS#11 URI with a NUL character in its {name}")
    return text


def _bytes(_name: str, value: str) -> bytes:
    return unquote_to_bytes(value)


def _type(name: str, value: str) -> str:
    text = _text(name, value)
    if text not in _TYPES:
        raise UserError(f"a PKCS#11 URI whose type is none of {', '.join(_TYPES)}")
    return text


def _number(name: str, value: str) -> int:
    text = _text(name, value)
    if not _NUMBER.fullmatch(text):
        raise UserError(f"a PKCS#11 URI whose {name} is no decimal number")
    return int(text)


def _version(name: str, value: str) -> Version:
    match = _VERSION.fullmatch(_text(name, value))
    if match is None:
        raise UserError(f"a PKCS#11 URI whose {name} is no version, like 2.40")
    return Version(int(match[1]), int(match[2] or "0"))


_PATH_ATTRIBUTES: Final = frozenset(
    {
        "token",
        "manufacturer",
        "serial",
        "model",
        "library-manufacturer",
        "library-description",
        "library-version",
        "object",
        "type",
        "id",
        "slot-description",
        "slot-manufacturer",
        "slot-id",
    }
)
_QUERY_ATTRIBUTES: Final = frozenset({"pin-source", "module-name", "module-path"})

_ATTRIBUTES: Final[dict[str, Callable[[str, str], object]]] = {
    **dict.fromkeys(_PATH_ATTRIBUTES | _QUERY_ATTRIBUTES, _text),
    "id": _bytes,
    "type": _type,
    "slot-id": _number,
    "library-version": _version,
}
