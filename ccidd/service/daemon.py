# SPDX-License-Identifier: Apache-2.0
"""Serves a reader at an endpoint until a signal ends it.

Files and keys are opened before this, so that what is wrong with them is told at once. Here signals
are caught, the socket is opened, and "ready" is logged, and said to the service manager, in this
order. At the end
the reader is unplugged, which answers what is in flight and takes the cards away from the guest;
only then are connections closed.
"""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

import structlog
import trio

from ccidd.reader.slot import Slot
from ccidd.reader.usb_reader import UsbReader
from ccidd.reader.witness import Witness
from ccidd.service.notify import Notifier
from ccidd.service.supply import Filling
from ccidd.transport.endpoint import Endpoint, Handler
from ccidd.transport.serial import PseudoTerminal
from ccidd.transport.usbredir import UsbredirPort
from ccidd.transport.vscard import serve_vscard

log: structlog.stdlib.BoundLogger = structlog.get_logger()

OpenEndpoint: TypeAlias = Callable[[], Endpoint]

Background: TypeAlias = Callable[[], Awaitable[None]]

_NO_GUEST: Final = "no guest is connected"

STOP_TIMEOUT: Final = 3.0
"""Seconds that a connection has to end when the process is told to stop."""


async def serve(
    open_endpoint: OpenEndpoint,
    slot: Slot,
    fillings: Sequence[Filling] = (),
    witness: Witness | None = None,
    others: Sequence[Background] = (),
) -> bool:
    """Serves one slot over `vscard` until SIGTERM or SIGINT, or until no connection can come.

    Args:
        open_endpoint: opens what connections come from; signals are caught before.
        slot: the slot with the card for the guest.
        fillings: what puts cards into it meanwhile.
        witness: who looks on.
        others: what else is to run meanwhile.

    Returns:
        False if no connection can come any more, and none spoke the right protocol.

    Raises:
        UserError: The endpoint cannot be opened.
    """
    background = [*(filling.run for filling in fillings), *others]
    handler = partial(serve_vscard, slot=slot, witness=witness)
    return await _Daemon([slot], handler, background).run(open_endpoint)


async def serve_reader(
    open_endpoint: OpenEndpoint,
    slots: Sequence[Slot],
    device: UsbReader,
    fillings: Sequence[Filling] = (),
) -> bool:
    """Serves a whole reader over `usbredir`, as `serve` does.

    Args:
        open_endpoint: opens what connections come from.
        slots: the reader's slots.
        device: the reader.
        fillings: what puts cards into the slots meanwhile.
    """
    port = UsbredirPort(device, slots)
    background = [port.run, *(filling.run for filling in fillings)]
    return await _Daemon(slots, port.serve, background).run(open_endpoint)


async def serve_line(
    line: PseudoTerminal,
    slots: Sequence[Slot],
    serve_on_line: Callable[[], Awaitable[None]],
    fillings: Sequence[Filling] = (),
) -> None:
    """Serves a whole reader over `serial` until SIGTERM or SIGINT.

    Args:
        line: the pseudo-terminal; it is closed in the end.
        slots: the reader's slots.
        serve_on_line: serves the reader on the line until the slots are unplugged.
        fillings: what puts cards into the slots meanwhile.
    """
    try:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as supplies:
                for filling in fillings:
                    supplies.start_soon(filling.run)
                notifier = Notifier.take(os.environ)
                supplies.start_soon(notifier.keep_alive)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(serve_on_line)
                    _be_ready(notifier, "serving on a serial line")
                    await _wait_for_signal(signals)
                    notifier.stopping()
                    nursery.cancel_scope.deadline = trio.current_time() + STOP_TIMEOUT
                    for slot in slots:
                        slot.unplug()
                supplies.cancel_scope.cancel()
    finally:
        line.close()
        log.info("stopped")


class _Daemon:
    def __init__(
        self,
        slots: Sequence[Slot],
        handler: Handler,
        background: Sequence[Background],
    ) -> None:
        self._slots = slots
        self._handler = handler
        self._background = background
        self._connection = trio.Lock()
        self._notifier = Notifier.take(os.environ)
        self._stopping = False
        self._served = False

    async def run(self, open_endpoint: OpenEndpoint) -> bool:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            endpoint = open_endpoint()
            try:
                async with trio.open_nursery() as nursery:
                    for task in (*self._background, self._notifier.keep_alive):
                        nursery.start_soon(task)
                    await nursery.start(self._accept, endpoint, nursery.cancel_scope)
                    _be_ready(self._notifier, _NO_GUEST)
                    await _wait_for_signal(signals)
                    self._notifier.stopping()
                    await self._stop()
                    nursery.cancel_scope.cancel()
            finally:
                endpoint.close()
                log.info("stopped")
        return self._stopping or self._served

    async def _accept(
        self,
        endpoint: Endpoint,
        daemon: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        await endpoint.run(self._handle, task_status=task_status)
        daemon.cancel()

    async def _handle(self, stream: trio.abc.Stream) -> bool:
        async with self._connection:
            if self._stopping:
                return False
            log.info("connection_opened")
            self._notifier.status("a guest is connected")
            try:
                served = await self._handler(stream)
            except Exception:
                # A fault of ours ends this connection; the next one may fare better.
                log.exception("connection_fault")
                return False
            finally:
                self._notifier.status(_NO_GUEST)
            self._served = self._served or served
            return served

    async def _stop(self) -> None:
        self._stopping = True
        for slot in self._slots:
            slot.unplug()
        with trio.move_on_after(STOP_TIMEOUT):
            await self._connection.acquire()


def _be_ready(notifier: Notifier, status: str) -> None:
    notifier.status(status)
    notifier.ready()
    log.info("ready")


async def _wait_for_signal(signals: AsyncIterator[int]) -> None:
    async for number in signals:
        log.info("stopping", signal=signal.Signals(number).name)
        return
