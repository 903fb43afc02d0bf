# SPDX-License-Identifier: Apache-2.0
"""What a ccidd is told to serve, by its command line or by a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ccidd.reader.profile import MAX_SLOTS, Level, ReaderProfile
from ccidd.service.guards import guard_rules
from ccidd.service.options import ANY_TOKEN_SLOTS, CardOptions
from ccidd.service.readers import check_pin_source, reader_profile
from ccidd.service.where import COMMAND_LINE, Where
from ccidd.transport.endpoint import Connector
from ccidd.transport.serial import serial_model
from ccidd.transport.sockets import name_of

ONLY_READER: Final = "reader"
"""The name of a reader that has none, being the only one."""

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
        where: where it is from, for messages.
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
    where: Where = field(default=COMMAND_LINE, compare=False, repr=False)

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
        self._check_sockets()
        if self.transport == "vscard":
            self._check_vscard()
        if self.connect is not None:
            with self.where.naming("connect"):
                Connector(self.connect, where="")
        count = 0
        for card in self.cards:
            guard_rules(card)
            count += card.slot_count
            if count > MAX_SLOTS:
                raise card.where.error(
                    f"with this one the cards have {count} slots, and a reader has at most"
                    f" {MAX_SLOTS}; token=any has {ANY_TOKEN_SLOTS}, unless slots= says otherwise"
                )
            if self.transport == "serial" and card.looks_everywhere:
                # One shows this host's readers, and with them the cards that are served here.
                raise card.where.error(
                    "over serial this is a reader of this host: say which PKCS#11 modules to look"
                    " in, other than one for its readers (module=PATH)",
                    "token",
                )
        check_pin_source(self.options, self.where.within("reader"))
        if self.trace_has_secrets and self.trace is None:
            raise self.where.error(
                f"this goes with {self.where.name('trace')}", "unsafe-trace-secrets"
            )
        self.profile(Path("/"))

    def _check_sockets(self) -> None:
        sockets = {"socket-path": self.socket_path, "fd": self.fd, "connect": self.connect}
        name = self.where.name
        given = [option for option, value in sockets.items() if value is not None]
        if self.transport == "serial" and given != ["socket-path"]:
            raise self.where.error(
                f"serial needs {name('socket-path')}=LINK, and no other socket", "transport"
            )
        if not given:
            raise self.where.error(
                f"one of {name('socket-path')}, {name('fd')} or {name('connect')} is needed"
            )
        if len(given) > 1:
            raise self.where.error(f"this is not allowed with {name(given[0])}", given[1])

    def _check_vscard(self) -> None:
        if self.slot_count > 1:
            raise self.where.error(
                "vscard has one slot; give it one card, and token=any with slots=1", "transport"
            )
        if self.options:
            raise self.where.error("vscard has QEMU's own reader; this is for usbredir", "reader")

    def profile(self, state_directory: Path) -> ReaderProfile:
        """Gives the profile of the reader.

        Args:
            state_directory: names a reader on a socket that has no name itself.

        Raises:
            UserError: A value is none that the option can have.
        """
        options = self.options
        where = self.where.within("reader")
        if self.transport == "serial":
            if options.get("level", Level.TPDU.value) != Level.TPDU.value:
                raise where.error("serial exchanges TPDUs alone: leave this out", "level")
            options = {**options, "level": Level.TPDU.value}
        place = self._place(state_directory)
        profile = reader_profile(options, cards=self.slot_count, place=place, where=where)
        if self.transport == "serial":
            with self.where.naming("transport"):
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
    """

    readers: tuple[ReaderConfiguration, ...]
    state_dir: Path | None = None
    state_key_file: Path | None = None
    log_level: str | None = None
