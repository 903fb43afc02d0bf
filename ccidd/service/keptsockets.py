# SPDX-License-Identifier: Apache-2.0
"""Keeps the sockets that ccidd opened itself open while it is started again.

The service manager has a copy of each, under its path, and passes it to the next process. Who
connects meanwhile waits, as with sockets of the manager's own.

Source: sd_pid_notify_with_fds(3), FDSTORE=1; systemd.service(5), FileDescriptorStoreMax=. systemd
keeps them over a restart, and no longer than until the service is stopped.
"""

import os
import socket
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ccidd.service.notify import Notifier
from ccidd.transport.access import Admission
from ccidd.transport.endpoint import Listener, listen
from ccidd.transport.listening import listen_unix

_MAX_NAME: Final = 255


def take_kept_sockets(
    systemd_fds: Iterable[tuple[str, int]],
) -> tuple[Mapping[Path, int], list[tuple[str, int]]]:
    """Tells which of the descriptors that systemd passed are sockets that were kept.

    Args:
        systemd_fds: the name and the descriptor of each.

    Returns:
        Those that were kept, by their paths, and all others.
    """
    kept, others = {}, []
    for name, fd in systemd_fds:
        if name.startswith("/"):
            os.set_inheritable(fd, False)
            kept[Path(name)] = fd
        else:
            others.append((name, fd))
    return kept, others


class KeptSockets:
    """The sockets that are kept.

    Args:
        kept: those that were kept over the restart, by their paths.
    """

    def __init__(self, kept: Mapping[Path, int]) -> None:
        self._kept = dict(kept)
        self._notifier = Notifier()
        self._are_left = False

    def keep_with(self, notifier: Notifier) -> None:
        """Has sockets kept by this service manager, if it offers that."""
        self._notifier = notifier

    def listen(self, path: Path, mode: int, group: int | None, admission: Admission) -> Listener:
        """Listens on a Unix socket: on the one that was kept, if it is as it should be.

        Args:
            path: where it is.
            mode: the mode of its file.
            group: the number of the group that its file belongs to; None for any.
            admission: what connections pass before they are served.

        Raises:
            UserError: As `listen`.
        """
        place = path.absolute()
        if not self._notifier.can_store or not _is_name(os.fspath(place)):
            return listen(path, mode, group, admission)
        kept = self._kept.pop(place, None)
        if kept is not None and _is_as_wanted(place, mode, group):
            return _KeptListener(self, socket.socket(fileno=kept), place, admission)
        if kept is not None:
            self._end(place, kept)
        listening = listen_unix(path, mode, group)
        self._notifier.store(os.fspath(place), listening.fileno())
        return _KeptListener(self, listening, place, admission)

    def end_others(self) -> None:
        """Ends those that were kept and are not used any more."""
        while self._kept:
            self._end(*self._kept.popitem())

    def leave(self) -> None:
        """Leaves the files of all sockets where they are: this process ends."""
        self._are_left = True

    def is_left(self, place: Path) -> bool:
        """Whether the file of a socket that is closed here stays; if not, it is forgotten."""
        if not self._are_left:
            self._notifier.forget(os.fspath(place))
        return self._are_left

    def _end(self, place: Path, kept: int) -> None:
        self._notifier.forget(os.fspath(place))
        os.close(kept)
        if _is_socket(place):
            place.unlink(missing_ok=True)


class _KeptListener(Listener):
    """A listening socket of which the service manager has a copy."""

    def __init__(
        self, sockets: KeptSockets, listening: socket.socket, place: Path, admission: Admission
    ) -> None:
        super().__init__([listening], place, admission)
        self._sockets = sockets
        self._place = place

    def close(self) -> None:
        """See `Endpoint.close`."""
        if self._sockets.is_left(self._place):
            self.leave_file()
        super().close()


def _is_name(text: str) -> bool:
    """Whether a descriptor can have this name (sd_pid_notify_with_fds(3), FDNAME=)."""
    return text.isascii() and text.isprintable() and ":" not in text and len(text) <= _MAX_NAME


def _is_socket(place: Path) -> bool:
    try:
        return stat.S_ISSOCK(place.lstat().st_mode)
    except OSError:
        return False


def _is_as_wanted(place: Path, mode: int, group: int | None) -> bool:
    if not _is_socket(place):
        return False
    status = place.lstat()
    return stat.S_IMODE(status.st_mode) == mode and group in {None, status.st_gid}
