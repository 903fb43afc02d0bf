# SPDX-License-Identifier: Apache-2.0
"""What a configuration needs of the machine: files, programs, ports.

A pure function of the configuration and of its surroundings. What is not in its result is taken
away for good when ccidd starts, so a configuration that is read later may need no more than that.

Files are named by their directories, since what is replaced (a certificate that is renewed, a
socket that is made anew) is another file of the same name. Not so where everything else is too, in
home, in /tmp and the like: of what is there, the file itself is named.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from ccidd.keys.uri import parse_uri
from ccidd.service.configuration import Configuration, ReaderConfiguration
from ccidd.service.options import ANY_TOKEN, KEY_OPTION, CardOptions
from ccidd.service.sandbox.surroundings import Surroundings


class Access(enum.Flag):
    """What may be done with a path and all that is beneath it."""

    READ = enum.auto()
    EXECUTE = enum.auto()
    WRITE = enum.auto()
    """All: read, write, make, remove."""
    CREATE = enum.auto()
    """Files may be made, written and removed, but not read."""
    BIND = enum.auto()
    """Sockets and links may be made and removed."""
    DEVICE = enum.auto()
    """Devices may be used."""


_READ_BY_ALL: Final = tuple(
    map(
        Path,
        (
            *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/nix/store"),
            # Who is connected, by its command line; how many processors there are.
            *("/proc", "/sys"),
            # What /etc/resolv.conf may lead to.
            *("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager"),
        ),
    )
)
_DEVICES_OF_ALL: Final = tuple(
    map(Path, ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"))
)
_TERMINALS: Final = (Path("/dev/tty"), Path("/dev/ptmx"), Path("/dev/pts"))
_TOKEN_DEVICES: Final = tuple(map(Path, ("/dev/bus/usb", "/dev/tpmrm0", "/dev/tpm0", "/run/udev")))
_SCREEN_DEVICES: Final = (Path("/dev/dri"), Path("/dev/shm"))  # noqa: S108 (nothing is made there)
_PROGRAMS: Final = tuple(
    map(Path, ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/opt", "/nix/store"))
)

_CROWDED: Final = frozenset(
    map(Path, ("/", "/dev", "/home", "/root", "/run", "/srv", "/tmp", "/var", "/var/tmp"))  # noqa: S108
)
"""Directories in which the file itself is meant."""

_DNS: Final = 53
_AGENT: Final = "agent"
"""The value of options that have an agent ask, and no program."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What is needed, or what there is.

    Attributes:
        paths: what may be done with which files and directories; all are absolute.
        programs: whether other programs are started.
        internet: whether TCP is spoken, other than on sockets that were passed.
        connects_to: TCP ports that are connected to; None for any.
        listens_on: TCP ports that are listened on.
        abstract_sockets: whether sockets are connected to that have no file.
    """

    paths: Mapping[Path, Access] = field(default_factory=dict)
    programs: bool = False
    internet: bool = False
    connects_to: frozenset[int] | None = frozenset()
    listens_on: frozenset[int] = frozenset()
    abstract_sockets: bool = False

    def __or__(self, other: Self) -> "Needs":
        """What both need."""
        paths = dict(self.paths)
        for path, access in other.paths.items():
            paths[path] = paths.get(path, access) | access
        ours, theirs = self.connects_to, other.connects_to
        return Needs(
            paths,
            programs=self.programs or other.programs,
            internet=self.internet or other.internet,
            connects_to=None if ours is None or theirs is None else ours | theirs,
            listens_on=self.listens_on | other.listens_on,
            abstract_sockets=self.abstract_sockets or other.abstract_sockets,
        )

    def beyond(self, granted: "Needs") -> str | None:
        """Tells what of this is not granted, for people; None if all is."""
        if self.programs and not granted.programs:
            return "to start a program (PKCS#11 modules have one each)"
        for path, access in self.paths.items():
            if access & ~granted.access_to(path):
                return f"{path}"
        if self.internet and not granted.internet:
            return "TCP"
        ports = set(self.listens_on - granted.listens_on)
        if granted.connects_to is not None:
            ports |= (self.connects_to or frozenset()) - granted.connects_to
        if ports:
            return f"TCP port {min(ports)}"
        return None

    def access_to(self, path: Path) -> Access:
        """Tells what may be done with a path."""
        access = Access(0)
        for place in (path, *path.parents):
            access |= self.paths.get(place, Access(0))
        if Access.WRITE in access:
            access |= Access.READ | Access.CREATE | Access.BIND
        return access


def needs_of(configuration: Configuration, surroundings: Surroundings) -> Needs:
    """Tells what a configuration needs.

    Args:
        configuration: what is to be served.
        surroundings: what there is on this machine.
    """
    collected = _Collected(surroundings)
    collected.add(Access.READ, *_READ_BY_ALL, *surroundings.python)
    collected.add(Access.DEVICE, *_DEVICES_OF_ALL)
    collected.add(Access.WRITE, surroundings.state)
    if surroundings.credentials is not None:
        collected.add(Access.READ, surroundings.credentials)
    if surroundings.file is not None:
        collected.add_file(surroundings.file)
    for reader in configuration.readers:
        _add_reader(collected, reader)
    return Needs(
        collected.paths,
        programs=collected.programs,
        internet=collected.internet,
        connects_to=None if collected.any_port else frozenset(collected.connects_to),
        # A program may have a window, through an abstract socket of the X server's.
        abstract_sockets=collected.programs or surroundings.abstract_sockets,
    )


class _Collected:
    """What was found to be needed so far."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings: Final = surroundings
        self.paths: dict[Path, Access] = {}
        self.connects_to: set[int] = set()
        self.programs = False
        self.internet = False
        self.any_port = False

    def add(self, access: Access, *paths: Path) -> None:
        """Adds paths with all that is beneath them."""
        for path in paths:
            place = path.absolute()
            self.paths[place] = self.paths.get(place, access) | access

    def add_file(self, file: Path) -> None:
        """Adds a file that is read, and what takes its place."""
        file = file.absolute()
        self.add(Access.READ, file if self._is_crowded(file.parent) else file.parent)

    def _is_crowded(self, directory: Path) -> bool:
        home = self.surroundings.home
        return directory in _CROWDED or (home is not None and home.is_relative_to(directory))


def _add_reader(collected: _Collected, reader: ReaderConfiguration) -> None:
    if reader.socket_path is not None:
        collected.add(Access.BIND, reader.socket_path.absolute().parent)
    if reader.transport == "serial":
        collected.add(Access.DEVICE, *_TERMINALS)
    if reader.connect is not None:
        _add_target(collected, reader.connect)
    if reader.trace is not None:
        collected.add(Access.CREATE, reader.trace.absolute().parent)
    pin_entry, pin_file = reader.options.get("pin-entry"), reader.options.get("pin-file")
    if pin_entry is not None:
        _add_pinentry(collected, pin_entry)
    if pin_file is not None:
        collected.add_file(Path(pin_file))
    for card in reader.cards:
        _add_card(collected, card)


def _add_target(collected: _Collected, target: str) -> None:
    """Adds what is connected to; see `Connector` for what is a path."""
    if "/" in target or ":" not in target:
        return
    collected.internet = True
    # Long answers of a name server come over TCP.
    collected.connects_to |= {int(target.rpartition(":")[2]), _DNS}


def _add_card(collected: _Collected, card: CardOptions) -> None:
    for name, values in card.values.items():
        for value in values:
            _add_card_option(collected, name, value)
    if "confirm" in card.values:
        _add_pinentry(collected, card.one("confirm-with") or "")
    if card.looks_everywhere:
        _add_modules(collected, collected.surroundings.modules)


def _add_card_option(collected: _Collected, name: str, value: str) -> None:
    is_key = KEY_OPTION.fullmatch(name) is not None
    match name, value.partition(":")[0]:
        case "nss", _:
            _add_database(collected, value)
        case "module", _:
            _add_modules(collected, (Path(value),))
        case "pkcs11", _:
            _add_uri(collected, value)
        case "token", _ if value != ANY_TOKEN:
            _add_uri(collected, value)
        case _, "pkcs11" if is_key:
            _add_uri(collected, value)
        case _, "nss" if is_key:
            pass
        case "keys" | "pin-file" | "puk-file" | "password-file", _:
            collected.add_file(Path(value))
        case _ if is_key:
            collected.add_file(Path(value))


def _add_uri(collected: _Collected, text: str) -> None:
    uri = parse_uri(text)
    _add_modules(collected, (Path(uri.module_path),) if uri.module_path else ())
    if uri.pin_source is not None:
        collected.add_file(Path(uri.pin_source.removeprefix("file:").removeprefix("//")))


def _add_modules(collected: _Collected, modules: tuple[Path, ...]) -> None:
    """Adds PKCS#11 modules, each in a process of its own; some have their tokens in the network."""
    _add_programs(collected)
    collected.internet = collected.any_port = True
    for module in modules:
        collected.add(Access.READ, module.absolute().parent)
    collected.add(Access.READ, Path("/opt"), *collected.surroundings.module_files)
    collected.add(Access.WRITE, *collected.surroundings.module_stores)
    collected.add(Access.DEVICE, *_TOKEN_DEVICES)


def _add_database(collected: _Collected, name: str) -> None:
    _add_programs(collected)
    collected.add(Access.WRITE, Path(name.removeprefix("sql:")))


def _add_pinentry(collected: _Collected, program: str) -> None:
    if program == _AGENT:
        return
    _add_programs(collected)
    if "/" in program:
        collected.add(Access.READ | Access.EXECUTE, Path(program).absolute().parent)
    collected.add(Access.DEVICE, *_TERMINALS, *_SCREEN_DEVICES)
    collected.add(Access.READ, *collected.surroundings.desktop_files)
    collected.add(Access.WRITE, *collected.surroundings.desktop_stores)


def _add_programs(collected: _Collected) -> None:
    collected.programs = True
    collected.add(Access.EXECUTE, *_PROGRAMS, *collected.surroundings.python)
