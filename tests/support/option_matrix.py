# SPDX-License-Identifier: Apache-2.0
"""Each option of ccidd, with a value that is right and values that are wrong.

tests/ccidd/service/test_option_matrix.py tries them on the command line and in a file, and fails as
soon as there is an option that is not here. A new option gets one line:

- an option of `--card` in `CARD_OPTIONS` (or in `PCSC_OPTIONS`, for cards of the host's),
- an option of `--reader` in `READER_OPTIONS`,
- an option of the command line in `TOP_OPTIONS` of `option_lines`, with what stands for it in a
  file.

`@` stands for a directory with some files: `key` (a
private key with its certificate), `pin`, and `text` (nothing of use).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tokens import SOFTHSM

NO_SUCH_FILE: Final = "/nonexistent/file"

USAGE: Final = 2
"""What can be told by the options alone."""

UNUSABLE: Final = 1
"""What shows when something is opened."""


@dataclass(frozen=True)
class Wrong:
    """A value that is refused.

    Attributes:
        value: the value.
        message: what the line on standard error has.
        status: the exit status.
    """

    value: str
    message: str
    status: int = USAGE


@dataclass(frozen=True)
class Option:
    """An option of a card or of a reader.

    Attributes:
        right: a value that it can have.
        wrong: values that it cannot have, beside none at all.
        base: the other options that it needs, in the place of those that others have.
        also: the other options that it needs beside them.
        name: how it is given, where its name stands for many.
    """

    right: str
    wrong: Sequence[Wrong] = ()
    base: Mapping[str, str] | None = None
    also: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None


_KEPT: Final = {"card": "alice"}
_FILES: Final = {"keys": "@/key", "pin-file": "@/pin"}
_ANY_TOKEN: Final = {"token": "any", "module": SOFTHSM}
_URI: Final = f"pkcs11:token=none?module-path={SOFTHSM}"
_SWITCH: Final = [Wrong("yes", "this is on or off")]
_NONE: Final[Mapping[str, str]] = {}

_URIS: Final = [
    Wrong("pkcs11:tokn=a", "which its path cannot have"),
    Wrong("pkcs11:pin-value=1", "must not contain a PIN"),
    Wrong("pkcs11:type=data", "a card needs a private key"),
]

GUARD_OPTIONS: Final[Mapping[str, Option]] = {
    "policy": Option("use+change-pin", [Wrong("us", "'us' is none of use, manage")]),
    "retry-floor": Option(
        "2", [Wrong("15", "is not within 0 to 14"), Wrong("-1", "within"), Wrong("x", "within")]
    ),
    "confirm": Option("sign+decrypt", [Wrong("read", "something else than sign and decrypt")]),
    "confirm-with": Option(
        "pinentry-tty",
        [Wrong("no-such-pinentry", "there is no program no-such-pinentry", UNUSABLE)],
        also={"confirm": "sign"},
    ),
}

CARD_OPTIONS: Final[Mapping[str, Option]] = {
    "card": Option("alice", [Wrong("bob", "there is no card bob", UNUSABLE)], base=_NONE),
    "keys": Option(
        "@/key",
        [
            Wrong(NO_SUCH_FILE, "cannot read", UNUSABLE),
            Wrong("@/text", "cannot be read as PEM or PKCS#12", UNUSABLE),
        ],
        base={"pin-file": "@/pin"},
    ),
    "nss": Option(
        "sql:@/database",
        [
            Wrong(NO_SUCH_FILE, "cannot read the NSS database", UNUSABLE),
            Wrong("dbm:@", "only sql: databases", UNUSABLE),
        ],
        base=_NONE,
    ),
    "certN": Option("one", [], base={"nss": "sql:@/database"}, name="cert1"),
    "pkcs11": Option(
        _URI,
        [
            *_URIS,
            Wrong("token", "begins with pkcs11:"),
            Wrong("pkcs11:token=a", "without ?module-path="),
            Wrong("pkcs11:?module-path=/nonexistent", "there is no PKCS#11 module", UNUSABLE),
            Wrong(_URI, "the token 'none' is not there", UNUSABLE),
        ],
        base=_NONE,
    ),
    "token": Option(
        "any",
        [
            *_URIS,
            Wrong("some", "begins with pkcs11:"),
            Wrong("pkcs11:?module-path=/nonexistent", "there is no PKCS#11 module", UNUSABLE),
        ],
        base=_NONE,
    ),
    "module": Option(
        SOFTHSM,
        [
            Wrong(NO_SUCH_FILE, "there is no PKCS#11 module", UNUSABLE),
            Wrong("@/text", "cannot be used as a PKCS#11 module", UNUSABLE),
        ],
        base={"token": "any"},
    ),
    "slots": Option(
        "2",
        [
            Wrong("0", "0 is none of 1 to 16"),
            Wrong("17", "17 is none of 1 to 16"),
            Wrong("two", "two is none of 1 to 16"),
            Wrong("1.5", "1.5 is none of 1 to 16"),
        ],
        base=_ANY_TOKEN,
    ),
    "keyXX": Option(
        "@/key",
        [
            Wrong(NO_SUCH_FILE, "cannot read", UNUSABLE),
            Wrong("pkcs11:token=a", "without ?module-path="),
            Wrong("pkcs11:tokn=a", "which its path cannot have"),
            Wrong("nss:one", "a nickname needs a database"),
        ],
        base={"pin-file": "@/pin"},
        name="key9A",
    ),
    "pin-file": Option(
        "@/pin",
        [
            Wrong(NO_SUCH_FILE, "cannot read", UNUSABLE),
            Wrong("@/text", "a PIN has 6 to 8 digits", UNUSABLE),
        ],
        base={"keys": "@/key"},
    ),
    "puk-file": Option(
        "@/puk",
        [
            Wrong(NO_SUCH_FILE, "cannot read", UNUSABLE),
            Wrong("@/pin", "a PUK has 8 letters", UNUSABLE),
        ],
        base=_FILES,
    ),
    "password-file": Option("@/pin", [Wrong(NO_SUCH_FILE, "cannot read", UNUSABLE)], base=_FILES),
    "vendor-extensions": Option("on", _SWITCH),
    "legacy-rsa": Option("on", _SWITCH),
    **GUARD_OPTIONS,
}
"""Those of cards of all kinds but the host's; a card that ccidd keeps unless there is a base."""

_SECONDS: Final = [
    Wrong(text, "this is a number of seconds, 1 to 86400") for text in ("0", "86401", "1.5", "x")
]

PCSC_OPTIONS: Final[Mapping[str, Option]] = {
    "reader": Option("Virtual*", base=_NONE),
    "exclusive": Option("on", _SWITCH),
    "idle-release": Option("3", _SECONDS),
    "max-hold": Option("3", _SECONDS),
    **GUARD_OPTIONS,
}
"""Those of `--card=pcsc`."""

_NOT_ASCII: Final = [
    Wrong("é", "not printable ASCII"),
    Wrong("x" * 127, "of at most 126 bytes"),
]

READER_OPTIONS: Final[Mapping[str, Option]] = {
    "slots": Option(
        "3", [Wrong("0", "0 are not possible"), Wrong("17", "at most 16"), Wrong("x", "no number")]
    ),
    "level": Option("short", [Wrong("apdu", "apdu is none of extended, short, tpdu")]),
    "max-message": Option(
        "3072", [Wrong("270", "is not within 271 to 65554"), Wrong("x", "is not within")]
    ),
    "profile": Option("gemalto", [Wrong("nobody", "nobody is none of vmware")]),
    "usb-id": Option("08E6:4433", [Wrong("8E6:4433", "is not of the form VVVV:PPPP")]),
    "serial": Option("1", _NOT_ASCII),
    "manufacturer": Option("me", _NOT_ASCII),
    "product": Option("it", _NOT_ASCII),
    "pin-entry": Option(
        "pinentry-tty", [Wrong("no-such-pinentry", "there is no program", UNUSABLE)]
    ),
    "pin-file": Option(
        "@/pin",
        [
            Wrong(NO_SUCH_FILE, "cannot read", UNUSABLE),
            Wrong("@/text", "is no PIN", UNUSABLE),
        ],
    ),
}
"""Those of `--reader`."""
