# SPDX-License-Identifier: Apache-2.0
"""Runs a service, from its start to its end.

The start has an order, and each step has its reason for being where it is:

1. The command line and the configuration file are read, and held against each other (`cli`). What
   is wrong there costs nothing but a line.
2. The log is set up. From here on there is somebody to tell.
3. The state is opened, and what was demanded of the sandbox is looked for: what cannot work is not
   begun with.
4. Cards are opened, with their keys: files, tokens and databases are read with all privileges that
   ccidd was given. PKCS#11 modules begin in processes that confine themselves.
5. Signals are caught, since from here on there is something to clean up.
6. Sockets are opened, for which directories and groups may need privileges too.
7. ccidd confines itself. All that is opened later, on a reload, stays within that. There must be no
   other thread yet, and no guest has been heard yet.
8. Readers and control sockets are served, and "ready" is logged, and said to the service manager.

At the end the readers are unplugged, which answers what is in flight and takes the cards away from
the guests; only then are connections closed.
"""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path

import structlog
import trio

from ccidd.errors import UserError
from ccidd.service.configuration import Configuration
from ccidd.service.control.server import ControlServer
from ccidd.service.events import Events
from ccidd.service.keptsockets import KeptSockets
from ccidd.service.log import AUTO, configure_log
from ccidd.service.notify import Notifier
from ccidd.service.opening import ReaderOpener
from ccidd.service.parser import open_state_in
from ccidd.service.requests import Requests
from ccidd.service.sandbox.sandbox import Sandbox
from ccidd.service.sandbox.surroundings import Surroundings
from ccidd.service.service import LoadConfiguration, Service

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def start(
    configuration: Configuration,
    file: Path | None,
    load: LoadConfiguration | None,
    kept: Mapping[Path, int],
) -> bool:
    """Starts a service, and runs it to its end.

    Args:
        configuration: what to serve.
        file: the file that it was read from, if it was.
        load: reads it again.
        kept: sockets that systemd kept over a restart, by their paths.

    Returns:
        As `serve`.

    Raises:
        UserError: Something cannot be used.
    """
    configure_log(configuration.log_level or "info", configuration.log_format or AUTO)
    with open_state_in(configuration.state_dir, configuration.state_key_file) as state:
        sandbox = Sandbox(configuration, Surroundings.here(state.directory, file, os.environ))
        sockets = KeptSockets(kept)
        events = Events()
        requests = Requests(events)
        service = Service(
            ReaderOpener(state, requests, sandbox, sockets).open,
            load,
            sandbox=sandbox,
            events=events,
            requests=requests,
            metrics_file=configuration.metrics_file,
        )
        with contextlib.ExitStack() as failing:
            failing.callback(service.close)
            service.open(configuration)
            failing.pop_all()
        control = ControlServer(configuration.control, service, state)
        return trio.run(serve, service, control, sandbox, sockets)


async def serve(
    service: Service,
    control: ControlServer | None = None,
    sandbox: Sandbox | None = None,
    sockets: KeptSockets | None = None,
) -> bool:
    """Serves until SIGTERM or SIGINT, or until no connection can come any more.

    SIGHUP has a configuration file read again; without one it ends the process, as it does by
    itself when a terminal is closed.

    Args:
        service: what to serve; it is closed in any case.
        control: the control sockets, if there are any.
        sandbox: what to serve it in.
        sockets: what keeps its sockets over a restart.

    Returns:
        False if no connection can come any more, and none spoke the right protocol.

    Raises:
        UserError: A socket cannot be opened.
    """
    notifier = Notifier.take(os.environ)
    sockets = sockets or KeptSockets({})
    sockets.keep_with(notifier)
    obeyed = [signal.SIGTERM, signal.SIGINT]
    if service.can_reload:
        obeyed.append(signal.SIGHUP)
    try:
        with trio.open_signal_receiver(*obeyed) as signals:
            service.listen()
            sockets.end_others()
            if control is not None:
                control.listen()
            if sandbox is not None:
                sandbox.enter()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(notifier.keep_alive)
                await nursery.start(_run, service, control, nursery.cancel_scope)
                if control is not None:
                    await nursery.start(control.run)
                service.changed = partial(_tell_status, notifier, service)
                service.changed()
                notifier.ready()
                log.info("ready")
                nursery.start_soon(_tell_stop, service, notifier, sockets)
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


async def _tell_stop(service: Service, notifier: Notifier, sockets: KeptSockets) -> None:
    await service.wait_until_over()
    sockets.leave()
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
