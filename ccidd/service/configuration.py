# SPDX-License-Identifier: Apache-2.0
"""What a ccidd is told to serve, by its command line or by a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ccidd.reader.profile import MAX_SLOTS, Level, ReaderProfile
from ccidd.service.allow import group_number, parse_allow, parse_mode
from ccidd.service.control.options import ControlOptions
from ccidd.service.guards import guard_rules
from ccidd.service.options import ANY_TOKEN_SLOTS, CardOptions
from ccidd.service.readers import check_pin_source, reader_profile
from ccidd.service.where import COMMAND_LINE, Where
from ccidd.transport.access import Rules
from ccidd.transport.endpoint import host_and_port, tcp_address
from ccidd.transport.serial import serial_model
from ccidd.transport.sockets import is_tcp, name_of

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
        listen: the TCP port to listen at.
        tls_creds: the directory with certificates for TCP.
        tls_hostname: whose certificate is expected, if not that of the host in `connect`.
        insecure_tcp: whether TCP goes without TLS.
        socket_mode: the mode of the socket at `socket_path`, in octal digits.
        socket_group: the group of the socket at `socket_path`, by its name or number.
        allow: who may connect, as `--allow` has it; nothing for everybody who can.
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
    listen: str | None = None
    tls_creds: Path | None = None
    tls_hostname: str | None = None
    insecure_tcp: bool = False
    socket_mode: str | None = None
    socket_group: str | None = None
    allow: tuple[str, ...] = ()
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
        self._check_access()
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
        sockets = {
            "socket-path": self.socket_path,
            "fd": self.fd,
            "listen": self.listen,
            "connect": self.connect,
        }
        name = self.where.name
        given = [option for option, value in sockets.items() if value is not None]
        if self.transport == "serial" and given != ["socket-path"]:
            raise self.where.error(
                f"serial needs {name('socket-path')}=LINK, and no other socket", "transport"
            )
        if not given:
            raise self.where.error(
                f"one of {name('socket-path')}, {name('fd')}, {name('listen')} or"
                f" {name('connect')} is needed"
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

    def _check_access(self) -> None:
        where = self.where
        for option, value in (
            ("socket-mode", self.socket_mode),
            ("socket-group", self.socket_group),
        ):
            if value is not None and (self.socket_path is None or self.transport == "serial"):
                raise where.error(
                    f"this is for the socket that {where.name('socket-path')} makes", option
                )
        if self.allow and self.transport == "serial":
            raise where.error("this is for sockets; serial has a pseudo-terminal", "allow")
        if self.socket_mode is not None:
            with where.naming("socket-mode"):
                parse_mode(self.socket_mode)
        if self.socket_group is not None:
            with where.naming("socket-group"):
                group_number(self.socket_group)
        with where.naming("allow"):
            rules = parse_allow(self.allow)
        if self._is_tcp:
            self._check_tcp(rules)
            return
        for option, is_given in (
            ("allow", rules.are_for_certificates),
            ("tls-creds", self.tls_creds is not None),
            ("tls-hostname", self.tls_hostname is not None),
            ("insecure-tcp", self.insecure_tcp),
        ):
            if is_given:
                raise where.error("this is for TCP", option)

    def _check_tcp(self, rules: Rules) -> None:
        where, name = self.where, self.where.name
        if rules.are_for_processes:
            raise where.error("uid:… and gid:… are for Unix sockets: TCP tells no users", "allow")
        if self.tls_hostname is not None and self.connect is None:
            raise where.error(f"this is for {name('connect')}=HOST:PORT", "tls-hostname")
        if self.tls_creds is None and not self.insecure_tcp:
            raise where.error(
                "TCP is for TLS: give certificates as QEMU's tls-creds-x509 has them by"
                f" {name('tls-creds')}=DIR, or do without by {name('insecure-tcp')}=on, and whoever"
                " reaches the connection can use the cards, read along and change what is said"
            )
        if self.tls_creds is not None and self.insecure_tcp:
            raise where.error(f"this is not allowed with {name('tls-creds')}", "insecure-tcp")
        if self.tls_creds is None and (rules.are_for_certificates or self.tls_hostname):
            raise where.error(
                f"{name('allow')}=cert:… and {name('tls-hostname')} go with {name('tls-creds')}"
            )

    @property
    def _is_tcp(self) -> bool:
        if self.listen is not None:
            with self.where.naming("listen"):
                host_and_port(self.listen)
            return True
        if self.connect is not None:
            with self.where.naming("connect"):
                return tcp_address(self.connect) is not None
        return self.fd is not None and bool(is_tcp(self.fd))

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
        if self.listen is not None or self.connect is not None:
            return self.listen or self.connect or ""
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
        control: the control sockets.
        log_format: how to log it.
        metrics_file: where the statistics are written.
        sandbox: how ccidd is confined, one of `SANDBOX_MODES`.
        sandbox_paths: what is left to it beside what the readers need.
    """

    readers: tuple[ReaderConfiguration, ...]
    state_dir: Path | None = None
    state_key_file: Path | None = None
    log_level: str | None = None
    control: tuple[ControlOptions, ...] = ()
    log_format: str | None = None
    metrics_file: Path | None = None
    sandbox: str | None = None
    sandbox_paths: tuple[Path, ...] = ()
