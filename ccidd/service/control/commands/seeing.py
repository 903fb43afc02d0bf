# SPDX-License-Identifier: Apache-2.0
"""Commands about what is counted, traced and logged."""

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

from ccid_protocol.qmp import JSON
from ccidd.errors import UserError
from ccidd.service.control.commands.lookup import find_reader
from ccidd.service.control.context import Context
from ccidd.service.control.errors import CommandError
from ccidd.service.control.registry import command
from ccidd.service.control.roles import Role
from ccidd.service.log import set_log_level as set_level


class LogLevel(enum.StrEnum):
    """What is logged: events of a level, and of those behind it."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@command(Role.OBSERVE)
async def query_stats(context: Context) -> Mapping[str, JSON]:
    """Tells what was counted in each slot: commands, key operations, failures, and their times."""
    await trio.lowlevel.checkpoint()
    return context.service.statistics.snapshot()


@command(Role.OPERATE)
async def trace_start(
    context: Context, *, file: str, reader: str | None = None, with_secrets: bool = False
) -> None:
    """Begins to write what crosses the front door of a reader into a file for Wireshark."""
    path = Path(file)
    if not path.is_absolute():
        raise CommandError("the file of a trace is named by its absolute path, as ccidd sees it")
    place = find_reader(context, reader)
    if context.service.sandbox is not None:
        try:
            context.service.sandbox.check_new_file(path)
        except UserError as error:
            raise CommandError(f"{error} with --sandbox-path={path.parent}") from error
    await place.start_trace(path, with_secrets=with_secrets)


@command(Role.OPERATE)
async def trace_stop(context: Context, *, reader: str | None = None) -> None:
    """Ends the trace of a reader, and waits a while until it is written."""
    await find_reader(context, reader).stop_trace()


@command(Role.OPERATE)
async def set_log_level(context: Context, *, level: LogLevel) -> None:  # noqa: ARG001 (it is everybody's log)
    """Has what is below a level left out of the log from now on, until ccidd ends."""
    await trio.lowlevel.checkpoint()
    set_level(level.value)


COMMANDS: Final = (query_stats, trace_start, trace_stop, set_log_level)
