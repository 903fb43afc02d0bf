# SPDX-License-Identifier: Apache-2.0
"""Each option of ccidd, with a value that is right and values that are wrong.

tests/ccidd/service/test_option_matrix.py tries them on the command line and in a file, and fails as
soon as there is an option that is not here. A new option gets one line:

- an option of `--card` in `CARD_OPTIONS` (or in `PCSC_OPTIONS`, for cards of the host's),
- an option of `--reader` in `READER_OPTIONS`,
- an option of the command line in `TOP_OPTIONS`, which also has what stands for it in a file.

What is wrong together is in `COMBINATIONS`. `@` stands for a directory with some files: `key` (a
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


@dataclass(frozen=True)
class Line:
    """What is wrong on a command line, and the same in a file.

    Attributes:
        arguments: the command line; none if there is no such thing there.
        message: what is said of it.
        reader: what stands in the reader's table of a file instead.
        top: what stands before all tables of the file.
        file_message: what is said of that, where it is something else.
        status: the exit status.
    """

    arguments: Sequence[str] = ()
    message: str = ""
    reader: str | None = None
    top: str | None = None
    file_message: str | None = None
    status: int = USAGE


_AT: Final = "--socket-path=@/s"
_IN: Final = 'socket-path = "@/s"\n'
_NO_VALUE: Final = "ignored explicit argument 'x'"
_NOT_EMPTY: Final = "this is to be a string that is not empty"
_NO_PATH: Final = "a path is needed"

TOP_OPTIONS: Final[Mapping[str, Sequence[Line]]] = {
    "help": [Line(["--help=x"], _NO_VALUE)],
    "version": [Line(["--version=x"], _NO_VALUE)],
    "print-capabilities": [],  # with it, all else is ignored
    "socket-path": [
        Line(["--socket-path="], _NO_PATH, 'socket-path = ""', file_message=_NOT_EMPTY),
        Line(reader="socket-path = 3", file_message="this is to be a string"),
        Line(
            ["--socket-path=/nonexistent/s"],
            "cannot listen on /nonexistent/s: No such file",
            'socket-path = "/nonexistent/s"',
            status=UNUSABLE,
        ),
        Line(
            ["--socket-path=/dev/null"],
            "it exists and is no socket",
            'socket-path = "/dev/null"',
            status=UNUSABLE,
        ),
    ],
    "fd": [
        Line(["--fd=three"], "invalid int value", 'fd = "3"', file_message="to be a number"),
        Line(["--fd=99"], "cannot be served: Bad file", "fd = 99", status=UNUSABLE),
        Line(["--fd=-1"], "cannot be served", "fd = -1", status=UNUSABLE),
        Line([f"--fd={1 << 40}"], "there is no such one", f"fd = {1 << 40}", status=UNUSABLE),
        Line(["--fd=0"], "cannot be served", "fd = 0", status=UNUSABLE),
    ],
    "connect": [
        Line(["--connect="], "neither a path", 'connect = ""', file_message=_NOT_EMPTY),
        Line(["--connect=host:0"], "neither a path nor HOST:PORT", 'connect = "host:0"'),
        Line(["--connect=host:x"], "neither a path nor HOST:PORT", 'connect = "host:x"'),
        Line(["--connect=..:1"], "has no host name", 'connect = "..:1"'),
    ],
    "transport": [
        Line(
            [_AT, "--transport=usb"],
            "invalid choice: 'usb'",
            f'{_IN}transport = "usb"',
            file_message="this is to be one of usbredir, vscard, serial",
        ),
    ],
    "reader": [
        Line([_AT, "--reader="], "there is no option ''"),
        Line(reader=f"{_IN}reader = 3", file_message="this is to be a table"),
        Line([_AT, "--reader=levl=short"], "did you mean level?", f"{_IN}reader = {{levl = 1}}"),
        Line(reader=f"{_IN}reader = {{level = [[]]}}", file_message="this is to be a string"),
    ],
    "card": [
        Line([_AT, "--card="], "there is no such type of card: ''"),
        Line(
            [_AT, "--card=pvi"],
            "there is no such type of card: 'pvi'; did you mean piv?",
            f'{_IN}cards = [{{type = "pvi"}}]',
        ),
        Line(
            [_AT, "--card=piv,crad=x"],
            "there is no option 'crad'; did you mean card?",
            f'{_IN}cards = [{{type = "piv", crad = "x"}}]',
        ),
        Line(reader=f"{_IN}cards = 3", file_message="this is to be a list of tables"),
        Line(reader=f"{_IN}cards = [3]", file_message="this is to be a table"),
        Line(reader=f"{_IN}cards = [{{}}]", file_message="this is to be there: piv, cac, ..."),
    ],
    "config": [
        Line(["--config="], _NO_PATH),
        Line([f"--config={NO_SUCH_FILE}"], f"cannot read {NO_SUCH_FILE}: No such file"),
        Line(["--config=@/text"], "text: Expected '='"),
        Line(top="readers = 3", file_message="readers: this is to be a table"),
        Line(top="reders = 3", file_message="no key 'reders' here; did you mean readers?"),
        Line(
            reader="scoket-path = 3", file_message="'scoket-path' here; did you mean socket-path?"
        ),
    ],
    "trace": [
        Line([_AT, "--trace="], _NO_PATH, f'{_IN}trace = ""', file_message=_NOT_EMPTY),
        Line(
            [_AT, "--trace=/nonexistent/t"],
            "cannot write /nonexistent/t: No such file",
            f'{_IN}trace = "/nonexistent/t"',
            status=UNUSABLE,
        ),
        Line(
            [_AT, "--trace=/dev/null"],
            "/dev/null is no file of your own",
            f'{_IN}trace = "/dev/null"',
            status=UNUSABLE,
        ),
    ],
    "unsafe-trace-secrets": [
        Line(
            [_AT, "--unsafe-trace-secrets=x"],
            _NO_VALUE,
            f'{_IN}unsafe-trace-secrets = "x"',
            file_message="this is to be true or false",
        ),
        Line(
            [_AT, "--unsafe-trace-secrets"],
            "this goes with --trace",
            f"{_IN}unsafe-trace-secrets = true",
            file_message="this goes with trace",
        ),
    ],
    "log-level": [
        Line(
            [_AT, "--log-level=loud"],
            "invalid choice: 'loud'",
            top='log-level = "loud"',
            file_message="this is to be one of debug, info, warning, error",
        ),
    ],
    "state-dir": [
        Line([_AT, "--state-dir="], _NO_PATH, top='state-dir = ""', file_message=_NOT_EMPTY),
        Line(
            [_AT, "--state-dir=/dev/null/x"],
            "cannot use /dev/null/x: Not a directory",
            top='state-dir = "/dev/null/x"',
            status=UNUSABLE,
        ),
    ],
    "state-key-file": [
        Line(
            [_AT, "--state-key-file="], _NO_PATH, top='state-key-file = ""', file_message=_NOT_EMPTY
        ),
        Line(
            [_AT, f"--state-key-file={NO_SUCH_FILE}"],
            f"cannot use {NO_SUCH_FILE}: No such file",
            top=f'state-key-file = "{NO_SUCH_FILE}"',
            status=UNUSABLE,
        ),
        Line(
            [_AT, "--state-key-file=@/text"],
            "text holds no key: 32 bytes, or their 64 hexadecimal digits",
            top='state-key-file = "@/text"',
            status=UNUSABLE,
        ),
    ],
}
"""Those of the command line itself."""

FILE_KEYS: Final[Mapping[str, str]] = {"readers": "config", "cards": "card"}
"""Keys of a file that are called something else on the command line."""


def _cards(*cards: str) -> tuple[Sequence[str], str]:
    """Gives cards in both forms; each is TYPE,OPTION=VALUE,... without any comma in a value."""
    tables = []
    for card in cards:
        kind, *options = card.split(",")
        pairs = [("type", kind), *(option.split("=", 1) for option in options)]
        tables.append("{{{}}}".format(", ".join(f'{name} = "{value}"' for name, value in pairs)))
    return [f"--card={card}" for card in cards], f"cards = [{', '.join(tables)}]"


def _together(message: str, *cards: str, status: int = USAGE, transport: str = "usbredir") -> Line:
    arguments, table = _cards(*cards)
    return Line(
        [_AT, f"--transport={transport}", *arguments],
        message,
        f'{_IN}transport = "{transport}"\n{table}',
        status=status,
    )


COMBINATIONS: Final[Sequence[Line]] = [
    Line([], "one of --socket-path, --fd or --connect is needed"),
    Line(reader="", file_message="one of socket-path, fd or connect is needed"),
    Line(top='state-dir = "@/s"', reader=None, file_message="there is no reader; begin one"),
    # Front doors.
    Line(
        ["--transport=serial", "--connect=a"],
        "serial needs --socket-path=LINK",
        'transport = "serial"\nconnect = "a"',
        file_message="serial needs socket-path=LINK",
    ),
    Line(
        [_AT, "--transport=serial", "--reader=level=short"],
        "serial exchanges TPDUs alone: leave this out",
        f'{_IN}transport = "serial"\nreader = {{level = "short"}}',
    ),
    Line(
        [_AT, "--transport=serial", "--reader=slots=6"],
        "a serial reader has at most 5 slots, not 6",
        f'{_IN}transport = "serial"\nreader = {{slots = 6}}',
    ),
    _together("say which PKCS#11 modules to look in", "piv,token=any", transport="serial"),
    _together("say which PKCS#11 modules to look in", "piv,token=pkcs11:", transport="serial"),
    _together("vscard has one slot", "piv,card=a", "piv,card=b", transport="vscard"),
    _together("vscard has one slot", "piv,token=any", transport="vscard"),
    # Slots.
    _together("the cards have 20 slots, and a reader has at most 16", *["piv,token=any"] * 5),
    _together("the cards have 17 slots", *["piv,card=a"] * 17),
    Line(
        [_AT, "--reader=slots=1", "--card=piv,card=a", "--card=piv,card=b"],
        "one for each card",
        f"{_IN}reader = {{slots = 1}}\n{_cards('piv,card=a', 'piv,card=b')[1]}",
    ),
    # Readers.
    Line(
        [_AT, "--reader=profile=vmware,usb-id=08E6:4433"],
        "profile and usb-id exclude each other",
        f'{_IN}reader = {{profile = "vmware", usb-id = "08E6:4433"}}',
    ),
    Line(
        [_AT, "--reader=pin-entry=true,pin-file=@/pin"],
        "pin-entry and pin-file exclude each other",
        f'{_IN}reader = {{pin-entry = "true", pin-file = "@/pin"}}',
    ),
    Line(
        [_AT, "--reader=max-message=300,level=short"],
        "this is for level=extended",
        f'{_IN}reader = {{max-message = 300, level = "short"}}',
    ),
    # Cards.
    _together("give it keys=", "piv"),
    _together("give it keys=", "piv,pin-file=@/pin"),
    _together("the option pin-file=FILE is missing", "piv,keys=@/key"),
    _together("the option pin-file=FILE is missing", "piv,key9A=@/key"),
    _together("the option reader=NAME is missing", "pcsc"),
    _together("a nickname needs a database", "piv,cert1=a,keys=@/key,pin-file=@/pin"),
    _together("this goes with token", "piv,card=a,slots=2"),
    _together("this goes with token", f"piv,card=a,module={SOFTHSM}"),
    _together("this goes with token=any", f"piv,token=pkcs11:?module-path={SOFTHSM},slots=2"),
    _together(
        "names a module already: leave this out",
        f"piv,token=pkcs11:?module-path={SOFTHSM},module={SOFTHSM}",
    ),
    _together("this needs confirm=sign,decrypt", "piv,card=a,confirm-with=true"),
    _together("this key is given twice", "piv,key9A=@/key,key9a=@/key,pin-file=@/pin"),
    _together("FF is no key of a piv card", "piv,keyFF=pkcs11:id=%01?module-path=/m"),
    _together("9E is no key of a cac card", "cac,key9E=@/key,pin-file=@/pin"),
    _together("9B is no key of a piv card", f"piv,token=any,module={SOFTHSM},key9B=pkcs11:id=%01"),
    _together("begins with pkcs11:", f"piv,token=any,module={SOFTHSM},key9A=@/key"),
    _together("pkcs11:id=%01", f"piv,token=any,module={SOFTHSM},key9A=pkcs11:token=a"),
    _together(
        "the same key is there twice",
        "piv,keys=@/key,key9C=@/key,pin-file=@/pin",
        status=UNUSABLE,
    ),
    _together(
        "is being served by this process", "piv,card=alice", "piv,card=alice", status=UNUSABLE
    ),
    _together("the card alice is piv, not cac", "cac,card=alice", status=UNUSABLE),
]
"""What is wrong together; beside what test_option_matrix.py combines itself."""
