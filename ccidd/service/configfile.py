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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
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
from ccidd.service.control.options import read_control
from ccidd.service.log import FORMATS, LEVELS
from ccidd.service.options import CardOptions, make_card, make_reader
from ccidd.service.where import PlacedError, in_file

DEFAULT_FILE: Final = Path("/etc/ccidd/ccidd.toml")

AWAITED_FD: Final = -1
"""In the place of a descriptor that is not there yet."""

_SOCKETS: Final = ("socket-path", "connect", "listen", "fd")
_GLOBAL: Final = (
    "control",
    "log-format",
    "log-level",
    "metrics-file",
    "readers",
    "sandbox",
    "sandbox-path",
    "state-dir",
    "state-key-file",
)
READER_KEYS: Final = (
    "allow",
    "cards",
    "connect",
    "fd",
    "insecure-tcp",
    "listen",
    "reader",
    "socket-group",
    "socket-mode",
    "socket-path",
    "tls-creds",
    "tls-hostname",
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
    configuration, tables = _begin(file)
    unused = sorted(set(systemd_fds).difference(tables))
    if unused:
        where = in_file(file)
        raise where.error(f"systemd passed the socket {unused[0]!r}, but no reader has it")
    readers = [read_reader(name, tables.table(name, READER_KEYS), systemd_fds) for name in tables]
    _check_places(readers)
    return replace(configuration, readers=tuple(readers))


def survey_configuration(file: Path) -> tuple[Configuration, Sequence[UserError]]:
    """Reads as much of a configuration file as can be read.

    A reader without a socket is taken for one that systemd is to pass its socket to; that is then
    `AWAITED_FD`.

    Args:
        file: the file.

    Returns:
        All that is right, and what is wrong with each reader that is not.

    Raises:
        UserError: It cannot be read, or something is wrong that is of no reader.
    """
    configuration, tables = _begin(file)
    readers: list[ReaderConfiguration] = []
    problems: list[UserError] = []
    for name in tables:
        try:
            reader = tables.table(name, READER_KEYS)
            has_socket = any(key in reader for key in _SOCKETS)
            readers.append(read_reader(name, reader, {} if has_socket else {name: AWAITED_FD}))
            _check_places(each for each in readers if each.fd != AWAITED_FD)
        except UserError as error:
            problems.append(error)
    return replace(configuration, readers=tuple(readers)), problems


def _begin(file: Path) -> tuple[Configuration, Table]:
    """Reads what is beside the readers, and gives their table."""
    try:
        values = tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlacedError(f"{file}", f"{error}") from error
    table = Table(in_file(file), values, _GLOBAL)
    readers = table.table("readers")
    configuration = Configuration(
        (),
        state_dir=table.path("state-dir"),
        state_key_file=table.path("state-key-file"),
        log_level=table.choice("log-level", LEVELS),
        control=read_control(table),
        log_format=table.choice("log-format", FORMATS),
        metrics_file=table.path("metrics-file"),
        sandbox=table.choice("sandbox", SANDBOX_MODES),
        sandbox_paths=tuple(map(Path, table.texts("sandbox-path"))),
    )
    if not list(readers):
        raise table.where.error("there is no reader; begin one with [readers.NAME]")
    return configuration, readers


def read_reader(name: str, table: Table, systemd_fds: Mapping[str, int]) -> ReaderConfiguration:
    """Reads the table of a reader.

    Args:
        name: its name.
        table: what it is like, with the keys `READER_KEYS`.
        systemd_fds: the descriptors that systemd passed, by their names.

    Raises:
        UserError: Something in it is wrong.
    """
    sockets = [key for key in _SOCKETS if key in table]
    if name in systemd_fds and sockets:
        raise table.where.error("systemd passed its socket: leave this out", sockets[0])
    options = table.table("reader")
    reader = ReaderConfiguration(
        name=name,
        transport=table.choice("transport", TRANSPORTS) or TRANSPORTS[0],
        socket_path=table.path("socket-path"),
        fd=systemd_fds.get(name, table.number("fd")),
        connect=table.text("connect"),
        listen=table.text("listen"),
        tls_creds=table.path("tls-creds"),
        tls_hostname=table.text("tls-hostname"),
        insecure_tcp=table.switch("insecure-tcp"),
        socket_mode=table.text("socket-mode"),
        socket_group=table.text("socket-group"),
        allow=table.texts("allow"),
        options=make_reader(options.assignments(), options.where),
        cards=tuple(read_card(card) for card in table.tables("cards")),
        trace=table.path("trace"),
        trace_has_secrets=table.switch("unsafe-trace-secrets"),
        where=table.where,
    )
    reader.check()
    return reader


def read_card(table: Table) -> CardOptions:
    """Reads the table of a card.

    Raises:
        UserError: Something in it is wrong.
    """
    kind = table.text("type")
    if kind is None:
        table.refuse("type", "there: piv, cac, ...")
    return make_card(kind, table.assignments(without={"type"}), table.where)


def _check_places(readers: Iterable[ReaderConfiguration]) -> None:
    used: dict[object, str | None] = {}
    for reader in readers:
        place = reader.socket_path or reader.listen or reader.connect or reader.fd
        if place in used:
            raise reader.where.error(f"the readers {used[place]} and {reader.name} are at {place}")
        used[place] = reader.name
