# SPDX-License-Identifier: Apache-2.0
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from authority import Authority
from ccidd.errors import UserError
from ccidd.service.check.sockets import look_at_front_door
from ccidd.service.configfile import AWAITED_FD
from ccidd.service.configuration import ReaderConfiguration
from ccidd.service.where import in_file

WHERE = in_file("f").within("readers").within("a")


def findings(**options: object) -> list[str]:
    reader = ReaderConfiguration(name="a", where=WHERE, **options)  # type: ignore[arg-type]  # (short)
    return [str(each) for each in look_at_front_door(reader)]


def test_a_path_that_is_free(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert findings(socket_path=path) == [f"ok       f: readers.a.socket-path: {path} can be made"]
    assert list(tmp_path.iterdir()) == []


def test_a_stale_socket_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert findings(socket_path=path) == [f"ok       f: readers.a.socket-path: {path} can be made"]
    assert path.is_socket()


@pytest.mark.parametrize("is_relative", [True, False])
def test_a_socket_that_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("a b") if is_relative else tmp_path / "a b"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{path}")
        listening.listen()
        listening.setblocking(False)
        assert findings(socket_path=path) == [
            f"warning  f: readers.a.socket-path: a process listens at {path} now: no other can"
        ]
        with pytest.raises(BlockingIOError):
            # Nobody has come.
            listening.accept()


def test_something_else_is_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.touch()
    with pytest.raises(UserError, match=r"f: readers.a.socket-path: .* exists and is no socket"):
        findings(socket_path=path)
    assert findings(socket_path=path, transport="serial") == [
        f"error    f: readers.a.socket-path: {path} is in the way: it is no link of ccidd's"
    ]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    directory = tmp_path / "none"
    assert findings(socket_path=directory / "s", trace=directory / "t") == [
        f"error    f: readers.a.socket-path: there is no directory {directory}; make it",
        f"error    f: readers.a.trace: there is no directory {directory}; make it",
    ]


def test_a_directory_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere.
    monkeypatch.setattr(os, "access", lambda *_arguments, **_options: False)
    (found,) = findings(socket_path=tmp_path / "s")
    assert found.startswith(f"error    f: readers.a.socket-path: nothing can be made in {tmp_path}")


@pytest.mark.parametrize("length", [107, 108])
def test_the_longest_path(length: int) -> None:
    path = Path("/tmp/" + "x" * (length - 5))  # noqa: S108 (it is not made)
    (found,) = findings(socket_path=path)
    with socket.socket(socket.AF_UNIX) as listening:
        if length == 107:
            assert found.startswith("ok ")
            listening.bind(f"{path}")
            path.unlink()
        else:
            assert "has at most 107 bytes, and this has 108" in found
            with pytest.raises(OSError, match="too long"):
                listening.bind(f"{path}")


def test_a_qemu_that_listens(tmp_path: Path) -> None:
    path = tmp_path / "s"
    where = "f: readers.a.connect"
    assert findings(connect=f"{path}") == [
        f"warning  {where}: no QEMU listens at {path} yet; ccidd tries until one does"
    ]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{path}")
        assert findings(connect=f"{path}") == [f"ok       {where}: {path} is there"]
    path.unlink()
    path.touch()
    assert findings(connect=f"{path}") == [f"error    {where}: {path} is no socket"]
    assert findings(connect="127.0.0.1:1") == [f"ok       {where}: the host 127.0.0.1 is known"]
    (found,) = findings(connect="no-such-host.invalid:1")
    assert found.startswith(f"warning  {where}: the host no-such-host.invalid is not known here")


def test_a_socket_of_systemd() -> None:
    (found,) = findings(fd=AWAITED_FD)
    assert found == (
        "ok       f: readers.a: no socket is named here: systemd is to pass one"
        " (FileDescriptorName=a)"
    )


# Who may connect.


def test_tls(tmp_path: Path) -> None:
    authority = Authority("ours")
    directory = authority.write(tmp_path / "tls", "server", authority.issue())
    where = "f: readers.a.tls-creds"
    options = {"listen": "localhost:1", "tls_creds": directory}
    name = "O=Tests\\, Inc."
    host, expiry, rest = findings(**options)
    assert host == "ok       f: readers.a.listen: the host localhost is known"
    assert expiry.startswith(f"warning  {where}: the certificate CN=peer,{name} expires on ")
    assert rest == f"ok       {where}: {directory} can be used"
    authority.write(tmp_path / "tls", "server", authority.issue(ends=timedelta(days=40)))
    assert len(findings(**options)) == 2
    (directory / "server-key.pem").chmod(0o644)
    _host, open_key, _rest = findings(**options)
    assert open_key.startswith(
        f"error    {where}: {directory}/server-key.pem is open to other users"
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tls: (tls / "ca-cert.pem").unlink(), r"cannot read .*ca-cert.pem: No such file"),
        (
            lambda tls: (
                Authority("x")
                .write(tls, "other", Authority("x").issue())
                .joinpath("other-key.pem")
                .rename(tls / "server-key.pem")
            ),
            "is not that of the certificate",
        ),
        (lambda tls: (tls / "server-cert.pem").write_text("x"), "holds no certificate"),
    ],
)
def test_tls_that_cannot_be_used(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    authority = Authority("ours")
    directory = authority.write(tmp_path / "tls", "server", authority.issue())
    spoil(directory)
    with pytest.raises(UserError, match=f"^f: readers.a.tls-creds: .*{message}"):
        findings(listen="localhost:1", tls_creds=directory)


def test_tls_of_the_role_is_looked_at(tmp_path: Path) -> None:
    authority = Authority("ours")
    directory = authority.write(tmp_path / "tls", "server", authority.issue())
    with pytest.raises(UserError, match=r"client-cert\.pem"):
        findings(connect="localhost:1", tls_creds=directory)


def test_tcp_without_tls_is_a_warning() -> None:
    _host, insecure = findings(listen="localhost:1", insecure_tcp=True)
    assert insecure.startswith("warning  f: readers.a.insecure-tcp: whoever reaches this")


def test_a_socket_for_everybody(tmp_path: Path) -> None:
    options = {"socket_path": tmp_path / "s", "socket_mode": "0666"}
    _path, found = findings(**options)
    assert found == (
        "warning  f: readers.a.socket-mode: everybody on this host can connect; allow says who"
    )
    assert len(findings(**options, allow=("uid:0",))) == 1
    assert len(findings(**{**options, "socket_mode": "0660"})) == 1


def test_a_group_that_a_user_is_not_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = 12345
    options = {"socket_path": tmp_path / "s", "socket_group": f"{number}"}
    # Root can give a socket to any group.
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", lambda: [number])
    assert len(findings(**options)) == 1
    monkeypatch.setattr(os, "getgroups", list)
    _path, found = findings(**options)
    assert found.startswith(
        "error    f: readers.a.socket-group: user 1000 is not in the group 12345"
    )
