# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from ccidd.errors import UserError
from ccidd.service.configfile import AWAITED_FD, load_configuration, survey_configuration
from ccidd.service.configuration import Configuration, ReaderConfiguration
from ccidd.service.options import CardOptions

WHOLE = """
state-dir = "/var/lib/ccidd"
state-key-file = "/etc/ccidd/key"
log-level = "debug"
log-format = "json"

[readers.alice]
socket-path = "/run/ccidd/alice.sock"
socket-mode = "0660"
socket-group = "0"
allow = ["uid:1,gid:2", "uid:3"]
reader = { level = "short", slots = 4 }
trace = "/tmp/alice.pcapng"

[[readers.alice.cards]]
type = "piv"
keys = ["one.p12", "two.pem"]
pin-file = "a,b"
vendor-extensions = true

[[readers.alice.cards]]
type = "cac"
card = "carol"

[readers.bob]
transport = "vscard"
connect = "localhost:2001"
trace = "bob.pcapng"
tls-creds = "/etc/pki/qemu"
tls-hostname = "qemu.example.org"
unsafe-trace-secrets = true
cards = [{ type = "piv", card = "bob", vendor-extensions = false }]

[readers.carol]

[readers.dave]
listen = "[::]:2002"
insecure-tcp = true
"""


def load(directory: Path, text: str, **fds: int) -> Configuration:
    file = directory / "ccidd.toml"
    file.write_text(text)
    return load_configuration(file, fds)


def test_a_whole_file(tmp_path: Path) -> None:
    assert load(tmp_path, WHOLE, carol=4) == Configuration(
        readers=(
            ReaderConfiguration(
                name="alice",
                socket_path=Path("/run/ccidd/alice.sock"),
                socket_mode="0660",
                socket_group="0",
                allow=("uid:1,gid:2", "uid:3"),
                options={"level": "short", "slots": "4"},
                cards=(
                    CardOptions(
                        "piv",
                        {
                            "keys": ("one.p12", "two.pem"),
                            "pin-file": ("a,b",),
                            "vendor-extensions": ("on",),
                        },
                    ),
                    CardOptions("cac", {"card": ("carol",)}),
                ),
                trace=Path("/tmp/alice.pcapng"),  # noqa: S108 (it is not opened)
            ),
            ReaderConfiguration(
                name="bob",
                transport="vscard",
                connect="localhost:2001",
                tls_creds=Path("/etc/pki/qemu"),
                tls_hostname="qemu.example.org",
                cards=(CardOptions("piv", {"card": ("bob",), "vendor-extensions": ("off",)}),),
                trace=Path("bob.pcapng"),
                trace_has_secrets=True,
            ),
            ReaderConfiguration(name="carol", fd=4),
            ReaderConfiguration(name="dave", listen="[::]:2002", insecure_tcp=True),
        ),
        state_dir=Path("/var/lib/ccidd"),
        state_key_file=Path("/etc/ccidd/key"),
        log_level="debug",
        log_format="json",
    )


AT = 'socket-path = "x"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no reader; begin one with [readers.NAME]"),
        ("readers = 3", ": readers: this is to be a table"),
        ("[readers]\na = 3", ": readers.a: this is to be a table"),
        ("a = [", "Invalid value (at end of document)"),
        ("x = 1\nx = 2\n", "Cannot overwrite a value (at line 2"),
        ("stat-dir = 'x'", "there is no key 'stat-dir' here; did you mean state-dir?"),
        ("quux = 1", "no key 'quux' here; known are control, "),
        ("state-dir = ''", ": state-dir: this is to be a string that is not empty"),
        ("log-level = 'debgu'", "log-level: this is to be one of debug, info, warning, error; did"),
        ("[readers.a]", ": readers.a: one of socket-path, fd, listen or connect is needed"),
        ("[readers.a]\nsocket-pth = 'x'", "readers.a: there is no key 'socket-pth' here; did you"),
        (f"[readers.a]\n{AT}fd = 3", ": readers.a.fd: this is not allowed with socket-path"),
        ("[readers.a]\nfd = true", ": readers.a.fd: this is to be a number"),
        (
            "[readers.a]\nconnect = 'host:0'",
            ": readers.a.connect: host:0 is neither a path nor HOST:PORT",
        ),
        (f"[readers.a]\n{AT}transport = 'usb'", "readers.a.transport: this is to be one of usbred"),
        (
            f"[readers.a]\n{AT}reader = {{levl = 'x'}}",
            "readers.a.reader: there is no option 'levl'; did",
        ),
        (f"[readers.a]\n{AT}reader = {{level = 'x'}}", "readers.a.reader.level: x is none of"),
        (f"[readers.a]\n{AT}cards = 3", "readers.a.cards: this is to be a list of tables"),
        (f"[readers.a]\n{AT}cards = [3]", "readers.a.cards[0]: this is to be a table"),
        (f"[readers.a]\n{AT}cards = [{{}}]", "cards[0].type: this is to be there: piv, cac, ..."),
        (
            f"[readers.a]\n{AT}cards = [{{type='pvi'}}]",
            "readers.a.cards[0]: there is no such type of card: 'pvi'; did you mean piv?",
        ),
        (
            f"[readers.a]\n{AT}cards = [{{type='piv', crad='x'}}]",
            ": readers.a.cards[0]: there is no option 'crad'; did you mean card?",
        ),
        (
            f"[readers.a]\n{AT}cards = [{{type='piv', card={{}}}}]",
            "readers.a.cards[0].card: this is to be a string, a number, true or false, or a list",
        ),
        (f"[readers.a]\n{AT}[readers.b]\n{AT}", ": readers.b: the readers a and b are at x"),
        (f"[readers.a]\n{AT}allow = 'uid:?'", "a.allow: uid:?: there is no such user"),
        (f"[readers.a]\n{AT}allow = [1]", "a.allow: this is to be a string that is not empty, or"),
        (f"[readers.a]\n{AT}socket-mode = 432", "readers.a.socket-mode: this is to be a string"),
        ("[readers.a]\nlisten = 'host:1'", "readers.a: TCP is for TLS: give certificates as QEMU"),
        ("[readers.a]\nlisten = 'x'", "readers.a.listen: x is not HOST:PORT"),
        ("[readers.a]\nlisten = 'x:1'\ninsecure-tcp = 'on'", "insecure-tcp: this is to be true or"),
        (
            "[readers.a]\nfd = 9999\n[readers.b]\nfd = 9999",
            "the readers a and b are at 9999",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'ccidd.toml'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sockets_of_systemd_must_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="passed the socket 'b', but no reader has it"):
        load(tmp_path, f"[readers.a]\n{AT}", b=3)
    with pytest.raises(
        UserError, match=r"readers\.a\.socket-path: systemd passed its socket: leave"
    ):
        load(tmp_path, f"[readers.a]\n{AT}", a=3)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        load_configuration(tmp_path / "none", {})
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(UserError, match="can't decode byte"):
        load_configuration(tmp_path / "binary", {})


def test_a_survey_tells_of_all_readers(tmp_path: Path) -> None:
    file = tmp_path / "ccidd.toml"
    good = f"[readers.a]\n{AT}[readers.b]\n"
    file.write_text(f"{good}[readers.c]\nfd = true\n[readers.d]\ntrasport = 1\n[readers.e]\n{AT}")
    configuration, problems = survey_configuration(file)
    assert configuration.readers == (
        ReaderConfiguration(name="a", socket_path=Path("x")),
        ReaderConfiguration(name="b", fd=AWAITED_FD),
        ReaderConfiguration(name="e", socket_path=Path("x")),
    )
    assert [str(each) for each in problems] == [
        f"{file}: readers.c.fd: this is to be a number",
        f"{file}: readers.d: there is no key 'trasport' here; did you mean transport?",
        f"{file}: readers.e: the readers a and e are at x",
    ]
