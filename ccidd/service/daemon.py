# SPDX-License-Identifier: Apache-2.0
"""Serves a reader at an endpoint until a signal ends it.

Files, keys and sockets are opened before this, so that what is wrong with them is told at once.
Here signals are caught, connections are accepted, and "ready" is logged, in this order. At the end
the reader is unplugged, which answers what is in flight and takes the cards away from the guest;
only then are connections closed.
"""

import signal
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Final

import structlog
import trio

from ccidd.reader.slot import Slot
from ccidd.reader.usb_reader import UsbReader
from ccidd.transport.endpoint import Endpoint, Handler
from ccidd.transport.usbredir import serve_usbredir
from ccidd.transport.vscard import serve_vscard

log: structlog.stdlib.BoundLogger = structlog.get_logger()

STOP_TIMEOUT: Final = 3.0
"""Seconds that a connection has to end when the process is told to stop."""


async def serve(endpoint: Endpoint, slot: Slot) -> None:
    """Serves one slot over `vscard` until SIGTERM or SIGINT, or until no connection can come.

    Args:
        endpoint: where connections come from; it is closed in the end.
        slot: the slot with the card for the guest.
    """
    await _Daemon(endpoint, [slot], partial(serve_vscard, slot=slot)).run()


async def serve_reader(endpoint: Endpoint, slots: Sequence[Slot], device: UsbReader) -> None:
    """Serves a whole reader over `usbredir`, as `serve` does.

    Args:
        endpoint: where connections come from; it is closed in the end.
        slots: the reader's slots.
        device: the reader.
    """
    handler = partial(serve_usbredir, device=device, slots=slots)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.run)
        await _Daemon(endpoint, slots, handler).run()
        nursery.cancel_scope.cancel()


class _Daemon:
    def __init__(self, endpoint: Endpoint, slots: Sequence[Slot], handler: Handler) -> None:
        self._endpoint = endpoint
        self._slots = slots
        self._handler = handler
        self._connection = trio.Lock()
        self._stopping = False

    async def run(self) -> None:
        try:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._accept, nursery.cancel_scope)
                    log.info("ready")
                    await _wait_for_signal(signals)
                    await self._stop()
                    nursery.cancel_scope.cancel()
        finally:
            self._endpoint.close()
            log.info("stopped")

    async def _accept(
        self, daemon: trio.CancelScope, *, task_status: trio.TaskStatus[None]
    ) -> None:
        await self._endpoint.run(self._handle, task_status=task_status)
        daemon.cancel()

    async def _handle(self, stream: trio.SocketStream) -> bool:
        async with self._connection:
            if self._stopping:
                return False
            log.info("connection_opened")
            try:
                return await self._handler(stream)
            except Exception:
                # A fault of ours ends this connection; the next one may fare better.
                log.exception("connection_fault")
                return False

    async def _stop(self) -> None:
        self._stopping = True
        for slot in self._slots:
            slot.unplug()
        with trio.move_on_after(STOP_TIMEOUT):
            await self._connection.acquire()


async def _wait_for_signal(signals: AsyncIterator[int]) -> None:
    async for number in signals:
        log.info("stopping", signal=signal.Signals(number).name)
        return
