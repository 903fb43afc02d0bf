# SPDX-License-Identifier: Apache-2.0
"""The command line of `ccidctl`."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import trio

from ccidd import __version__
from ccidd.dumps import forbid_dumps
from ccidd.errors import UserError
from ccidd.reader.pinentry.program import PinentryProgram
from ccidd.service.completion import SHELLS, completion
from ccidd.service.ctl import tables
from ccidd.service.ctl.agent import Agent, Person
from ccidd.service.ctl.client import Client, connected, default_socket, keep_connected
from ccidd.service.ctl.commands import Subparsers, add_commands, execute
from ccidd.service.ctl.summary import for_people
from ccidd.service.ctl.terminal import Terminal
from ccidd.service.ctl.watch import watch
from ccidd.service.log import configure_log
from ccidd.service.parser import OneLineParser, open_standard_streams, path, told_in_one_line

_EXIT_SIGPIPE: Final = 128 + signal.SIGPIPE

_EPILOG: Final = """\
`ccidctl COMMAND --help` tells about each command. ccidd has a control socket where it is started
with --control=PATH, or by its systemd units:

  ccidd --socket-path=/tmp/card.sock --control=/tmp/control.sock
  ccidctl --socket=/tmp/control.sock slots
"""


def main() -> None:
    """The program `ccidctl`."""
    open_standard_streams()
    with told_in_one_line("ccidctl"):
        try:
            _run(sys.argv[1:])
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read it has enough. Python would complain when it writes the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(_EXIT_SIGPIPE)


def make_parser() -> OneLineParser:
    """Makes the parser of the command line."""
    common = OneLineParser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    _add_common(common)
    parser = OneLineParser(
        prog="ccidctl",
        description="See what a ccidd does, tell it what to do, and answer what it asks.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ccidctl {__version__}")
    _add_common(parser)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_commands(commands, common)
    _add_watch(commands, common)
    _add_agent(commands, common)
    help_ = "print what makes a shell complete the arguments of ccidctl"
    shells = commands.add_parser("completion", help=help_, description=help_, allow_abbrev=False)
    shells.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    shells.set_defaults(run=_print_completion)
    return parser


def _add_common(parser: OneLineParser) -> None:
    parser.add_argument(
        "--socket",
        metavar="PATH",
        type=path,
        help="ccidd's control socket (default: $CCIDD_CONTROL, else"
        " $XDG_RUNTIME_DIR/ccidd/control.sock if it is there, else /run/ccidd/control.sock)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print what ccidd returns as it is, in JSON"
    )


def _add_watch(commands: Subparsers, common: OneLineParser) -> None:
    parser = commands.add_parser(
        "watch",
        parents=[common],
        help="follow what happens, one event a line",
        description="Follow what happens, one event a line, until ccidd ends.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--reconnect", action="store_true", help="wait for a ccidd that has ended to come back"
    )
    parser.set_defaults(run=_watch)


def _add_agent(commands: Subparsers, common: OneLineParser) -> None:
    parser = commands.add_parser(
        "agent",
        parents=[common],
        help="answer requests for PINs and consent, at this terminal or in a window",
        description="Answer requests for PINs and consent (--reader=pin-entry=agent and"
        " --card=...,confirm-with=agent of ccidd) at this terminal, or through a pinentry. A ccidd"
        " that has ended is waited for.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--pinentry",
        metavar="PROGRAM",
        nargs="?",
        const="pinentry",
        help="ask through a pinentry, in a window of the desktop session (default: pinentry)",
    )
    parser.set_defaults(run=_agent)


def _run(arguments: Sequence[str]) -> None:
    options = make_parser().parse_args(arguments)
    run = getattr(options, "run", _ask)
    run(options)


def _socket(options: argparse.Namespace) -> Path:
    chosen: Path | None = options.socket
    return chosen or default_socket(os.environ)


def _show(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (what it is for)


def _tell(line: str) -> None:
    print(f"ccidctl: {tables.printable(line)}", file=sys.stderr, flush=True)  # noqa: T201 (for people)


def _print_completion(options: argparse.Namespace) -> None:
    _show(completion(make_parser(), options.shell).rstrip())


def _ask(options: argparse.Namespace) -> None:
    async def ask() -> str:
        async with connected(_socket(options)) as client:
            value = await execute(client, options)
        if options.json:
            return json.dumps(value, indent=2, ensure_ascii=False)
        if value == {}:
            return ""
        return tables.whole(for_people(options.execute, value), tables.terminal_width())

    if shown := trio.run(ask):
        _show(shown)


def _watch(options: argparse.Namespace) -> None:
    serve = partial(watch, show=_show, as_json=options.json)
    trio.run(partial(keep_connected, _socket(options), serve, _tell, reconnects=options.reconnect))


def _agent(options: argparse.Namespace) -> None:
    configure_log("warning")
    # What is typed is a secret.
    forbid_dumps()
    person: Person = Terminal() if options.pinentry is None else PinentryProgram(options.pinentry)
    failure: UserError | None = None

    async def serve(client: Client) -> NoReturn:
        await Agent(client, person, _tell).run()

    async def follow(program: trio.CancelScope) -> None:
        nonlocal failure
        try:
            await keep_connected(_socket(options), serve, _tell, as_agent=True, reconnects=True)
        except UserError as error:
            failure = error
            program.cancel()

    async def run() -> None:
        # A terminal must get its echo back, whatever ends this.
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow, nursery.cancel_scope)
                async for _number in signals:
                    break
                nursery.cancel_scope.cancel()

    trio.run(run)
    if failure is not None:
        raise failure
