# SPDX-License-Identifier: Apache-2.0
"""Serves a slot at an endpoint until a signal ends it.

Files, keys and sockets are opened before this, so that what is wrong with them is told at once.
Here signals are caught, connections are accepted, and "ready" is logged, in this order. At the end
the reader is unplugged, which answers what is in flight and takes the card away from the guest;
only then are connections closed.
"""

import signal
from collections.abc import AsyncIterator
from typing import Final

import structlog
import trio

from ccidd.reader.slot import Slot
from ccidd.transport.endpoint import Endpoint
from ccidd.transport.vscard import serve_vscard

log: structlog.stdlib.BoundLogger = structlog.get_logger()

STOP_TIMEOUT: Final = 3.0
"""Seconds that a connection has to end when the process is told to stop."""


async def serve(endpoint: Endpoint, slot: Slot) -> None:
    """Serves until SIGTERM or SIGINT, or until no more connections can come.

    Args:
        endpoint: where they come from; it is closed in the end.
        slot: the slot with the card for the guest.
    """
    connection = trio.Lock()

    async def handle(stream: trio.SocketStream) -> bool:
        async with connection:
            if slot.unplugged:
                return False
            log.info("connection_opened")
            try:
                return await serve_vscard(stream, slot)
            except Exception:
                # A fault of ours ends this connection; the next one may fare better.
                log.exception("connection_fault")
                return False

    try:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:

                async def run(task_status: trio.TaskStatus[None]) -> None:
                    await endpoint.run(handle, task_status=task_status)
                    nursery.cancel_scope.cancel()

                await nursery.start(run)
                log.info("ready")
                await _wait_for_signal(signals)
                slot.unplug()
                with trio.move_on_after(STOP_TIMEOUT):
                    await connection.acquire()
                nursery.cancel_scope.cancel()
    finally:
        endpoint.close()
        log.info("stopped")


async def _wait_for_signal(signals: AsyncIterator[int]) -> None:
    async for number in signals:
        log.info("stopping", signal=signal.Signals(number).name)
        return
