# SPDX-License-Identifier: Apache-2.0
"""Runs a service until a signal ends it.

Files and keys are opened before this, so that what is wrong with them is told at once. Here signals
are caught, sockets are opened, and "ready" is logged, and said to the service manager, in this
order. At the end the readers are unplugged, which answers what is in flight and takes the cards
away from the guests; only then are connections closed.
"""

import os
import signal
from collections.abc import AsyncIterator
from functools import partial

import structlog
import trio

from ccidd.errors import UserError
from ccidd.service.control.server import ControlServer
from ccidd.service.notify import Notifier
from ccidd.service.service import Service

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def serve(service: Service, control: ControlServer | None = None) -> bool:
    """Serves until SIGTERM or SIGINT, or until no connection can come any more.

    SIGHUP has a configuration file read again; without one it ends the process, as it does by
    itself when a terminal is closed.

    Args:
        service: what to serve; it is closed in any case.
        control: the control sockets, if there are any.

    Returns:
        False if no connection can come any more, and none spoke the right protocol.

    Raises:
        UserError: A socket cannot be opened.
    """
    notifier = Notifier.take(os.environ)
    obeyed = [signal.SIGTERM, signal.SIGINT]
    if service.can_reload:
        obeyed.append(signal.SIGHUP)
    try:
        with trio.open_signal_receiver(*obeyed) as signals:
            service.listen()
            if control is not None:
                control.listen()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(notifier.keep_alive)
                await nursery.start(_run, service, control, nursery.cancel_scope)
                if control is not None:
                    await nursery.start(control.run)
                service.changed = partial(_tell_status, notifier, service)
                service.changed()
                notifier.ready()
                log.info("ready")
                nursery.start_soon(_tell_stop, service, notifier)
                await _obey(signals, service, notifier)
    finally:
        service.close()
        if control is not None:
            control.close()
    log.info("stopped")
    return service.was_told or service.was_served


async def _run(
    service: Service,
    control: ControlServer | None,
    nursery: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    await service.run(task_status=task_status)
    if control is not None:
        await control.settle()
    nursery.cancel()


async def _tell_stop(service: Service, notifier: Notifier) -> None:
    await service.wait_until_over()
    notifier.stopping()


async def _obey(signals: AsyncIterator[int], service: Service, notifier: Notifier) -> None:
    """Does what signals say until one says to stop; then the service ends by itself."""
    async for number in signals:
        if number == signal.SIGHUP:
            await _reload(service, notifier)
        else:
            log.info("stopping", signal=signal.Signals(number).name)
            service.quit()
            return


async def _reload(service: Service, notifier: Notifier) -> None:
    notifier.reloading()
    try:
        await service.reload()
    except UserError as error:
        log.error("reload_failed", reason=f"{error}")  # noqa: TRY400 (it says all)
    notifier.ready()


def _tell_status(notifier: Notifier, service: Service) -> None:
    readers = service.readers.values()
    connected = sum(reader.is_connected for reader in readers)
    if len(readers) == 1:
        text = "a guest is connected" if connected else "no guest is connected"
    else:
        text = f"{len(readers)} readers, {connected} of them connected to guests"
    notifier.status(text)
