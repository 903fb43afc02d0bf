# SPDX-License-Identifier: Apache-2.0
"""Reads a configuration file: TOML, with the names of the command line's options.

    state-dir = "/var/lib/ccidd"

    [readers.alice]
    socket-path = "/run/ccidd/alice.sock"
    reader = { level = "short" }
    cards = [{ type = "piv", card = "alice" }]

A switch may be true or false, and an option that may be repeated has a list. A reader with no
socket takes the descriptor of its name from systemd.

Source: TOML 1.0.0.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ccidd.errors import UserError
from ccidd.service.configtable import Table
from ccidd.service.configuration import (
    SANDBOX_MODES,
    TRANSPORTS,
    Configuration,
    ReaderConfiguration,
)
from ccidd.service.log import LEVELS
from ccidd.service.options import CardOptions, make_card, make_reader

DEFAULT_FILE: Final = Path("/etc/ccidd/ccidd.toml")

_GLOBAL: Final = (
    "log-level",
    "readers",
    "sandbox",
    "sandbox-path",
    "state-dir",
    "state-key-file",
)
_READER: Final = (
    "cards",
    "connect",
    "fd",
    "reader",
    "socket-path",
    "trace",
    "transport",
    "unsafe-trace-secrets",
)


def load_configuration(file: Path, systemd_fds: Mapping[str, int]) -> Configuration:
    """Reads a configuration file.

    Args:
        file: the file.
        systemd_fds: the descriptors that systemd passed, by their names.

    Raises:
        UserError: It cannot be read, or something in it is wrong: the message names the file and
            the line or the key.
    """
    try:
        values = tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: {error}") from error
    table = Table(f"{file}", values, _GLOBAL)
    readers = table.table("readers")
    unused = sorted(set(systemd_fds).difference(readers))
    if unused:
        raise UserError(f"{file}: systemd passed the socket {unused[0]!r}, but no reader has it")
    configuration = Configuration(
        tuple(_reader(name, readers.table(name, _READER), systemd_fds) for name in readers),
        state_dir=table.path("state-dir"),
        state_key_file=table.path("state-key-file"),
        log_level=table.choice("log-level", LEVELS),
        sandbox=table.choice("sandbox", SANDBOX_MODES),
        sandbox_paths=table.paths("sandbox-path"),
    )
    if not configuration.readers:
        raise UserError(f"{file}: there is no reader; begin one with [readers.NAME]")
    _check_places(file, configuration.readers)
    return configuration


def _reader(name: str, table: Table, systemd_fds: Mapping[str, int]) -> ReaderConfiguration:
    sockets = [key for key in ("socket-path", "connect", "fd") if key in table]
    if name in systemd_fds and sockets:
        raise UserError(f"{table.where}: systemd passed its socket; leave out {sockets[0]}")
    reader_options = table.table("reader")
    try:
        options = make_reader(reader_options.assignments())
    except UserError as error:
        raise UserError(f"{reader_options.where}: {error}") from error
    reader = ReaderConfiguration(
        name=name,
        transport=table.choice("transport", TRANSPORTS) or TRANSPORTS[0],
        socket_path=table.path("socket-path"),
        fd=systemd_fds.get(name, table.number("fd")),
        connect=table.text("connect"),
        options=options,
        cards=tuple(_card(card) for card in table.tables("cards")),
        trace=table.path("trace"),
        trace_has_secrets=table.switch("unsafe-trace-secrets"),
    )
    try:
        reader.check()
    except UserError as error:
        raise UserError(f"{table.where}: {error}") from error
    return reader


def _card(table: Table) -> CardOptions:
    kind = table.text("type")
    if kind is None:
        table.refuse("type", "there: piv, cac, ...")
    try:
        return make_card(kind, table.assignments(without={"type"}))
    except UserError as error:
        raise UserError(f"{table.where}: {error}") from error


def _check_places(file: Path, readers: Iterable[ReaderConfiguration]) -> None:
    used: dict[object, str | None] = {}
    for reader in readers:
        place = reader.socket_path or reader.connect or reader.fd
        if place in used:
            raise UserError(
                f"{file}: the readers {used[place]} and {reader.name} are both at {place}"
            )
        used[place] = reader.name
