# SPDX-License-Identifier: Apache-2.0
import os
import socket
import stat
from pathlib import Path

import pytest

from ccidd.errors import UserError
from ccidd.transport.listening import listen_unix


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o022, 0o777, 0])
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o640])
def test_a_socket_has_its_mode_whatever_the_umask(tmp_path: Path, mode: int, umask: int) -> None:
    path = tmp_path / "socket"
    before = os.umask(umask)
    try:
        listen_unix(path, mode, os.getgid()).close()
    finally:
        assert os.umask(before) == umask
    assert mode_of(path) == mode
    assert path.lstat().st_gid == os.getgid()


def test_nobody_can_connect_before_the_socket_has_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "socket", []
    chown = os.chown

    def look(name: str, uid: int, gid: int) -> None:
        with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
            early.connect(str(path))
        seen.append(mode_of(path))
        chown(name, uid, gid)

    monkeypatch.setattr("os.chown", look)
    listen_unix(path, 0o666, os.getgid()).close()
    assert seen == [0o600]


def test_a_group_that_this_process_is_not_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, uid: int, gid: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / "socket"
    monkeypatch.setattr("os.chown", refuse)
    with pytest.raises(UserError, match=r"to the group 99: this process is not a member of it"):
        listen_unix(path, 0o660, 99)
    assert not path.exists()


def test_what_took_the_place_of_the_socket_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, victim = tmp_path / "socket", tmp_path / "victim"
    victim.touch(0o600)
    opened = os.open

    def replace(name: Path, flags: int) -> int:
        monkeypatch.undo()
        path.unlink()
        path.symlink_to(victim)
        return opened(name, flags)

    monkeypatch.setattr("os.open", replace)
    with pytest.raises(UserError, match="it was replaced meanwhile"):
        listen_unix(path, 0o666)
    assert mode_of(victim) == 0o600
