# SPDX-License-Identifier: Apache-2.0
"""Where the PKCS#11 modules of this machine are.

Source: RFC 7512, 2.4 (module-name, module-path); pkcs11.conf(5), p11-kit's configuration, of which
each module is loaded alone here. p11-kit's own proxy would load all into one process, and among
them perhaps one that uses the very reader that ccidd serves.
"""

import os
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ccidd.errors import UserError
from ccidd.keys.uri import Pkcs11Uri

_PROGRAM: Final = "ccidd"
"""What `enable-in` and `disable-in` call this program."""

# These only lead to other modules.
_PROXIES: Final = frozenset({"p11-kit-proxy.so", "p11-kit-client.so", "pkcs11-spy.so"})


def module_of(uri: Pkcs11Uri) -> str | None:
    """Gives the path of the module that a URI names, None if it names none.

    Raises:
        UserError: There is no such module.
    """
    if uri.module_path is not None:
        if not uri.module_path.startswith("/"):
            raise UserError("a PKCS#11 URI whose module-path is no absolute path")
        return check_module(uri.module_path)
    if uri.module_name is None:
        return None
    if "/" in uri.module_name:
        raise UserError("a PKCS#11 URI whose module-name is a path; use module-path")
    # RFC 7512, 2.3: less what the platform puts before and behind the name.
    found = _find((f"{uri.module_name}.so", f"lib{uri.module_name}.so"))
    if found is None:
        raise UserError(
            f"there is no PKCS#11 module {uri.module_name!r} in"
            f" {', '.join(map(str, module_directories()))}; use module-path"
        )
    return str(found)


def check_module(path: str) -> str:
    """Gives the path of a module back.

    Raises:
        UserError: There is no such file.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no PKCS#11 module {path}")
    return path


def configured_modules(directories: Iterable[Path] | None = None) -> list[str]:
    """Gives the paths of the modules that p11-kit is configured with, and that may have keys.

    Args:
        directories: where it is configured, the last of which has the last word; by default where
            p11-kit looks.
    """
    settings: dict[str, dict[str, str]] = {}
    for directory in _configuration() if directories is None else directories:
        for file in _files(directory):
            settings.setdefault(file.name, {}).update(_read(file))
    found = {
        path.resolve(): str(path)
        for name in sorted(settings, key=lambda name: _order(settings[name], name))
        if (path := _usable(settings[name])) is not None
    }
    return list(found.values())


def _configuration() -> list[Path]:
    directories = [Path("/usr/share/p11-kit/modules"), Path("/etc/pkcs11/modules")]
    if os.geteuid() == 0:
        # As p11-kit: root's programs heed no user's configuration.
        return directories
    home = os.environ.get("XDG_CONFIG_HOME") or f"{os.environ.get('HOME', '')}/.config"
    return [*directories, Path(home, "pkcs11/modules")]


def _files(directory: Path) -> list[Path]:
    # A service may have the home directory of another user in its environment.
    try:
        return sorted(directory.glob("*.module"))
    except OSError:
        return []


def _read(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    settings = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and not name.lstrip().startswith("#"):
            settings[name.strip()] = value.strip()
    return settings


def _order(settings: Mapping[str, str], name: str) -> tuple[int, str]:
    priority = settings.get("priority", "0")
    # The highest first.
    return -int(priority) if priority.lstrip("-").isdecimal() else 0, name


def _usable(settings: Mapping[str, str]) -> Path | None:
    """Gives the path of a module that is there, is for this program, and may have private keys."""
    name = settings.get("module", "")
    programs = settings.get("enable-in")
    if (
        not name
        or "remote" in settings
        or settings.get("trust-policy") == "yes"
        or (programs is not None and _PROGRAM not in _names(programs))
        or _PROGRAM in _names(settings.get("disable-in", ""))
    ):
        return None
    path = Path(name) if name.startswith("/") else _find((name,))
    if path is None or path.name in _PROXIES or not path.is_file():
        return None
    return path


def _names(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _find(names: Iterable[str]) -> Path | None:
    for directory in module_directories():
        for name in names:
            if (directory / name).is_file():
                return directory / name
    return None


def module_directories() -> list[Path]:
    """Gives where distributions put PKCS#11 modules: beside the libraries, in directories there."""
    triplet = sysconfig.get_config_var("MULTIARCH") or ""
    return [Path("/usr/lib", triplet, "pkcs11"), Path("/usr/lib64/pkcs11"), Path("/usr/lib/pkcs11")]
