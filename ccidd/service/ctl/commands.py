# SPDX-License-Identifier: Apache-2.0
"""The commands of `ccidctl` that ask ccidd for one thing and show what it returns."""

import argparse
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from ccid_protocol.qmp import JSON
from ccidd.errors import UserError
from ccidd.service.configuration import TRANSPORTS
from ccidd.service.ctl.client import Client
from ccidd.service.log import LEVELS
from ccidd.service.options import CardOptions, parse_card, parse_reader
from ccidd.service.parser import OneLineParser, path
from ccidd.service.secretinput import add_secret_options, is_given, secret

Subparsers: TypeAlias = "argparse._SubParsersAction[OneLineParser]"  # noqa: SLF001 (it has no public name)

Arguments: TypeAlias = dict[str, JSON]

Collect: TypeAlias = Callable[[argparse.Namespace], Arguments]
"""Makes a command's arguments of the options; it may ask at the terminal, so it may block."""

_QUERIES: Final[Mapping[str, str]] = {
    "status": "show what ccidd is doing",
    "readers": "list the readers",
    "slots": "list the slots of all readers, and what is in them",
    "cards": "list the cards",
    "connections": "list the guests that are connected",
    "stats": "show what has been counted: commands, errors, times",
    "requests": "list the questions that wait for an agent",
    "commands": "list the commands that this control socket has",
}
"""Commands that are `query-` and their name, with their help."""


async def execute(client: Client, options: argparse.Namespace) -> JSON:
    """Has ccidd execute what the options say, and gives what it returns.

    Raises:
        UserError: It does not.
    """
    collect: Collect = options.collect
    arguments = {name: value for name, value in collect(options).items() if value is not None}
    return await client.execute(options.execute, arguments)


def add_commands(commands: Subparsers, common: OneLineParser) -> None:
    """Adds the commands to a parser.

    Args:
        commands: the subparsers.
        common: the options that each of them has.
    """
    for name, help_ in _QUERIES.items():
        collect = _reader if name == "slots" else _nothing
        query = _add(commands, common, name, f"query-{name}", help_, collect)
        if name == "slots":
            _add_reader_option(query, "only those of this reader")
    _add_card(commands, common)
    _add_readers(commands, common)
    _add_trace(commands, common)
    _add(commands, common, "reload", "reload", "read the configuration file again, as SIGHUP does")
    _add(commands, common, "quit", "quit", "end ccidd; the guests see their cards and readers go")
    level = _add(
        commands,
        common,
        "log-level",
        "set-log-level",
        "say what is logged from now on",
        lambda options: {"level": options.level},
    )
    level.add_argument("level", metavar="LEVEL", choices=LEVELS, help=", ".join(LEVELS))


def _nothing(_options: argparse.Namespace) -> Arguments:
    return {}


def _add(  # noqa: PLR0913, PLR0917 (each is another side of it)
    commands: Subparsers,
    common: OneLineParser,
    name: str,
    execute: str,
    help_: str,
    collect: Collect = _nothing,
) -> OneLineParser:
    parser = commands.add_parser(
        name, parents=[common], help=help_, description=help_, allow_abbrev=False
    )
    parser.set_defaults(execute=execute, collect=collect)
    return parser


def _add_group(commands: Subparsers, name: str, help_: str) -> Subparsers:
    parser = commands.add_parser(name, help=help_, description=help_, allow_abbrev=False)
    return parser.add_subparsers(metavar="COMMAND", required=True)


def _add_card(commands: Subparsers, common: OneLineParser) -> None:
    cards = _add_group(commands, "card", "put cards in, take them out, and see to their PINs")
    for name, help_ in (
        ("insert", "put a card into an empty slot"),
        ("swap", "put a card into a slot in the place of the one that is there"),
    ):
        parser = _add(cards, common, name, f"card-{name}", help_, _place_and_card)
        parser.add_argument(
            "card",
            metavar="TYPE,OPTION=VALUE,...",
            help="the card, as ccidd's --card has it; its files are looked for where ccidd runs",
        )
        _add_place_options(parser)
    _add_place_options(
        _add(cards, common, "remove", "card-remove", "take the card out of a slot", _place)
    )
    change = _add(
        cards, common, "change-pin", "card-change-pin", "change a PIN of a card", _change_pin
    )
    unblock = _add(
        cards,
        common,
        "unblock",
        "card-unblock",
        "give a PIN of a card all tries back, or with the PUK set a new one",
        _unblock,
    )
    for parser in (change, unblock):
        parser.add_argument(
            "card",
            metavar="CARD",
            nargs="?",
            help="the card's name or GUID (default: the card in the slot)",
        )
        _add_place_options(parser)
        parser.add_argument(
            "--which", choices=("pin", "puk", "global"), help="which PIN (default: pin)"
        )
    add_secret_options(change, "pin", "the PIN as it is")
    unblock.add_argument(
        "--with-puk", action="store_true", help="set a new PIN, with the PUK, which is asked for"
    )
    add_secret_options(unblock, "puk", "the PUK")
    for parser in (change, unblock):
        add_secret_options(parser, "new-pin", "the new PIN")


def _add_reader_option(parser: OneLineParser, help_: str) -> None:
    parser.add_argument("--reader", metavar="NAME", help=help_)


def _add_place_options(parser: OneLineParser) -> None:
    _add_reader_option(parser, "the reader (default: the only one)")
    parser.add_argument("--slot", metavar="N", type=int, help="the slot, from 0 on (default: 0)")


def _reader(options: argparse.Namespace) -> Arguments:
    return {"reader": options.reader}


def _place(options: argparse.Namespace) -> Arguments:
    return {"reader": options.reader, "slot": options.slot}


def _place_and_card(options: argparse.Namespace) -> Arguments:
    return {**_place(options), "card": options.card}


def _change_pin(options: argparse.Namespace) -> Arguments:
    name = _name_of(options.which)
    return {
        **_place_and_card(options),
        "which": options.which,
        "pin": _secret_text(options, "pin", name),
        "new-pin": _secret_text(options, "new-pin", f"new {name}", is_new=True),
    }


def _unblock(options: argparse.Namespace) -> Arguments:
    arguments = {**_place_and_card(options), "which": options.which}
    if options.with_puk or is_given(options, "puk") or is_given(options, "new-pin"):
        arguments["puk"] = _secret_text(options, "puk", "PUK")
        arguments["new-pin"] = _secret_text(options, "new-pin", "new PIN", is_new=True)
    return arguments


def _secret_text(options: argparse.Namespace, name: str, what: str, *, is_new: bool = False) -> str:
    entered = secret(options, name, what, is_new=is_new)
    if not entered.isascii():
        raise UserError(f"the {what} has other characters than those of ASCII")
    return entered.decode()


def _name_of(which: str | None) -> str:
    return {"puk": "PUK", "global": "global PIN"}.get(which or "", "PIN")


def _add_readers(commands: Subparsers, common: OneLineParser) -> None:
    readers = _add_group(commands, "reader", "add readers, and take them away")
    add = _add(readers, common, "add", "reader-add", "add a reader, and serve it", _new_reader)
    add.add_argument("name", metavar="NAME", help="the reader's name")
    add.add_argument("--socket-path", metavar="PATH", type=path, help="listen on a new Unix socket")
    add.add_argument("--connect", metavar="PATH|HOST:PORT", help="connect to a QEMU that listens")
    add.add_argument("--transport", choices=TRANSPORTS, help="what QEMU speaks on the socket")
    add.add_argument(
        "--reader-options",
        metavar="OPTION=VALUE,...",
        help="what the reader is like, as ccidd's --reader has it",
    )
    add.add_argument(
        "--card",
        metavar="TYPE,OPTION=VALUE,...",
        action="append",
        help="the card in the next slot, as ccidd's --card has it; may be repeated",
    )
    remove = _add(
        readers,
        common,
        "remove",
        "reader-remove",
        "take a reader away from its guest, and close its socket",
        lambda options: {"reader": options.name},
    )
    remove.add_argument("name", metavar="NAME", help="the reader's name")


def _new_reader(options: argparse.Namespace) -> Arguments:
    configuration: Arguments = {}
    if options.socket_path is not None:
        configuration["socket-path"] = f"{options.socket_path.absolute()}"
    if options.connect is not None:
        configuration["connect"] = options.connect
    if options.transport is not None:
        configuration["transport"] = options.transport
    if options.reader_options is not None:
        configuration["reader"] = dict(parse_reader(options.reader_options))
    if options.card is not None:
        configuration["cards"] = [_card_table(parse_card(text)) for text in options.card]
    return {"reader": options.name, "configuration": configuration}


def _card_table(card: CardOptions) -> JSON:
    """Gives a card as a configuration file has it."""
    values = {name: value[0] if len(value) == 1 else value for name, value in card.values.items()}
    return {"type": card.type, **values}


def _add_trace(commands: Subparsers, common: OneLineParser) -> None:
    traces = _add_group(commands, "trace", "write what crosses a front door into a file, or end it")
    on = _add(
        traces,
        common,
        "on",
        "trace-start",
        "write what crosses the front door of a reader into a new file for Wireshark",
        lambda options: {
            "reader": options.reader,
            "file": f"{options.file.absolute()}",
            "with-secrets": options.unsafe_trace_secrets,
        },
    )
    on.add_argument("file", metavar="FILE.pcapng", type=path, help="the file, where ccidd sees it")
    on.add_argument(
        "--unsafe-trace-secrets", action="store_true", help="write PINs and keys into it as well"
    )
    off = _add(
        traces,
        common,
        "off",
        "trace-stop",
        "end the trace of a reader",
        _reader,
    )
    for parser in (on, off):
        _add_reader_option(parser, "the reader (default: the only one)")
