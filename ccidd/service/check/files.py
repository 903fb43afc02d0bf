# SPDX-License-Identifier: Apache-2.0
"""Files that options name: who else may read or change them."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ccidd.errors import UserError
from ccidd.keys.files import is_open_to_others
from ccidd.keys.uri import parse_uri
from ccidd.service.check.finding import Finding, error, ok, warning
from ccidd.service.options import ANY_TOKEN, KEY_OPTION, NSS, PKCS11, CardOptions
from ccidd.service.where import Where

_ROOT: Final = 0
_SECRETS: Final = frozenset({"pin-file", "puk-file", "password-file"})


def look_at_secrets(options: CardOptions) -> Iterator[Finding]:
    """Looks at the modes of the files of a card: those with keys, and those with PINs."""
    for name, values in options.values.items():
        for value in values:
            path = _path_in(name, value)
            if path is not None:
                yield from look_at_secret(options.where.of(name), path)


def _path_in(name: str, value: str) -> Path | None:
    """Gives the file with a secret that an option names."""
    is_key = KEY_OPTION.fullmatch(name) is not None
    if name == "pkcs11" or (name == "token" and value != ANY_TOKEN) or value.startswith(PKCS11):
        source = parse_uri(value).pin_source
        return None if source is None else Path(source.removeprefix("file:").removeprefix("//"))
    if name in _SECRETS or name == "keys" or (is_key and not value.startswith(NSS)):
        return Path(value)
    return None


def look_at_secret(
    where: str, path: Path, environ: Mapping[str, str] = os.environ
) -> Iterator[Finding]:
    """Looks at the mode of a file with a secret; whether it can be read is found out elsewhere.

    Args:
        where: what names the file.
        path: the file.
        environ: where systemd says where credentials are: those are its own matter.
    """
    try:
        status = path.stat()
    except OSError:
        return
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if credentials and path.absolute().is_relative_to(credentials):
        return
    mode = stat.S_IMODE(status.st_mode)
    if is_open_to_others(status.st_mode):
        yield error(
            where, f"{path} is open to other users (mode {mode:03o}); run: chmod u=rw,g=,o= {path}"
        )
    yield from _look_at_owner(where, path, status)


def look_at_configuration(file: Path) -> Iterator[Finding]:
    """Looks at who else may change a configuration file: it names programs, and who may connect."""
    try:
        status = file.stat()
    except OSError as error_of_file:
        raise UserError(f"cannot read {file}: {error_of_file.strerror}") from error_of_file
    mode = stat.S_IMODE(status.st_mode)
    findings = list(_look_at_owner(f"{file}", file, status))
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        findings.append(
            error(file, f"others may change this file (mode {mode:03o}); run: chmod go-w {file}")
        )
    yield from findings or [ok(file, "nobody else may change this file")]


def _look_at_owner(where: str, path: Path, status: os.stat_result) -> Iterator[Finding]:
    if status.st_uid not in {_ROOT, os.geteuid()}:
        yield warning(where, f"{path} belongs to user {status.st_uid}, who can change it")


def look_at_credentials(directory: Path) -> Iterator[Finding]:
    """Looks at the credentials that systemd passes."""
    try:
        names = sorted(each.name for each in directory.iterdir())
    except OSError as refused:
        yield error("$CREDENTIALS_DIRECTORY", f"cannot read {directory}: {refused.strerror}")
        return
    yield ok("$CREDENTIALS_DIRECTORY", f"systemd passes {', '.join(names) or 'no credentials'}")


def look_at_new_file(where: Where, option: str, path: Path) -> Iterator[Finding]:
    """Looks whether a file could be made."""
    directory = path.absolute().parent
    if not directory.is_dir():
        yield error(where.of(option), f"there is no directory {directory}; make it")
    elif not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        yield error(where.of(option), f"nothing can be made in {directory} by user {os.geteuid()}")
