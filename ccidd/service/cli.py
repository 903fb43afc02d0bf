# SPDX-License-Identifier: Apache-2.0
"""The command line of `ccidd`.

Source: QEMU, docs/interop/vhost-user.rst, "Backend program conventions": one process in the
foreground, the options for sockets and capabilities, exit status 2 for wrong options.
"""

import argparse
import json
import os
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
import trio

from ccidd import __version__
from ccidd.errors import UserError
from ccidd.reader.profile import Level, ReaderProfile
from ccidd.reader.usb_reader import UsbReader
from ccidd.service import cardcommand, embedded
from ccidd.service.cards import open_stored_card, open_supply
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.cardview import card_view, describe
from ccidd.service.daemon import serve, serve_line, serve_reader
from ccidd.service.log import LEVELS, configure_log
from ccidd.service.options import (
    PCSC,
    CardOptions,
    card_help,
    parse_card,
    parse_reader,
    reader_help,
)
from ccidd.service.parser import (
    OneLineParser,
    add_state_options,
    open_standard_streams,
    open_state,
    path,
    state_directory,
)
from ccidd.service.readers import pin_source, reader_profile, with_pin_entry
from ccidd.service.state import State
from ccidd.service.supply import CardSupply, FixedCard, fill
from ccidd.service.trace import Trace, open_trace
from ccidd.transport.endpoint import (
    Connector,
    Endpoint,
    adopt,
    listen,
    take_systemd_fd,
)
from ccidd.transport.serial import PseudoTerminal, serial_model, serve_serial
from ccidd.transport.sockets import name_of

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_TRANSPORTS: Final = ("usbredir", "vscard", "serial")

_EPILOG: Final = """\
One of --socket-path, --fd, --connect, or a socket from systemd is needed. With QEMU:

  ccidd --socket-path=/run/user/1000/card.sock
  qemu-system-x86_64 ... -chardev socket,id=card,path=/run/user/1000/card.sock \\
      -device usb-redir,chardev=card

With reconnect=1 behind the path QEMU comes back after ccidd was restarted.

`ccidd card --help` tells about the cards that ccidd keeps itself.
"""


def main() -> None:
    """The program `ccidd`."""
    arguments = sys.argv[1:]
    open_standard_streams()
    # QEMU's conventions: whatever else is given is ignored.
    if any(argument.startswith("--print-capabilities") for argument in arguments):
        print(json.dumps(capabilities()))  # noqa: T201 (this is what it is for)
        return
    try:
        if arguments[:1] == ["card"]:
            cardcommand.run(arguments[1:])
        else:
            _run(arguments)
    except UserError as error:
        sys.exit(f"ccidd: {error}")
    except sqlite3.Error as error:
        sys.exit(f"ccidd: cannot use the state: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="ccidd",
        description="A virtual smart-card reader, with its cards, for QEMU's socket chardev.",
        epilog=_EPILOG,
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
        choices=_TRANSPORTS,
        default=_TRANSPORTS[0],
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
    parser.add_argument(
        "--log-level", choices=LEVELS, default="info", help="what to log (default: info)"
    )
    return parser


def _run(arguments: Sequence[str]) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if "help" in options.card or options.reader == "help":
        print(card_help() if "help" in options.card else reader_help())  # noqa: T201 (asked for)
        return
    try:
        systemd_fd = take_systemd_fd(os.environ)
        _check_sockets(options, systemd_fd)
        card_options = [parse_card(text) for text in options.card]
        slot_count = sum(card.slot_count for card in card_options)
        _check_transport(options, slot_count)
        connector = None if options.connect is None else Connector(options.connect)
        reader_options = parse_reader(options.reader) if options.reader else {}
        place = _place(options, systemd_fd)
        profile = _reader_profile(options, reader_options, place, slot_count)
    except UserError as error:
        parser.error(str(error))
    configure_log(options.log_level)
    with open_state(options) as state:
        supplies = _open_supplies(card_options, state)
        pins = pin_source(reader_options)
        slots, fillings = fill(supplies, profile.slots)
        profile = with_pin_entry(profile, pins)
        trace = _open_trace(options, profile)
        open_endpoint = partial(_open_endpoint, options, connector, systemd_fd)
        match options.transport:
            case "serial":
                line = PseudoTerminal(options.socket_path)
                on_line = partial(serve_serial, line, slots, profile, pins, trace)
                trio.run(serve_line, line, slots, on_line, fillings)
                served = True
            case "vscard":
                served = trio.run(serve, open_endpoint, slots[0], fillings, trace)
            case _:
                device = UsbReader(slots, profile, pins, trace)
                served = trio.run(serve_reader, open_endpoint, slots, device, fillings)
    if not served:
        sys.exit(1)


def _open_trace(options: argparse.Namespace, profile: ReaderProfile) -> Trace | None:
    if options.trace is None:
        return None
    with_secrets: bool = options.unsafe_trace_secrets
    return open_trace(options.trace, options.transport, profile, with_secrets=with_secrets)


def _place(options: argparse.Namespace, systemd_fd: int | None) -> str:
    """Names where the reader is served: no two are served at the same place of a host."""
    if chosen := options.socket_path or options.connect:
        return str(chosen)
    fd = options.fd if systemd_fd is None else systemd_fd
    return name_of(fd) or f"{state_directory(options).absolute()}/fd {fd}"


def _reader_profile(
    options: argparse.Namespace, given: Mapping[str, str], place: str, slot_count: int
) -> ReaderProfile:
    if options.transport == "serial":
        if given.get("level", Level.TPDU.value) != Level.TPDU.value:
            raise UserError("--transport=serial exchanges TPDUs alone; leave out --reader=level=…")
        given = {**given, "level": Level.TPDU.value}
    profile = reader_profile(given, cards=max(1, slot_count), place=place)
    if options.transport == "serial":
        return replace(profile, slots=serial_model(profile.slots).slots)
    return profile


def _check_transport(options: argparse.Namespace, slot_count: int) -> None:
    """Holds what the reader is to be against what `vscard` can carry."""
    if options.transport != "vscard":
        return
    if slot_count > 1:
        raise UserError("--transport=vscard has one slot; give --card once")
    if options.reader:
        raise UserError("--transport=vscard has QEMU's own reader; --reader is for usbredir")


def _check_sockets(options: argparse.Namespace, systemd_fd: int | None) -> None:
    """Holds systemd's socket against the options, which argparse has held against each other."""
    given = [
        option
        for option, value in (
            ("--socket-path", options.socket_path),
            ("--fd", options.fd),
            ("--connect", options.connect),
        )
        if value is not None
    ]
    if options.transport == "serial" and options.socket_path is None:
        raise UserError("--transport=serial needs --socket-path=LINK, and no other socket")
    if systemd_fd is None and not given:
        raise UserError("one of --socket-path, --fd or --connect is needed")
    if systemd_fd is not None and given:
        raise UserError(f"{given[0]} is not allowed with a socket from systemd (LISTEN_FDS)")


def _open_supplies(card_options: Sequence[CardOptions], state: State) -> list[CardSupply]:
    if card_options:
        return [open_supply(options, state) for options in card_options]
    record, secrets = embedded.load_or_make(state)
    if secrets is not None and not _stdout_is_journal():
        print(describe(card_view(state, record), secrets), flush=True)  # noqa: T201 (not for the log)
    elif secrets is not None:
        log.info("card_made", hint="`ccidd card reset-pin` gives it a PIN and shows it")
    return [FixedCard(open_stored_card(record, state))]


def _stdout_is_journal() -> bool:
    """Whether what is printed would stay in the journal, for others to read (systemd.exec(5))."""
    status = os.fstat(sys.stdout.fileno())
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _open_endpoint(
    options: argparse.Namespace, connector: Connector | None, systemd_fd: int | None
) -> Endpoint:
    if connector is not None:
        return connector
    if options.socket_path is not None:
        return listen(options.socket_path)
    return adopt(options.fd if systemd_fd is None else systemd_fd)


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
    features += [f"transport-{name}" for name in _TRANSPORTS]
    features += [f"card-{name}" for name in (*CARD_TYPES, PCSC)]
    return {"type": "smartcard", "features": sorted(features), "version": __version__}
