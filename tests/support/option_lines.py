# SPDX-License-Identifier: Apache-2.0
"""Each option of the command line wrong by itself, and options that are wrong together.

See `option_matrix`, which has the options of cards and readers, and says what `@` stands for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from option_matrix import NO_SUCH_FILE, UNUSABLE, USAGE
from tokens import SOFTHSM


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
_LISTEN: Final = "--listen=localhost:0"
_LISTENS: Final = 'listen = "localhost:0"\n'
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
    "listen": [
        Line(["--listen="], "not HOST:PORT", 'listen = ""', file_message=_NOT_EMPTY),
        Line(["--listen=80"], "not HOST:PORT", 'listen = "80"'),
        Line(["--listen=host:x"], "not HOST:PORT", 'listen = "host:x"'),
        Line(
            ["--listen=no-such-host.invalid:1", "--insecure-tcp=on"],
            "no-such-host.invalid",
            'listen = "no-such-host.invalid:1"\ninsecure-tcp = true',
            status=UNUSABLE,
        ),
    ],
    "tls-creds": [
        Line(
            [_LISTEN, "--tls-creds="],
            _NO_PATH,
            f'{_LISTENS}tls-creds = ""',
            file_message=_NOT_EMPTY,
        ),
        Line(
            [_LISTEN, "--tls-creds=/nonexistent"],
            "cannot read /nonexistent/ca-cert.pem: No such file",
            f'{_LISTENS}tls-creds = "/nonexistent"',
            status=UNUSABLE,
        ),
        Line([_AT, "--tls-creds=@"], "this is for TCP", f'{_IN}tls-creds = "@"'),
    ],
    "tls-hostname": [
        Line([_AT, "--tls-hostname=a"], "this is for TCP", f'{_IN}tls-hostname = "a"'),
        Line(
            [_LISTEN, "--tls-hostname=a", "--tls-creds=@"],
            "this is for --connect=HOST:PORT",
            f'{_LISTENS}tls-hostname = "a"\ntls-creds = "@"',
            file_message="this is for connect=HOST:PORT",
        ),
        Line(reader="tls-hostname = 3", file_message="this is to be a string"),
    ],
    "insecure-tcp": [
        Line(
            [_LISTEN, "--insecure-tcp=yes"],
            "invalid choice: 'yes'",
            f'{_LISTENS}insecure-tcp = "on"',
            file_message="this is to be true or false",
        ),
        Line([_AT, "--insecure-tcp=on"], "this is for TCP", f"{_IN}insecure-tcp = true"),
        Line(
            [_LISTEN, "--insecure-tcp=on", "--tls-creds=@"],
            "this is not allowed with --tls-creds",
            f'{_LISTENS}insecure-tcp = true\ntls-creds = "@"',
            file_message="this is not allowed with tls-creds",
        ),
    ],
    "socket-mode": [
        Line([_AT, "--socket-mode=rw"], "no mode of a socket", f'{_IN}socket-mode = "rw"'),
        Line([_AT, "--socket-mode=0888"], "no mode of a socket", f'{_IN}socket-mode = "0888"'),
        Line(reader=f"{_IN}socket-mode = 660", file_message="this is to be a string"),
        Line(
            [_LISTEN, "--socket-mode=0660", "--insecure-tcp=on"],
            "this is for the socket that --socket-path makes",
            f'{_LISTENS}socket-mode = "0660"\ninsecure-tcp = true',
            file_message="this is for the socket that socket-path makes",
        ),
    ],
    "socket-group": [
        Line(
            [_AT, "--socket-group=no-such-group"],
            "there is no such group",
            f'{_IN}socket-group = "no-such-group"',
        ),
        Line(
            ["--fd=3", "--socket-group=root"],
            "this is for the socket that --socket-path makes",
            'fd = 3\nsocket-group = "root"',
            file_message="this is for the socket that socket-path makes",
        ),
    ],
    "allow": [
        Line([_AT, "--allow=root"], "this is none of uid:USER", f'{_IN}allow = "root"'),
        Line([_AT, "--allow=uid:no-such"], "there is no such user", f'{_IN}allow = "uid:no-such"'),
        Line(
            [_AT, "--allow=gid:no-such"], "there is no such group", f'{_IN}allow = ["gid:no-such"]'
        ),
        Line([_AT, "--allow=cert:CN=a"], "this is for TCP", f'{_IN}allow = "cert:CN=a"'),
        Line(
            [_LISTEN, "--allow=uid:0", "--insecure-tcp=on"],
            "TCP tells no users",
            f'{_LISTENS}allow = "uid:0"\ninsecure-tcp = true',
        ),
        Line(
            [_LISTEN, "--allow=cert:alice", "--tls-creds=@"],
            "neither the whole subject",
            f'{_LISTENS}allow = "cert:alice"\ntls-creds = "@"',
        ),
        Line(
            [_LISTEN, "--allow=cert:CN=a", "--insecure-tcp=on"],
            "go with --tls-creds",
            f'{_LISTENS}allow = "cert:CN=a"\ninsecure-tcp = true',
            file_message="go with tls-creds",
        ),
        Line(reader=f"{_IN}allow = 3", file_message="this is to be a string"),
    ],
    "control": [
        Line(
            [_AT, "--control=role=agent"],
            "the path of the socket comes first",
            top='control = ["role=agent"]',
        ),
        Line(
            [_AT, "--control=@/c,role=root"],
            "there is no role 'root'",
            top='control = [{path = "@/c", role = "root"}]',
        ),
        Line(
            [_AT, "--control=@/c,rule=agent"],
            "there is no option 'rule'; did you mean role?",
            top='control = ["@/c,rule=agent"]',
        ),
        Line(
            [_AT, "--control=/nonexistent/c"],
            "cannot listen on /nonexistent/c: No such file",
            top='control = ["/nonexistent/c"]',
            status=UNUSABLE,
        ),
        Line(top="control = 3", file_message="this is to be a list of strings or tables"),
        Line(top="control = [{}]", file_message="this is to be there: where to make the socket"),
    ],
    "sandbox": [
        Line(
            [_AT, "--sandbox=yes"],
            "invalid choice: 'yes'",
            top='sandbox = "yes"',
            file_message="this is to be one of auto, on, off",
        ),
    ],
    "sandbox-path": [
        Line(
            [_AT, "--sandbox-path="],
            _NO_PATH,
            top='sandbox-path = [""]',
            file_message=_NOT_EMPTY,
        ),
    ],
    "metrics-file": [
        Line([_AT, "--metrics-file="], _NO_PATH, top='metrics-file = ""', file_message=_NOT_EMPTY),
    ],
    "log-format": [
        Line(
            [_AT, "--log-format=xml"],
            "invalid choice: 'xml'",
            top='log-format = "xml"',
            file_message="this is to be one of auto, console, logfmt, json, journal",
        ),
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
            "/nonexistent/t: No such file",
            f'{_IN}trace = "/nonexistent/t"',
            status=UNUSABLE,
        ),
        Line(
            [_AT, "--trace=/dev/null"],
            "/dev/null is there; traces replace .pcapng files alone",
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
    Line([], "one of --socket-path, --fd, --listen or --connect is needed"),
    Line(reader="", file_message="one of socket-path, fd, listen or connect is needed"),
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
    Line(
        [_LISTEN], "TCP is for TLS", _LISTENS, file_message="certificates as QEMU's tls-creds-x509"
    ),
    Line(["--connect=host:1"], "TCP is for TLS", 'connect = "host:1"'),
    Line(
        [_AT, "--transport=serial", "--allow=uid:0"],
        "this is for sockets",
        f'{_IN}transport = "serial"\nallow = "uid:0"',
    ),
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
