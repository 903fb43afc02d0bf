# SPDX-License-Identifier: Apache-2.0
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ccidd.transport import sockets
from ccidd.transport.sockets import can_read, has_unread, name_of, peer_arguments, peer_name


def test_an_inherited_socket_has_the_name_that_it_was_bound_to(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as bound, socket.socket(socket.AF_UNIX) as unbound:
        bound.bind(str(path))
        assert name_of(bound.fileno()) == str(path)
        assert name_of(unbound.fileno()) is None
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        assert name_of(tcp.fileno()) == f"127.0.0.1:{tcp.getsockname()[1]}"
    with (tmp_path / "file").open("w") as file:
        assert name_of(file.fileno()) is None
    assert name_of(10**6) is None


def test_what_a_peer_has_not_read_is_seen() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not has_unread(ours)
        ours.send(b"two")
        ours.send(b"pieces")
        theirs.recv(3)
        assert has_unread(ours)
        assert can_read(theirs)
        theirs.recv(6)
        assert not has_unread(ours)
        assert not can_read(theirs)


def test_the_command_line_of_a_peer_is_seen() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_arguments(ours)[: len(sys.orig_argv)] == sys.orig_argv
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        assert peer_arguments(tcp) == []


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["/usr/bin/qemu-system-x86_64", "-name", "win11"], "guest win11"),
        (["qemu", "-name", "guest=win11,debug-threads=on", "-S"], "guest win11"),
        (["qemu", "--name", "debug-threads=on,guest=a,,b"], "guest a,b"),
        (["qemu", "-name", "win11,process=x"], "guest win11"),
        (["/usr/bin/qemu", "-name", "process=x"], f"qemu {os.getpid()}"),
        (["/usr/bin/qemu", "-name"], f"qemu {os.getpid()}"),
        (["socat", "-", "x"], f"socat {os.getpid()}"),
        ([], f"process {os.getpid()}"),
    ],
)
def test_a_guest_is_called_what_its_qemu_was_told(
    arguments: Sequence[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "peer_arguments", lambda _socket: arguments)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_name(ours) == name


def test_peers_are_named_by_what_is_known_of_them() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_name(ours) == f"{Path(sys.orig_argv[0]).name} {os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        assert peer_name(tcp) == "the guest"
        with socket.create_connection(tcp.getsockname()) as client:
            assert peer_name(client) == f"127.0.0.1:{tcp.getsockname()[1]}"
