# SPDX-License-Identifier: Apache-2.0
"""What a ccidd is told to serve, by its command line or by a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ccidd.errors import UserError
from ccidd.reader.profile import Level, ReaderProfile
from ccidd.service.allow import group_number, parse_allow, parse_mode
from ccidd.service.guards import guard_rules
from ccidd.service.options import CardOptions
from ccidd.service.readers import reader_profile
from ccidd.transport.access import Rules
from ccidd.transport.endpoint import host_and_port, tcp_address
from ccidd.transport.serial import serial_model
from ccidd.transport.sockets import is_tcp, name_of

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
                ("listen", self.listen),
                ("connect", self.connect),
            )
            if value is not None
        ]
        if self.transport == "serial" and given != ["socket-path"]:
            raise UserError("--transport=serial needs --socket-path=LINK, and no other socket")
        if not given:
            raise UserError("one of --socket-path, --fd, --listen or --connect is needed")
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
        self._check_access()
        for card in self.cards:
            guard_rules(card)
        self.profile(Path("/"))

    def _check_access(self) -> None:
        for option, value in (
            ("socket-mode", self.socket_mode),
            ("socket-group", self.socket_group),
        ):
            if value is not None and (self.socket_path is None or self.transport == "serial"):
                raise UserError(f"--{option} is for the socket that --socket-path makes")
        if self.allow and self.transport == "serial":
            raise UserError("--transport=serial has a pseudo-terminal; --allow is for sockets")
        if self.socket_mode is not None:
            parse_mode(self.socket_mode)
        if self.socket_group is not None:
            group_number(self.socket_group, f"--socket-group={self.socket_group}")
        rules = parse_allow(self.allow)
        if self._is_tcp:
            self._check_tcp(rules)
            return
        for option, is_given in (
            ("allow=cert:…", rules.are_for_certificates),
            ("tls-creds", self.tls_creds is not None),
            ("tls-hostname", self.tls_hostname is not None),
            ("insecure-tcp", self.insecure_tcp),
        ):
            if is_given:
                raise UserError(f"--{option} is for TCP")

    def _check_tcp(self, rules: Rules) -> None:
        if rules.are_for_processes:
            raise UserError("--allow=uid:… and gid:… are for Unix sockets: TCP tells no users")
        if self.tls_hostname is not None and self.connect is None:
            raise UserError("--tls-hostname is for --connect=HOST:PORT")
        if self.tls_creds is None and not self.insecure_tcp:
            raise UserError(
                "TCP is for TLS: give certificates as QEMU's tls-creds-x509 has them by"
                " --tls-creds=DIR, or do without by --insecure-tcp=on, and whoever reaches the"
                " connection can use the cards, read along and change what is said"
            )
        if self.tls_creds is not None and self.insecure_tcp:
            raise UserError("--insecure-tcp=on is not allowed with --tls-creds")
        if self.tls_creds is None and (rules.are_for_certificates or self.tls_hostname):
            raise UserError("--allow=cert:… and --tls-hostname go with --tls-creds")

    @property
    def _is_tcp(self) -> bool:
        if self.listen is not None:
            host_and_port(self.listen, "--listen=")
            return True
        if self.connect is not None:
            return tcp_address(self.connect, "--connect=") is not None
        return self.fd is not None and bool(is_tcp(self.fd))

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
    """

    readers: tuple[ReaderConfiguration, ...]
    state_dir: Path | None = None
    state_key_file: Path | None = None
    log_level: str | None = None
