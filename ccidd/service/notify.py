# SPDX-License-Identifier: Apache-2.0
"""Tells the service manager how the service fares, and has it keep descriptors over a restart.

Source: sd_notify(3), sd_pid_notify_with_fds(3) and sd_watchdog_enabled(3), whose protocol is
stable: one datagram of assignments to the socket that `$NOTIFY_SOCKET` names, with descriptors as
ancillary data (unix(7), SCM_RIGHTS).
"""

import os
import socket
import time
from collections.abc import MutableMapping, Sequence
from typing import Final, Self

import structlog
import trio

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_MICROSECONDS: Final = 1_000_000
_NANOSECONDS_PER_MICROSECOND: Final = 1000


class Notifier:
    """The service manager, if there is one that wants to be told.

    Args:
        address: the path of its socket, or its abstract name with a leading `@`; None if there is
            none.
        watchdog: seconds within which it wants a sign of life; None if it wants none.
        can_store: whether it keeps descriptors.
    """

    def __init__(
        self,
        address: str | None = None,
        watchdog: float | None = None,
        *,
        can_store: bool = False,
    ) -> None:
        self._address = address
        self._watchdog = watchdog
        self._can_store = can_store

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Self:
        """Finds it in the environment, and takes it out, since it is not for child processes."""
        address = environ.pop("NOTIFY_SOCKET", "")
        interval = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        # systemd says it from version 254 on; for older ones the unit does.
        room = environ.pop("FDSTORE", "")
        is_watched = interval.isdecimal() and int(interval) and pid in {"", str(os.getpid())}
        # systemd knows addresses of other families too (vsock), for virtual machines.
        return cls(
            address if address.startswith(("/", "@")) else None,
            int(interval) / _MICROSECONDS if is_watched else None,
            can_store=room.isdecimal() and int(room) > 0,
        )

    @property
    def can_store(self) -> bool:
        """Whether it keeps descriptors over a restart."""
        return self._can_store and self._address is not None

    def ready(self) -> None:
        """Tells that the service is ready: whoever connects from now on is served."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Tells people what the service is about, in one line."""
        self._send(f"STATUS={text}")

    def reloading(self) -> None:
        """Tells that the configuration is being read again; `ready` tells that it has been."""
        # Type=notify-reload (systemd 253) takes no notice without the time.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // _NANOSECONDS_PER_MICROSECOND
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """Tells that the service ends."""
        self._send("STOPPING=1")

    def store(self, name: str, descriptor: int) -> None:
        """Has a descriptor kept over a restart (FileDescriptorStoreMax=).

        The next process gets it beside those of socket activation.

        Args:
            name: its name there: up to 255 characters of ASCII, without colons.
            descriptor: what to keep; it stays open here.
        """
        # FDPOLL=0: a listening socket has nothing to be polled for.
        self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", [descriptor])

    def forget(self, name: str) -> None:
        """Has the descriptors of a name kept no longer."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    async def keep_alive(self) -> None:
        """Gives signs of life until it is cancelled, as long as the event loop does not hang."""
        if self._address is None or self._watchdog is None:
            return
        while True:
            self._send("WATCHDOG=1")
            await trio.sleep(self._watchdog / 2)

    def _send(self, assignments: str, descriptors: Sequence[int] = ()) -> None:
        if self._address is None:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
                datagrams.setblocking(False)
                datagrams.connect(address)
                socket.send_fds(datagrams, [assignments.encode()], descriptors)
        except BlockingIOError:
            # It has enough to read. The next sign of life is soon.
            pass
        except OSError as error:
            # That it does not listen is no reason to stop.
            log.warning("service_manager_unreachable", reason=error.strerror)
            self._address = None
