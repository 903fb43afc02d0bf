# SPDX-License-Identifier: Apache-2.0
"""What of this machine a ccidd needs, whatever its configuration says.

Source: site and sys of Python's library; softhsm2.conf(5); tpm2_ptool(1), TPM2_PKCS11_STORE;
opensc.conf(5), file_cache_dir; pkcs11.conf(5); the XDG Base Directory Specification;
systemd.exec(5), $CREDENTIALS_DIRECTORY, $LOGS_DIRECTORY and $RUNTIME_DIRECTORY.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ccidd.keys.modules import configured_modules

_SOFTHSM_CONFIGURATION = ("/etc/softhsm2.conf", "/etc/softhsm/softhsm2.conf")
_SOFTHSM_TOKENS = "/var/lib/softhsm/tokens"
_LOGS = "/var/log/ccidd"
_RUNTIME = "/run/ccidd"
"""As packaging/tmpfiles and the units have it."""

_TPM2_STORE = "/etc/tpm2_pkcs11"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a ccidd finds around it.

    Attributes:
        state: the state directory.
        file: the configuration file, if there is one.
        home: the user's home directory, if there is one.
        credentials: where systemd's credentials are, if there are any.
        logs: where logs and traces have their place, as the service that this is.
        runtime: where sockets have theirs.
        python: where Python reads modules, and is itself.
        modules: the PKCS#11 modules that p11-kit is configured with.
        module_files: what PKCS#11 modules are configured with.
        module_stores: where PKCS#11 modules keep something.
        tokens: where SoftHSM keeps its tokens.
        desktop_files: what programs with windows are configured with.
        desktop_stores: where they meet their desktop.
        abstract_sockets: whether the service manager has a socket without a file.
    """

    state: Path
    file: Path | None = None
    home: Path | None = None
    credentials: Path | None = None
    logs: tuple[Path, ...] = ()
    runtime: tuple[Path, ...] = ()
    python: tuple[Path, ...] = ()
    modules: tuple[Path, ...] = ()
    module_files: tuple[Path, ...] = ()
    module_stores: tuple[Path, ...] = ()
    tokens: Path | None = None
    desktop_files: tuple[Path, ...] = ()
    desktop_stores: tuple[Path, ...] = ()
    abstract_sockets: bool = False

    @classmethod
    def here(cls, state: Path, file: Path | None, environ: Mapping[str, str]) -> "Surroundings":
        """Looks around.

        Args:
            state: the state directory.
            file: the configuration file, if there is one.
            environ: the environment.
        """
        home = Path(environ["HOME"]) if environ.get("HOME", "").startswith("/") else None
        configuration = _directory(environ, "XDG_CONFIG_HOME", home, ".config")
        cache = _directory(environ, "XDG_CACHE_HOME", home, ".cache")
        softhsm = _softhsm_files(environ, configuration)
        module_files = (
            *_named(environ, "OPENSC_CONF", "P11_KIT_CONFIG"),
            *_beneath(configuration, "opensc", "softhsm2", "pkcs11"),
            *softhsm,
        )
        return cls(
            state,
            file=file,
            home=home,
            credentials=next(iter(_named(environ, "CREDENTIALS_DIRECTORY")), None),
            logs=(Path(_LOGS), *_listed(environ, "LOGS_DIRECTORY")),
            runtime=(
                Path(_RUNTIME),
                *_beneath(next(iter(_named(environ, "XDG_RUNTIME_DIR")), None), "ccidd"),
                *_listed(environ, "RUNTIME_DIRECTORY"),
            ),
            python=_python(),
            modules=tuple(map(Path, configured_modules())),
            module_files=module_files,
            module_stores=(
                *(_named(environ, "TPM2_PKCS11_STORE") or (Path(_TPM2_STORE),)),
                *_beneath(home, ".tpm2_pkcs11"),
                *_beneath(cache, "opensc"),
            ),
            tokens=_softhsm_tokens(softhsm),
            desktop_files=(
                *_named(environ, "XAUTHORITY"),
                *_beneath(home, ".Xauthority", ".fonts", ".icons", ".themes", ".local/share"),
                *((configuration,) if configuration else ()),
                *((cache,) if cache else ()),
            ),
            desktop_stores=_named(environ, "XDG_RUNTIME_DIR"),
            abstract_sockets=environ.get("NOTIFY_SOCKET", "").startswith("@"),
        )


def _directory(
    environ: Mapping[str, str], variable: str, home: Path | None, default: str
) -> Path | None:
    named = _named(environ, variable)
    return named[0] if named else home and home / default


def _listed(environ: Mapping[str, str], variable: str) -> tuple[Path, ...]:
    """Gives the directories that systemd names."""
    return tuple(Path(each) for each in environ.get(variable, "").split(":") if each)


def _named(environ: Mapping[str, str], *variables: str) -> tuple[Path, ...]:
    """Gives the absolute paths that variables name."""
    values = (environ.get(variable, "") for variable in variables)
    return tuple(Path(value) for value in values if value.startswith("/"))


def _beneath(directory: Path | None, *names: str) -> tuple[Path, ...]:
    return tuple(directory / name for name in names) if directory else ()


def _python() -> tuple[Path, ...]:
    """Gives where modules are looked for (an editable installation has more), and the program."""
    program = Path(sys.executable)
    places = (sys.prefix, sys.base_prefix, *filter(None, sys.path))
    return (*map(Path, places), program, program.resolve())


def _softhsm_files(environ: Mapping[str, str], configuration: Path | None) -> tuple[Path, ...]:
    """Gives the files that SoftHSM may be configured by, the first that is there being the one."""
    named = _named(environ, "SOFTHSM2_CONF")
    own = _beneath(configuration, "softhsm2/softhsm2.conf")
    return named or (*own, *map(Path, _SOFTHSM_CONFIGURATION))


def _softhsm_tokens(files: tuple[Path, ...]) -> Path:
    """Gives where SoftHSM has its tokens, which it opens for writing even to read them."""
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            name, equals, value = line.partition("=")
            if equals and name.strip() == "directories.tokendir":
                return Path(os.path.expandvars(value.strip()))
    return Path(_SOFTHSM_TOKENS)
