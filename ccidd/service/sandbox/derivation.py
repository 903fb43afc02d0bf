# SPDX-License-Identifier: Apache-2.0
"""What a configuration needs of the machine.

Pure functions of the configuration and of its surroundings. What is not in their results is taken
away for good when ccidd starts, so a configuration that is read later may need no more than that.

Files are named by their directories, since what is replaced (a certificate that is renewed, a
socket that is made anew) is another file of the same name. Not so where everything else is too, in
home, in /tmp and the like: of what is there, the file itself is named.
"""

from pathlib import Path
from typing import Final

from ccidd.keys.files import CREDENTIAL
from ccidd.keys.uri import parse_uri
from ccidd.service.configuration import Configuration, ReaderConfiguration
from ccidd.service.options import ANY_TOKEN, KEY_OPTION, CardOptions
from ccidd.service.sandbox.needs import Access, Needs
from ccidd.service.sandbox.surroundings import Surroundings
from ccidd.transport.endpoint import host_and_port, tcp_address

_READ_BY_ALL: Final = tuple(
    map(
        Path,
        (
            *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/nix/store"),
            # Who is connected, by its command line; how many processors there are.
            *("/proc", "/sys"),
            # What /etc/resolv.conf may lead to.
            *("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager"),
            # Who users and groups are, where /etc alone does not say it.
            *("/run/systemd/userdb", "/run/nscd", "/var/lib/sss"),
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
    map(Path, ("/", "/dev", "/etc", "/home", "/root", "/run", "/srv", "/var", "/var/lib"))
) | {Path("/tmp"), Path("/var/tmp")}  # noqa: S108 (nothing is made there)
"""Directories in which the file itself is meant."""

_DNS: Final = 53
_AGENT: Final = "agent"
"""The value of options that have an agent ask, and no program."""


def needs_of(configuration: Configuration, surroundings: Surroundings) -> Needs:
    """Tells what ccidd needs for a configuration, and what it starts for it.

    Args:
        configuration: what is to be served.
        surroundings: what there is on this machine.
    """
    needed = _Needed(configuration, surroundings)
    return needed.own.needs() | needed.modules.needs() | _needs_of_all(surroundings)


def module_needs_of(configuration: Configuration, surroundings: Surroundings) -> Needs:
    """Tells what the processes of PKCS#11 modules need, which is not what ccidd keeps for itself.

    Args:
        configuration: what is to be served.
        surroundings: what there is on this machine.
    """
    needed = _Needed(configuration, surroundings)
    return needed.modules.needs() | _needs_of_all(surroundings)


def _needs_of_all(surroundings: Surroundings) -> Needs:
    grants = _Grants()
    grants.add(Access.READ, *_READ_BY_ALL, *surroundings.python)
    grants.add(Access.DEVICE, *_DEVICES_OF_ALL)
    return grants.needs()


class _Grants:
    """What was found to be needed so far."""

    def __init__(self) -> None:
        self.paths: dict[Path, Access] = {}
        self.modules = False
        self.programs = False
        self.internet = False
        self.abstract_sockets = False
        self.signals = False
        self.connects_to: frozenset[int] | None = frozenset()
        self.listens_on: frozenset[int] = frozenset()

    def add(self, access: Access, *paths: Path) -> None:
        """Adds paths with all that is beneath them."""
        for path in paths:
            place = path.absolute()
            self.paths[place] = self.paths.get(place, access) | access

    def needs(self) -> Needs:
        """Gives it."""
        return Needs(
            self.paths,
            modules=self.modules,
            programs=self.programs,
            internet=self.internet,
            connects_to=self.connects_to,
            listens_on=self.listens_on,
            abstract_sockets=self.abstract_sockets,
            signals=self.signals,
        )


class _Needed:
    """Goes through a configuration.

    Attributes:
        own: what ccidd itself needs.
        modules: what PKCS#11 modules need.
    """

    def __init__(self, configuration: Configuration, surroundings: Surroundings) -> None:
        self.own: Final = _Grants()
        self.modules: Final = _Grants()
        self._surroundings = surroundings
        self._add_own()
        for grants in (self.own, self.modules):
            grants.add(Access.WRITE | Access.EXECUTE, *configuration.sandbox_paths)
        for socket in configuration.control:
            if socket.path is not None:
                self.own.add(Access.BIND, socket.path.absolute().parent)
        if configuration.metrics_file is not None:
            self.own.add(Access.CREATE, configuration.metrics_file.absolute().parent)
        for reader in configuration.readers:
            self._add_reader(reader)

    def _add_own(self) -> None:
        around = self._surroundings
        self.own.add(Access.WRITE, around.state)
        self.own.abstract_sockets = around.abstract_sockets
        if around.credentials is not None:
            self.own.add(Access.READ, around.credentials)
        self.own.add(Access.CREATE, *around.logs)
        self.own.add(Access.BIND, *around.runtime)
        if around.file is not None:
            self._add_file(around.file)

    def _add_file(self, file: Path) -> None:
        """Adds a file that is read, and what takes its place."""
        self.own.add(Access.READ, self._with_successors(file))

    def _with_successors(self, path: Path) -> Path:
        """Gives what to name for a path and what takes its place later."""
        directory = path.absolute().parent
        home = self._surroundings.home
        crowded = directory in _CROWDED or (home is not None and home.is_relative_to(directory))
        return path if crowded else directory

    def _add_named_file(self, name: str) -> None:
        """Adds what an option names; the directory of systemd's credentials is there already."""
        if not name.startswith(CREDENTIAL):
            self._add_file(Path(name))

    def _add_reader(self, reader: ReaderConfiguration) -> None:
        if reader.socket_path is not None:
            self.own.add(Access.BIND, reader.socket_path.absolute().parent)
        if reader.transport == "serial":
            self.own.add(Access.DEVICE, *_TERMINALS)
        if reader.connect is not None and (address := tcp_address(reader.connect)) is not None:
            # Long answers of a name server come over TCP.
            self._add_tcp(connects_to=frozenset({address[1], _DNS}))
        if reader.listen is not None:
            self._add_tcp(listens_on=frozenset({host_and_port(reader.listen)[1]}))
        if reader.tls_creds is not None:
            self.own.add(Access.READ, reader.tls_creds)
        if reader.trace is not None:
            self.own.add(Access.CREATE, reader.trace.absolute().parent)
        pin_entry, pin_file = reader.options.get("pin-entry"), reader.options.get("pin-file")
        if pin_entry is not None:
            self._add_pinentry(pin_entry)
        if pin_file is not None:
            self._add_named_file(pin_file)
        for card in reader.cards:
            self._add_card(card)

    def _add_tcp(
        self,
        *,
        connects_to: frozenset[int] = frozenset(),
        listens_on: frozenset[int] = frozenset(),
    ) -> None:
        self.own.internet = True
        self.own.connects_to = connects_to | (self.own.connects_to or frozenset())
        self.own.listens_on |= listens_on

    def _add_pinentry(self, program: str) -> None:
        if program == _AGENT:
            return
        around = self._surroundings
        self._add_programs()
        if "/" in program:
            self.own.add(Access.READ | Access.EXECUTE, Path(program).absolute().parent)
        self.own.add(Access.DEVICE, *_TERMINALS, *_SCREEN_DEVICES)
        self.own.add(Access.READ, *around.desktop_files)
        self.own.add(Access.WRITE, *around.desktop_stores)
        # The X server may listen on one.
        self.own.abstract_sockets = True

    def _add_programs(self) -> None:
        self.own.programs = True
        self.own.add(Access.EXECUTE, *_PROGRAMS, *self._surroundings.python)

    def _add_module_process(self) -> None:
        """Adds a process that confines itself, and so may have a sandbox of its own."""
        self._add_programs()
        self.own.signals = True

    def _add_card(self, card: CardOptions) -> None:
        for name, values in card.values.items():
            for value in values:
                self._add_card_option(name, value)
        if "confirm" in card.values:
            self._add_pinentry(card.one("confirm-with") or "")
        if card.looks_everywhere:
            self._add_modules(*self._surroundings.modules)

    def _add_card_option(self, name: str, value: str) -> None:
        is_key = KEY_OPTION.fullmatch(name) is not None
        match name, value.partition(":")[0]:
            case "nss", _:
                self._add_database(value)
            case "module", _:
                self._add_modules(Path(value))
            case "pkcs11", _:
                self._add_uri(value)
            case "token", _ if value != ANY_TOKEN:
                self._add_uri(value)
            case _, "pkcs11" if is_key:
                self._add_uri(value)
            case _, "nss" if is_key:
                pass
            case "keys" | "pin-file" | "puk-file" | "password-file", _:
                self._add_named_file(value)
            case _ if is_key:
                self._add_named_file(value)

    def _add_uri(self, text: str) -> None:
        uri = parse_uri(text)
        self._add_modules(*((Path(uri.module_path),) if uri.module_path else ()))
        if uri.pin_source is not None:
            self._add_named_file(uri.pin_source.removeprefix("file:").removeprefix("//"))

    def _add_modules(self, *modules: Path) -> None:
        """Adds PKCS#11 modules; the tokens of some are in the network."""
        around = self._surroundings
        self._add_module_process()
        self.modules.modules = self.modules.internet = True
        self.modules.connects_to = None
        for module in modules:
            self.modules.add(Access.READ, module.absolute().parent)
        self.modules.add(Access.READ, Path("/opt"), *around.module_files)
        self.modules.add(Access.WRITE, *around.module_stores)
        if around.tokens is not None:
            self.modules.add(Access.WRITE, self._with_successors(around.tokens))
        self.modules.add(Access.DEVICE, *_TOKEN_DEVICES)

    def _add_database(self, name: str) -> None:
        """Adds an NSS database, which NSS's own module reads."""
        self._add_module_process()
        self.modules.modules = True
        self.modules.add(Access.WRITE, Path(name.removeprefix("sql:")))
