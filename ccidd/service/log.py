# SPDX-License-Identifier: Apache-2.0
"""The log: one event a line on standard error, in a form for those who read it there.

Values come from guests, tokens and files of others, so whatever is in them, an event stays on its
line, and a terminal is told nothing but text.

Source: systemd.exec(5), JOURNAL_STREAM; sd-daemon(3), the levels before lines.
"""

import contextlib
import io
import logging
import os
import traceback
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog
from structlog.typing import ExcInfo, Processor

_STDERR: Final = 2

LEVELS: Final = ("debug", "info", "warning", "error")

AUTO: Final = "auto"

FORMATS: Final = (AUTO, "console", "logfmt", "json", "journal")
"""What `configure_log` takes; `auto` is one of the others."""

_FIRST: Final = ["timestamp", "level", "event"]

# syslog(3): what the journal calls the levels.
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


class _Stderr(io.StringIO):
    """Standard error, as far as anybody still reads it: a lost log must not end the service.

    Each line is one write. Python's own stream would keep what it cannot write, and complain about
    it at the end with an exit status of 120.
    """

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(_STDERR, text.encode(errors="backslashreplace"))
        return len(text)


class _Threshold:
    """Leaves out what is below a level that may change while loggers are kept."""

    def __init__(self) -> None:
        self.level = logging.INFO

    def __call__(
        self, _logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        if structlog.processors.NAME_TO_LEVEL[method] < self.level:
            raise structlog.DropEvent
        return event


_threshold: Final = _Threshold()


def configure_log(level: str, form: str = AUTO) -> None:
    """Sets the log up for the whole process.

    Args:
        level: one of `LEVELS`; events below it are left out.
        form: one of `FORMATS`. `auto` is `console` on a terminal, `journal` where standard error is
            systemd's journal, and else `logfmt`.
    """
    terminal = os.isatty(_STDERR)
    if form == AUTO:
        elsewhere = "journal" if is_journal(_STDERR) else "logfmt"
        form = "console" if terminal else elsewhere
    set_log_level(level)
    structlog.configure(
        processors=[
            _threshold,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *_renderers(form, colors=terminal),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(_Stderr()),
        cache_logger_on_first_use=True,
    )


def set_log_level(level: str) -> None:
    """Has events below a level, one of `LEVELS`, left out from now on."""
    _threshold.level = structlog.processors.NAME_TO_LEVEL[level]


def is_logged(level: str) -> bool:
    """Whether events of a level, one of `LEVELS`, are logged, for those that are work to make."""
    return structlog.processors.NAME_TO_LEVEL[level] >= _threshold.level


def is_journal(fd: int) -> bool:
    """Whether what is written to a descriptor stays in systemd's journal, for others to read."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _renderers(form: str, *, colors: bool) -> list[Processor]:
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=form != "console")
    # Tracebacks never come with the values of variables, which may be secrets.
    match form:
        case "console":
            console = structlog.dev.ConsoleRenderer(
                colors=colors, exception_formatter=_print_traceback
            )
            return [stamp, _stay_on_line, console]
        case "json":
            # JSON has a form of its own for all that is not text.
            json = structlog.processors.JSONRenderer()
            return [stamp, structlog.processors.format_exc_info, _in_order, json]
        case "journal":
            line = structlog.processors.LogfmtRenderer(key_order=["event"])
            return [structlog.processors.format_exc_info, _stay_on_line, _Journal(line)]
    line = structlog.processors.LogfmtRenderer(key_order=_FIRST)
    return [stamp, structlog.processors.format_exc_info, _stay_on_line, line]


class _Journal:
    """Puts the level before a line, where the journal wants it; it knows the time itself."""

    def __init__(self, line: structlog.processors.LogfmtRenderer) -> None:
        self._line = line

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> str:
        priority = _PRIORITIES[event.pop("level")]
        return f"<{priority}>{self._line(logger, method, event)}"


def _in_order(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    return {**{key: event[key] for key in _FIRST}, **event}


def _stay_on_line(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Writes line breaks and whatever else is not text as escapes."""
    for key, value in event.items():
        if value is None or isinstance(value, bool | int | float) or key == "exc_info":
            continue
        text = str(value)
        event[key] = text if text.isprintable() else _printable(text)
    return event


def _printable(text: str) -> str:
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _print_traceback(stream: TextIO, exception: ExcInfo) -> None:
    """Writes a traceback of which no line looks like the beginning of an event."""
    text = "".join(traceback.format_exception(*exception))
    stream.writelines(f"\n    {_printable(line)}" for line in text.rstrip("\n").split("\n"))
