# SPDX-License-Identifier: Apache-2.0
"""The command line of `ccidd`.

Source: QEMU, docs/interop/vhost-user.rst, "Backend program conventions": one process in the
foreground, the options for sockets and capabilities, exit status 2 for wrong options.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from ccidd import __version__
from ccidd.errors import UserError
from ccidd.service.agents import check_agents
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.configfile import AWAITED_FD, DEFAULT_FILE, load_configuration
from ccidd.service.configuration import (
    SANDBOX_MODES,
    TRANSPORTS,
    Configuration,
    ReaderConfiguration,
)
from ccidd.service.control.options import (
    ControlOptions,
    control_help,
    parse_control,
    take_control_fds,
)
from ccidd.service.daemon import start
from ccidd.service.keptsockets import take_kept_sockets
from ccidd.service.log import FORMATS, LEVELS
from ccidd.service.options import PCSC, card_help, parse_card, parse_reader, reader_help
from ccidd.service.parser import (
    OneLineParser,
    add_state_options,
    open_standard_streams,
    path,
    told_in_one_line,
)
from ccidd.transport.endpoint import take_systemd_fds

# What says where a reader is, and what it is like; a configuration file says it itself.
_SOCKETS: Final = ("socket_path", "fd", "listen", "connect")
_READERS: Final = (
    "tls_creds",
    "tls_hostname",
    "insecure_tcp",
    "socket_mode",
    "socket_group",
    "allow",
    "transport",
    "reader",
    "card",
    "trace",
    "unsafe_trace_secrets",
)

_DESCRIPTION: Final = "A virtual smart-card reader, with its cards, for QEMU's socket chardev."

_EPILOG: Final = """\
One of --socket-path, --fd, --listen, --connect, --config, or a socket from systemd is needed. With
QEMU:

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
        "--listen", metavar="HOST:PORT", help="listen on a TCP port, with --tls-creds"
    )
    sockets.add_argument(
        "--connect",
        metavar="PATH|HOST:PORT",
        help="connect to a QEMU that listens (server=on), and again whenever the connection ends",
    )
    parser.add_argument(
        "--tls-creds",
        metavar="DIR",
        type=path,
        help="TCP is for TLS 1.3 with certificates on both sides: the directory with ours, and with"
        " the authorities of our peers, as QEMU's tls-creds-x509 has them",
    )
    parser.add_argument(
        "--tls-hostname",
        metavar="NAME",
        help="whose certificate the QEMU must have that we connect to (default: the HOST's)",
    )
    parser.add_argument(
        "--insecure-tcp",
        metavar="on|off",
        choices=("on", "off"),
        help="TCP without TLS: whoever reaches the connection can use the cards, read along and"
        " change what is said",
    )
    parser.add_argument(
        "--socket-mode",
        metavar="MODE",
        help="the mode of the socket at --socket-path, in octal (default: 0600)",
    )
    parser.add_argument(
        "--socket-group",
        metavar="GROUP",
        help="the group that it belongs to, with --socket-mode=0660 for example",
    )
    parser.add_argument(
        "--allow",
        metavar="uid:USER|gid:GROUP|cert:SUBJECT",
        action="append",
        default=[],
        help="who may be at the other end: of a Unix socket, by name or number (default: whoever"
        " can connect); of TLS, by a certificate's subject or SHA-256 fingerprint (default: whoever"
        " has a valid certificate); may be repeated",
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
        "--control",
        metavar="PATH,OPTION=VALUE,...",
        action="append",
        default=[],
        help="a socket through which ccidd is seen and told what to do while it runs, in the form"
        " of QEMU's QMP; may be repeated; --control=help explains",
    )
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
    parser.add_argument(
        "--metrics-file",
        metavar="PATH",
        type=path,
        help="write counters and latencies into a file, as OpenMetrics text, every 15 seconds",
    )
    parser.add_argument(
        "--sandbox",
        choices=SANDBOX_MODES,
        help="give up what the configuration does not need: files, programs, sockets, system calls;"
        " auto (the default): as far as it works here; on: or do not start; off: nothing",
    )
    parser.add_argument(
        "--sandbox-path",
        metavar="PATH",
        type=path,
        action="append",
        default=[],
        help="what ccidd, a PKCS#11 module or a pinentry may use beside it, with all beneath it",
    )
    parser.add_argument("--log-level", choices=LEVELS, help="what to log (default: info)")
    parser.add_argument(
        "--log-format",
        choices=FORMATS,
        help="how to log: for people (console), as key=value (logfmt), as json, or with levels for"
        " systemd's journal; default: what suits standard error (auto)",
    )
    return parser


def _run(arguments: Sequence[str]) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if "help" in options.card or options.reader == "help":
        print(card_help() if "help" in options.card else reader_help())  # noqa: T201 (asked for)
        return
    if "help" in options.control:
        print(control_help())  # noqa: T201 (asked for)
        return
    kept, systemd_fds = take_kept_sockets(take_systemd_fds(os.environ))
    control, systemd_fds = take_control_fds(systemd_fds)
    load = None
    try:
        control += [parse_control(text) for text in options.control]
        file = _file(options)
        if file is not None:
            load = partial(_loaded, file, dict(systemd_fds), options, control)
            configuration = load()
        else:
            reader = _reader(options, [fd for _name, fd in systemd_fds])
            configuration = _completed(Configuration((reader,)), options, control)
    except UserError as error:
        parser.error(str(error))
    if not start(configuration, file, load, kept):
        sys.exit(1)


def _loaded(
    file: Path,
    systemd_fds: Mapping[str, int],
    options: argparse.Namespace,
    control: Sequence[ControlOptions],
) -> Configuration:
    return _completed(load_configuration(file, systemd_fds), options, control)


def _completed(
    configuration: Configuration, options: argparse.Namespace, control: Sequence[ControlOptions]
) -> Configuration:
    """Adds what the command line says, which stands over what a file says."""
    completed = replace(
        configuration,
        state_dir=options.state_dir or configuration.state_dir,
        state_key_file=options.state_key_file or configuration.state_key_file,
        log_level=options.log_level or configuration.log_level,
        log_format=options.log_format or configuration.log_format,
        metrics_file=options.metrics_file or configuration.metrics_file,
        control=(*control, *configuration.control),
        sandbox=options.sandbox or configuration.sandbox,
        sandbox_paths=(*options.sandbox_path, *configuration.sandbox_paths),
    )
    check_agents(completed)
    return completed


def _check(arguments: Sequence[str]) -> None:
    # Nor does serving need this.
    from ccidd.service.check import command  # noqa: PLC0415

    parser = command.check_parser(_parser)
    options = parser.parse_args(arguments)
    configuration = None
    try:
        control = tuple(parse_control(text) for text in options.control)
        file = _file(options)
        if file is None:
            fds = [] if _sockets(options) else [AWAITED_FD]
            configuration = Configuration((_reader(options, fds),))
    except UserError as error:
        parser.error(str(error))
    command.run(options, configuration, file, control)


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
        listen=options.listen,
        tls_creds=options.tls_creds,
        tls_hostname=options.tls_hostname,
        insecure_tcp=options.insecure_tcp == "on",
        socket_mode=options.socket_mode,
        socket_group=options.socket_group,
        allow=tuple(options.allow),
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
