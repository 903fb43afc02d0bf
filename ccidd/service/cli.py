# SPDX-License-Identifier: Apache-2.0
"""The command line of `ccidd`.

Source: QEMU, docs/interop/vhost-user.rst, "Backend program conventions": one process in the
foreground, the options for sockets and capabilities, exit status 2 for wrong options.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from ccidd import __version__
from ccidd.errors import UserError
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.check import command
from ccidd.service.configfile import AWAITED_FD, DEFAULT_FILE, load_configuration
from ccidd.service.configuration import TRANSPORTS, Configuration, ReaderConfiguration
from ccidd.service.daemon import serve
from ccidd.service.log import LEVELS, configure_log
from ccidd.service.opening import ReaderOpener
from ccidd.service.options import PCSC, card_help, parse_card, parse_reader, reader_help
from ccidd.service.parser import (
    OneLineParser,
    add_state_options,
    open_standard_streams,
    open_state_in,
    path,
    told_in_one_line,
)
from ccidd.service.service import Service
from ccidd.transport.endpoint import take_systemd_fds

# What says where a reader is, and what it is like; a configuration file says it itself.
_SOCKETS: Final = ("socket_path", "fd", "connect")
_READERS: Final = ("transport", "reader", "card", "trace", "unsafe_trace_secrets")

_DESCRIPTION: Final = "A virtual smart-card reader, with its cards, for QEMU's socket chardev."

_EPILOG: Final = """\
One of --socket-path, --fd, --connect, --config, or a socket from systemd is needed. With QEMU:

  ccidd --socket-path=/run/user/1000/card.sock
  qemu-system-x86_64 ... -chardev socket,id=card,path=/run/user/1000/card.sock \\
      -device usb-redir,chardev=card

With reconnect=1 behind the path QEMU comes back after ccidd was restarted.

`ccidd card --help` tells about the cards that ccidd keeps itself, `ccidd check --help` how to find
out what is wrong before it is served.
"""


def main() -> None:
    """The program `ccidd`."""
    arguments = sys.argv[1:]
    open_standard_streams()
    # QEMU's conventions: whatever else is given is ignored.
    if any(argument.startswith("--print-capabilities") for argument in arguments):
        print(json.dumps(capabilities()))  # noqa: T201 (this is what it is for)
        return
    with told_in_one_line("ccidd"):
        if arguments[:1] == ["card"]:
            # What serving does not need takes a third of the time until "ready".
            from ccidd.service import cardcommand  # noqa: PLC0415

            cardcommand.run(arguments[1:])
        elif arguments[:1] == ["check"]:
            _check(arguments[1:])
        else:
            _run(arguments)


def _parser(
    program: str = "ccidd", description: str = _DESCRIPTION, epilog: str = _EPILOG
) -> OneLineParser:
    parser = OneLineParser(
        prog=program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ccidd {__version__}")
    parser.add_argument(
        "--print-capabilities",
        action="store_true",
        help="print what this ccidd can do, in JSON, and ignore all other options",
    )
    sockets = parser.add_mutually_exclusive_group()
    sockets.add_argument(
        "--socket-path", metavar="PATH", type=path, help="listen on a new Unix socket"
    )
    sockets.add_argument(
        "--fd", metavar="N", type=int, help="serve an inherited socket, listening or connected"
    )
    sockets.add_argument(
        "--connect",
        metavar="PATH|HOST:PORT",
        help="connect to a QEMU that listens (server=on), and again whenever the connection ends",
    )
    parser.add_argument(
        "--transport",
        choices=TRANSPORTS,
        help="what QEMU speaks on the socket: usbredir (usb-redir; the default) or vscard"
        " (usb-ccid with ccid-card-passthru); or serial: no QEMU, but a pseudo-terminal for this"
        " host's pcscd, with a link to it at --socket-path",
    )
    parser.add_argument(
        "--reader",
        metavar="OPTION=VALUE,...",
        help="what the reader is like, over usbredir and serial; --reader=help explains",
    )
    parser.add_argument(
        "--card",
        metavar="TYPE,OPTION=VALUE,...",
        action="append",
        default=[],
        help="the card in the next slot (default: an embedded PIV card); --card=help explains",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=path,
        help="instead of all these: a file with any number of readers, in TOML (default:"
        f" {DEFAULT_FILE}, if it is there and no socket is given)",
    )
    add_state_options(parser)
    parser.add_argument(
        "--trace",
        metavar="FILE.pcapng",
        type=path,
        help="write what crosses the front door into a file for Wireshark, without PINs and keys",
    )
    parser.add_argument(
        "--unsafe-trace-secrets",
        action="store_true",
        help="write PINs and keys into the trace as well",
    )
    parser.add_argument("--log-level", choices=LEVELS, help="what to log (default: info)")
    return parser


def _run(arguments: Sequence[str]) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if "help" in options.card or options.reader == "help":
        print(card_help() if "help" in options.card else reader_help())  # noqa: T201 (asked for)
        return
    systemd_fds = take_systemd_fds(os.environ)
    load = None
    try:
        file = _file(options)
        if file is not None:
            load = partial(load_configuration, file, dict(systemd_fds))
            configuration = load()
        else:
            configuration = Configuration((_reader(options, [fd for _name, fd in systemd_fds]),))
    except UserError as error:
        parser.error(str(error))
    configure_log(options.log_level or configuration.log_level or "info")
    directory = options.state_dir or configuration.state_dir
    key_file = options.state_key_file or configuration.state_key_file
    with open_state_in(directory, key_file) as state:
        service = Service(ReaderOpener(state).open, load)
        with contextlib.ExitStack() as failing:
            failing.callback(service.close)
            service.open(configuration)
            failing.pop_all()
        served = trio.run(serve, service)
    if not served:
        sys.exit(1)


def _check(arguments: Sequence[str]) -> None:
    parser = _parser("ccidd check", command.DESCRIPTION, "")
    command.add_options(parser)
    options = parser.parse_args(arguments)
    configuration = None
    try:
        file = _file(options)
        if file is None:
            fds = [] if _sockets(options) else [AWAITED_FD]
            configuration = Configuration((_reader(options, fds),))
    except UserError as error:
        parser.error(str(error))
    command.run(options, configuration, file)


def _sockets(options: argparse.Namespace) -> list[str]:
    """Gives the options that say where a reader is."""
    return [name for name in _SOCKETS if getattr(options, name) is not None]


def _file(options: argparse.Namespace) -> Path | None:
    """Gives the configuration file that is to be used, if one is."""
    sockets = _sockets(options)
    file: Path | None = options.config
    if file is None and not sockets and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    others = [*sockets, *(name for name in _READERS if getattr(options, name))]
    if file is not None and others:
        other = others[0].replace("_", "-")
        raise UserError(f"--{other} is not allowed with the file {file}: put it there")
    return file


def _reader(options: argparse.Namespace, systemd_fds: Sequence[int]) -> ReaderConfiguration:
    sockets = _sockets(options)
    if systemd_fds and sockets:
        option = sockets[0].replace("_", "-")
        raise UserError(f"--{option} is not allowed with a socket from systemd (LISTEN_FDS)")
    if len(systemd_fds) > 1:
        raise UserError(
            f"systemd passed {len(systemd_fds)} sockets; one reader needs one, and several readers"
            " need a file (--config)"
        )
    reader = ReaderConfiguration(
        transport=options.transport or TRANSPORTS[0],
        socket_path=options.socket_path,
        fd=systemd_fds[0] if systemd_fds else options.fd,
        connect=options.connect,
        options={} if options.reader is None else parse_reader(options.reader),
        cards=tuple(parse_card(text) for text in options.card),
        trace=options.trace,
        trace_has_secrets=options.unsafe_trace_secrets,
    )
    reader.check()
    return reader


def capabilities() -> dict[str, object]:
    """What `--print-capabilities` prints: each feature is an option, or an option's value."""
    long_options = [
        string.removeprefix("--")
        for action in _parser()._actions  # noqa: SLF001 (argparse has no public list)
        for string in action.option_strings
        if string.startswith("--")
    ]
    features = [name for name in long_options if name not in {"help", "version"}]
    features.append("listen-fds")
    features += [f"transport-{name}" for name in TRANSPORTS]
    features += [f"card-{name}" for name in (*CARD_TYPES, PCSC)]
    return {"type": "smartcard", "features": sorted(features), "version": __version__}
