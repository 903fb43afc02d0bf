# SPDX-License-Identifier: Apache-2.0
"""Sockets that stay open while ccidd is started again; under systemd itself in
`qemu-integration/test_systemd.py`."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccidd.service.keptsockets import KeptSockets, take_kept_sockets
from ccidd.service.notify import Notifier
from ccidd.transport.access import Unencrypted
from ccidd.transport.endpoint import Listener
from programs import CCIDD
from service_manager import Manager

# What systemd does between fork and exec: the descriptors begin at 3.
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


def kept_with(manager: Manager, kept: dict[Path, int]) -> KeptSockets:
    sockets = KeptSockets(kept)
    sockets.keep_with(Notifier(manager.address, can_store=True))
    return sockets


def listen(sockets: KeptSockets, path: Path, mode: int = 0o600) -> Listener:
    return sockets.listen(path, mode, None, Unencrypted())


def test_a_guest_that_comes_between_two_processes_is_served_by_the_second(
    manager: Manager, tmp_path: Path
) -> None:
    path = tmp_path / "card.sock"
    options = ["--transport=vscard", f"--socket-path={path}", f"--state-dir={tmp_path / 'state'}"]
    environ = {**os.environ, "NOTIFY_SOCKET": manager.address, "FDSTORE": "1"}
    with subprocess.Popen([*CCIDD, *options], env=environ, stdout=subprocess.DEVNULL) as first:
        manager.wait_for("FDSTORE=1")
        name, stored = manager.descriptors.popitem()
        manager.wait_for("READY=1")
        first.send_signal(signal.SIGTERM)
    assert first.returncode == 0
    assert name == str(path)
    with socket.socket(socket.AF_UNIX) as guest:
        guest.settimeout(30)
        guest.connect(name)
        again = [sys.executable, "-c", AS_SYSTEMD, str(stored), name, *CCIDD, *options]
        with subprocess.Popen(
            again, env=environ, pass_fds=[stored], stdout=subprocess.DEVNULL
        ) as second:
            assert guest.recv(1)
            second.send_signal(signal.SIGTERM)
    os.close(stored)
    assert second.returncode == 0
    assert not manager.descriptors


async def test_a_socket_is_kept_and_taken_back(manager: Manager, tmp_path: Path) -> None:
    path = tmp_path / "card.sock"
    first = kept_with(manager, {})
    listener = listen(first, path)
    manager.wait_for("FDSTORE=1")
    first.leave()
    listener.close()
    identity = path.lstat().st_ino
    kept, others = take_kept_sockets([*manager.descriptors.items(), ("alice", 7)])
    assert others == [("alice", 7)]
    second = kept_with(manager, dict(kept))
    listener = listen(second, path)
    second.end_others()
    assert path.lstat().st_ino == identity
    listener.close()
    assert manager.heard() == [f"FDSTOREREMOVE=1\nFDNAME={path}"]
    assert not path.exists()


async def test_one_that_is_to_be_another_is_made_anew(manager: Manager, tmp_path: Path) -> None:
    path = tmp_path / "card.sock"
    first = kept_with(manager, {})
    listener = listen(first, path)
    manager.wait_for("FDSTORE=1")
    first.leave()
    listener.close()
    second = kept_with(manager, {path: manager.descriptors.pop(str(path))})
    listener = listen(second, path, 0o660)
    assert path.lstat().st_mode & 0o777 == 0o660
    assert manager.heard() == [f"FDSTOREREMOVE=1\nFDNAME={path}"]
    manager.wait_for("FDSTORE=1")
    os.close(manager.descriptors.pop(str(path)))
    listener.close()


async def test_what_nobody_uses_any_more_is_ended(manager: Manager, tmp_path: Path) -> None:
    path = tmp_path / "card.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        sockets = kept_with(manager, {path: os.dup(left.fileno())})
    sockets.end_others()
    assert manager.heard() == [f"FDSTOREREMOVE=1\nFDNAME={path}"]
    assert not path.exists()


@pytest.mark.parametrize("name", ["a:b", "käfig"])
async def test_one_that_cannot_be_named_is_not_kept(
    manager: Manager, tmp_path: Path, name: str
) -> None:
    listener = listen(kept_with(manager, {}), tmp_path / name)
    listener.close()
    assert not manager.heard()
    assert not (tmp_path / name).exists()
