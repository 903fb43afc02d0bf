# SPDX-License-Identifier: Apache-2.0
"""The log: one event a line on standard error, readable on a terminal, logfmt elsewhere."""

import contextlib
import io
import logging
import os
from typing import Final

import structlog

_STDERR: Final = 2

LEVELS: Final = ("debug", "info", "warning", "error")


class _Stderr(io.StringIO):
    """Standard error, as far as anybody still reads it: a lost log must not end the service.

    Each line is one write. Python's own stream would keep what it cannot write, and complain about
    it at the end with an exit status of 120.
    """

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(_STDERR, text.encode(errors="backslashreplace"))
        return len(text)


def configure_log(level: str) -> None:
    """Sets the log up for the whole process.

    Args:
        level: one of `LEVELS`; events below it are left out.
    """
    terminal = os.isatty(_STDERR)
    renderer = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if terminal
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not terminal),
            # Never with the values of variables, which may be secrets.
            *([] if terminal else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(_Stderr()),
        cache_logger_on_first_use=True,
    )
