# SPDX-License-Identifier: Apache-2.0
"""The PKCS#11 modules that an NSS database lists, as modutil registers them.

They are in the file pkcs11.txt beside the database: for each module some lines NAME=VALUE, and an
empty line after them. NSS itself is among them, and on some systems a module that only tells of
other databases; neither is a module with tokens.

Source: NSS, "NSS PKCS #11 Module Specs" (library, name, NSS with its flags and slotParams);
modutil(1).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from ccidd.errors import UserError
from ccidd.keys.modules import module_directories

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_LIST: Final = "pkcs11.txt"

_FLAGS: Final = re.compile(r"""\bflags=(?:"([^"]*)"|'([^']*)'|(\S*))""", re.IGNORECASE)
_DISABLED: Final = re.compile(r"\bslotflags=\[?[^]\s]*\bdisable\b", re.IGNORECASE)
_NO_TOKENS: Final = {"internal", "moduledb", "moduledbonly"}


@dataclass(frozen=True, slots=True)
class RegisteredModule:
    """A module.

    Attributes:
        name: what it is called there.
        path: its library.
    """

    name: str
    path: Path


def registered_modules(directory: Path) -> Sequence[RegisteredModule]:
    """Reads which modules a database lists, other than NSS itself.

    A module whose library is not there, and one that modutil has disabled, is left out with a
    warning.

    Raises:
        UserError: The list cannot be read.
    """
    file = directory / _LIST
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"cannot read the list of modules {file}: {error.strerror}") from error
    return list(_modules(text))


def _modules(text: str) -> Iterator[RegisteredModule]:
    for block in re.split(r"\n\s*\n", text):
        lines = (line.partition("=") for line in block.splitlines() if not line.startswith("#"))
        values = {name.strip().lower(): value.strip() for name, _, value in lines}
        library, parameters = values.get("library", ""), values.get("nss", "")
        flags = _FLAGS.search(parameters)
        given = set("".join(flags.groups("")).lower().split(",")) if flags else set()
        if not library or given & _NO_TOKENS:
            continue
        name = values.get("name", library)
        path = find_module(library)
        if path is None:
            log.warning("module_not_found", name=name, library=library)
        elif _DISABLED.search(parameters):
            log.warning("module_is_disabled", name=name, hint="modutil -enable")
        else:
            yield RegisteredModule(name, path)


def find_module(library: str) -> Path | None:
    """Finds a module's library, which may be named without its directory; None if there is none."""
    if "/" in library:
        return path if (path := Path(library)).is_absolute() and path.is_file() else None
    found = (path for place in _places() if (path := place / library).is_file())
    return next(found, None)


def _places() -> Iterator[Path]:
    """Where the dynamic linker looks, and where distributions put PKCS#11 modules."""
    for directory in module_directories():
        yield directory.parent
        yield directory
