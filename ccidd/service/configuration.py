# SPDX-License-Identifier: Apache-2.0
"""What a ccidd is told to serve, by its command line or by a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ccidd.errors import UserError
from ccidd.reader.profile import Level, ReaderProfile
from ccidd.service.guards import guard_rules
from ccidd.service.options import CardOptions
from ccidd.service.readers import reader_profile
from ccidd.transport.endpoint import Connector
from ccidd.transport.serial import serial_model
from ccidd.transport.sockets import name_of

ONLY_READER: Final = "reader"
"""The name of a reader that has none, being the only one."""

SANDBOX_MODES: Final = ("auto", "on", "off")

TRANSPORTS: Final = ("usbredir", "vscard", "serial")


@dataclass(frozen=True, slots=True)
class ReaderConfiguration:
    """One reader with its cards.

    Attributes:
        name: what to call it, where there are several.
        transport: one of `TRANSPORTS`.
        socket_path: the socket to listen at, or with `serial` the link to make.
        fd: an inherited socket; a descriptor that systemd passed is one as well.
        connect: where to connect to.
        options: what the reader is like, as `--reader` has it.
        cards: the cards in its slots; none stand for the embedded card.
        trace: the file for a trace.
        trace_has_secrets: whether PINs and keys are written into it.
    """

    name: str | None = None
    transport: str = TRANSPORTS[0]
    socket_path: Path | None = None
    fd: int | None = None
    connect: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    cards: tuple[CardOptions, ...] = ()
    trace: Path | None = None
    trace_has_secrets: bool = False

    @property
    def key(self) -> str:
        """Its name, also where it is the only one."""
        return self.name or ONLY_READER

    @property
    def slot_count(self) -> int:
        """How many slots the cards fill."""
        return max(1, sum(card.slot_count for card in self.cards))

    def check(self) -> None:
        """Holds all against each other.

        Raises:
            UserError: What was given cannot go together, or something is missing.
        """
        given = [
            option
            for option, value in (
                ("socket-path", self.socket_path),
                ("fd", self.fd),
                ("connect", self.connect),
            )
            if value is not None
        ]
        if self.transport == "serial" and given != ["socket-path"]:
            raise UserError("--transport=serial needs --socket-path=LINK, and no other socket")
        if not given:
            raise UserError("one of --socket-path, --fd or --connect is needed")
        if len(given) > 1:
            raise UserError(f"--{given[1]} is not allowed with --{given[0]}")
        if self.transport == "serial" and any(card.looks_everywhere for card in self.cards):
            # One of them shows this host's readers, and with them the cards that are served here.
            raise UserError(
                "--transport=serial makes a reader of this host: say which PKCS#11 modules to look"
                " in, other than one for its readers (--card=...,module=PATH)"
            )
        if self.transport == "vscard" and self.slot_count > 1:
            raise UserError(
                "--transport=vscard has one slot; give --card once, and token=any with slots=1"
            )
        if self.transport == "vscard" and self.options:
            raise UserError("--transport=vscard has QEMU's own reader; --reader is for usbredir")
        if self.connect is not None:
            Connector(self.connect)
        for card in self.cards:
            guard_rules(card)
        self.profile(Path("/"))

    def profile(self, state_directory: Path) -> ReaderProfile:
        """Gives the profile of the reader.

        Args:
            state_directory: names a reader on a socket that has no name itself.

        Raises:
            UserError: A value is none that the option can have.
        """
        options = self.options
        if self.transport == "serial":
            if options.get("level", Level.TPDU.value) != Level.TPDU.value:
                raise UserError(
                    "--transport=serial exchanges TPDUs alone; leave out --reader=level=…"
                )
            options = {**options, "level": Level.TPDU.value}
        place = self._place(state_directory)
        profile = reader_profile(options, cards=self.slot_count, place=place)
        if self.transport == "serial":
            return replace(profile, slots=serial_model(profile.slots).slots)
        return profile

    def _place(self, state_directory: Path) -> str:
        """Names where the reader is served: no two are served at the same place of a host."""
        if self.socket_path is not None:
            return str(self.socket_path)
        if self.connect is not None:
            return self.connect
        assert self.fd is not None
        return name_of(self.fd) or f"{state_directory.absolute()}/fd {self.fd}"


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that a ccidd is told.

    Attributes:
        readers: what to serve.
        state_dir: the state directory, if it is not to be the default.
        state_key_file: the file with the state's key, if there is one.
        log_level: what to log.
        sandbox: how ccidd is confined, one of `SANDBOX_MODES`.
        sandbox_paths: what is left to it beside what the readers need.
    """

    readers: tuple[ReaderConfiguration, ...]
    state_dir: Path | None = None
    state_key_file: Path | None = None
    log_level: str | None = None
    sandbox: str | None = None
    sandbox_paths: tuple[Path, ...] = ()
