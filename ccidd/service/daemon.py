# SPDX-License-Identifier: Apache-2.0
"""Serves readers until a signal ends it.

Files and keys are opened before this, so that what is wrong with them is told at once. Here signals
are caught, sockets are opened, and "ready" is logged, and said to the service manager, in this
order. At the end the readers are unplugged, which answers what is in flight and takes the cards
away from the guests; only then are connections closed.
"""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from functools import partial

import structlog
import trio

from ccidd.service.notify import Notifier
from ccidd.service.served import ServedReader

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def serve(readers: Sequence[ServedReader]) -> bool:
    """Serves readers until SIGTERM or SIGINT, or until no connection can come any more.

    Args:
        readers: the readers.

    Returns:
        False if no connection can come any more, and none spoke the right protocol.

    Raises:
        UserError: A socket cannot be opened.
    """
    notifier = Notifier.take(os.environ)
    was_told = False
    with (
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
        contextlib.ExitStack() as sockets,
    ):
        for reader in readers:
            sockets.enter_context(reader.opened())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.keep_alive)
            await nursery.start(_run_all, readers, nursery.cancel_scope)
            for reader in readers:
                reader.changed = partial(_tell_status, notifier, readers)
            _tell_status(notifier, readers)
            notifier.ready()
            log.info("ready")
            await _wait_for_signal(signals)
            was_told = True
            notifier.stopping()
            async with trio.open_nursery() as stopping:
                for reader in readers:
                    stopping.start_soon(reader.stop)
            nursery.cancel_scope.cancel()
    log.info("stopped")
    return was_told or any(reader.was_served for reader in readers)


async def _run_all(
    readers: Sequence[ServedReader],
    service: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Runs readers, and ends the service when none of them can be reached any more."""
    async with trio.open_nursery() as nursery:
        for reader in readers:
            await nursery.start(reader.run)
        task_status.started()
    service.cancel()


def _tell_status(notifier: Notifier, readers: Sequence[ServedReader]) -> None:
    connected = sum(reader.is_connected for reader in readers)
    if len(readers) == 1:
        text = "a guest is connected" if connected else "no guest is connected"
    else:
        text = f"{len(readers)} readers, {connected} of them connected to guests"
    notifier.status(text)


async def _wait_for_signal(signals: AsyncIterator[int]) -> None:
    async for number in signals:
        log.info("stopping", signal=signal.Signals(number).name)
        return
