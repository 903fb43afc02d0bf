# SPDX-License-Identifier: Apache-2.0
"""Who may be at the other end of a connection.

Over a Unix socket the kernel tells who that is: as of connect(2) of a peer that connects, and as of
listen(2) of one that is connected to. Over TCP nobody is known without TLS (`ccidd.transport.tls`).

Source: unix(7), SO_PEERCRED; user_namespaces(7), "Unmapped user and group IDs".
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from ccidd.transport.sockets import Credentials, peer_credentials
from ccidd.transport.tcp import prompt

_OVERFLOW: Final = 65534
_ALL_IDS: Final = ["0", "0", str(2**32 - 1)]


class RefusedError(Exception):
    """A peer is not let in.

    Args:
        reason: why, for the log.
        peer: what is known of it, for the log.
    """

    def __init__(self, reason: str, peer: Mapping[str, str | int] | None = None) -> None:
        super().__init__(reason)
        self.peer: Final = peer or {}


@dataclass(frozen=True, slots=True)
class Rules:
    """Who is let in; where there are no rules of a kind, everybody.

    Attributes:
        users: users, by their numbers.
        groups: groups, by their numbers: the process's own, or one of its others.
        subjects: subjects of certificates (RFC 4514).
        fingerprints: SHA-256 of certificates (DER).
    """

    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()
    subjects: frozenset[str] = frozenset()
    fingerprints: frozenset[bytes] = frozenset()

    @property
    def are_for_processes(self) -> bool:
        """Whether there are rules for who is at the other end of a Unix socket."""
        return bool(self.users or self.groups)

    @property
    def are_for_certificates(self) -> bool:
        """Whether there are rules for certificates."""
        return bool(self.subjects or self.fingerprints)

    def admit_certificate(self, subject: str, fingerprint: bytes) -> bool:
        """Whether who has a certificate is let in."""
        if not self.are_for_certificates:
            return True
        return subject in self.subjects or fingerprint in self.fingerprints

    def check_process(self, process: Credentials) -> None:
        """Holds a process against the rules.

        Raises:
            RefusedError: It is not to be let in.
        """
        if not self.are_for_processes or process.uid in self.users:
            return
        if not self.groups.isdisjoint({process.gid, *process.groups}):
            return
        reason = "neither its user nor a group of its is allowed"
        if is_overflow("uid", process.uid):
            reason = "its user is not known in this user namespace (PrivateUsers=)"
        raise RefusedError(reason, {"uid": process.uid, "gid": process.gid, "pid": process.pid})


def is_overflow(kind: str, number: int) -> bool:
    """Whether a number stands for all users or groups that this user namespace does not know.

    Args:
        kind: "uid" or "gid".
        number: the number.
    """
    try:
        overflow = int(Path(f"/proc/sys/kernel/overflow{kind}").read_text())
    except OSError:
        # The default; systemd's ProcSubset=pid hides the file.
        overflow = _OVERFLOW
    if number != overflow:
        return False
    try:
        return Path(f"/proc/self/{kind}_map").read_text().split() != _ALL_IDS
    except OSError:
        return True


class Admission(ABC):
    """What a connection passes before it is served."""

    @abstractmethod
    async def admit(self, stream: trio.SocketStream) -> trio.abc.Stream:
        """Lets a peer in.

        Args:
            stream: the connection; the caller closes it if the peer is not let in.

        Returns:
            What to talk to the peer on, which closes the connection when it is closed.

        Raises:
            RefusedError: The peer is not let in.
        """


class Unencrypted(Admission):
    """Connections as they are: over Unix sockets, and over TCP without TLS.

    Args:
        rules: who is let in, over Unix sockets.
    """

    def __init__(self, rules: Rules | None = None) -> None:
        self._rules: Final = rules or Rules()

    async def admit(self, stream: trio.SocketStream) -> trio.abc.Stream:
        """See `Admission.admit`."""
        if self._rules.are_for_processes:
            self._rules.check_process(peer_credentials(stream.socket))
        await trio.lowlevel.checkpoint()
        return prompt(stream)
