# SPDX-License-Identifier: Apache-2.0
import socket
import sys
from pathlib import Path

from ccidd.transport.sockets import can_read, has_unread, name_of, peer_arguments


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
