# SPDX-License-Identifier: Apache-2.0
"""A file with the metrics, as node_exporter's textfile collector and others read it."""

import contextlib
import os
from pathlib import Path
from typing import Final

import structlog
import trio

from ccidd.service.statistics.openmetrics import openmetrics
from ccidd.service.statistics.statistics import Statistics

log: structlog.stdlib.BoundLogger = structlog.get_logger()

INTERVAL: Final = 15.0
"""Seconds from one text to the next."""

_LAST_WRITE: Final = 1.0
"""Seconds that the last text has, when ccidd is to end."""

_MODE: Final = 0o644
"""The collector is another user; whom it is kept from, the directory says."""


class MetricsFile:
    """Keeps a file up to date, which others find whole at any time.

    Args:
        path: the file.
        statistics: what is written into it.
    """

    def __init__(self, path: Path, statistics: Statistics) -> None:
        self._path = path
        self._statistics = statistics
        self._has_failed = False

    async def run(self) -> None:
        """Writes again and again."""
        while True:
            await self._write()
            await trio.sleep(INTERVAL)

    async def finish(self) -> None:
        """Writes for the last time, if that is done soon."""
        with trio.move_on_after(_LAST_WRITE):
            await self._write()

    async def _write(self) -> None:
        """Writes once; a disk that takes nothing is told of once, and holds up nobody else."""
        text = openmetrics(self._statistics)
        try:
            await trio.to_thread.run_sync(_replace, self._path, text, abandon_on_cancel=True)
        except OSError as error:
            if not self._has_failed:
                log.error(  # noqa: TRY400 (no fault of ours)
                    "metrics_not_written", file=str(self._path), reason=error.strerror
                )
            self._has_failed = True
        else:
            self._has_failed = False


def _replace(path: Path, text: str) -> None:
    # The sandbox has directories in which files may be written, but not read, as `tempfile` would.
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    try:
        with new.open("x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), _MODE)
            file.write(text)
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
