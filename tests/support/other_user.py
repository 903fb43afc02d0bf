# SPDX-License-Identifier: Apache-2.0
"""A process of another user, which connects to a Unix socket."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

# The interpreter is loaded before the rights go: the other user need not be able to read it.
_SCRIPT = """
import os, socket, sys
path, uid, *groups = sys.argv[1:]
connection = socket.socket(socket.AF_UNIX)
os.setgroups([int(group) for group in groups[1:]])
os.setresgid(*[int(groups[0])] * 3)
os.setresuid(*[int(uid)] * 3)
try:
    connection.connect(path)
    connection.settimeout(60)
    heard = connection.recv(100)
    if heard:
        connection.sendall(b"bye")
    print(heard.decode())
except (PermissionError, ConnectionResetError) as error:
    print(type(error).__name__)
"""


async def heard_by_other_user(path: Path, uid: int = 1, groups: tuple[int, ...] = (1,)) -> str:
    """Gives what another user is greeted with, or what keeps him from connecting.

    Where the tests do not run as root, he is one of those that /etc/subuid has for their user.

    Args:
        path: where to connect to.
        uid: the user.
        groups: the process's groups, first its own.
    """
    namespace = ("unshare", "--user", "--map-auto", "--map-root-user") if os.geteuid() else ()
    numbers = [str(number) for number in (uid, *groups)]
    result = await trio.run_process(
        [*namespace, sys.executable, "-c", _SCRIPT, str(path), *numbers],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.decode().strip()


@contextmanager
def directory_for_all() -> Iterator[Path]:
    """Makes a directory that other users can look into."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory
