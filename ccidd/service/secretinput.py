# SPDX-License-Identifier: Apache-2.0
"""Takes secrets from files, from descriptors, or from the terminal; never from arguments.

Arguments are there for every user of the machine to see, and stay in the shell's history.
"""

import argparse
import getpass
import hmac
import os
from pathlib import Path
from typing import Final

from ccidd.errors import UserError
from ccidd.keys.files import read_secret
from ccidd.service.parser import path

_MAX_SIZE: Final = 1024
"""Bytes of a secret from a descriptor."""


def add_secret_options(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    """Adds `--NAME-file` and `--NAME-fd`.

    Args:
        parser: what gets them.
        name: the beginning of their names.
        what: what the secret is, for people.
    """
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument(
        f"--{name}-file", metavar="FILE", type=path, help=f"{what} is in the file's first line"
    )
    sources.add_argument(
        f"--{name}-fd",
        metavar="N",
        type=int,
        help=f"{what} is the next line of this descriptor",
    )


def given_secret(options: argparse.Namespace, name: str) -> bytes | None:
    """Gives a secret that an option names the source of, or None if there is no such option.

    Raises:
        UserError: It cannot be read, or is empty.
    """
    attribute = name.replace("-", "_")
    file: Path | None = getattr(options, f"{attribute}_file")
    if file is not None:
        return read_secret(file)
    descriptor: int | None = getattr(options, f"{attribute}_fd")
    return None if descriptor is None else _read_line(descriptor, f"--{name}-fd")


def is_given(options: argparse.Namespace, name: str) -> bool:
    """Whether an option names the source of a secret."""
    attribute = name.replace("-", "_")
    sources = getattr(options, f"{attribute}_file"), getattr(options, f"{attribute}_fd")
    return any(source is not None for source in sources)


def secret(options: argparse.Namespace, name: str, what: str, *, is_new: bool = False) -> bytes:
    """Gives a secret from a file, a descriptor or, if neither is given, the terminal.

    Args:
        options: the options, as `add_secret_options` had them.
        name: the beginning of the options' names.
        what: what the secret is, for people.
        is_new: whether a typing error could not be told, so that it is asked for twice.

    Raises:
        UserError: It cannot be read, or is empty.
    """
    given = given_secret(options, name)
    if given is not None:
        return given
    needed = f"give --{name}-file or --{name}-fd"
    entered = _ask(f"{what}: ", needed)
    if is_new and not hmac.compare_digest(entered, _ask(f"{what} again: ", needed)):
        raise UserError("the two are not the same")
    return entered


def can_ask() -> bool:
    """Whether there is a terminal; without one getpass would show what is typed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def confirm(question: str, answer: str) -> None:
    """Has the user of the terminal say that something is meant.

    Raises:
        UserError: It is not meant, or there is nobody to ask.
    """
    if not can_ask():
        raise UserError("there is no terminal to ask on; give --yes if you mean it")
    with Path("/dev/tty").open("r+b", buffering=0) as terminal:
        terminal.write(question.encode())
        line = terminal.readline(_MAX_SIZE)
    if line.strip() != answer.encode():
        raise UserError("nothing was changed")


def _ask(prompt: str, needed: str) -> bytes:
    if not can_ask():
        raise UserError(f"there is no terminal to ask on; {needed}")
    try:
        entered = getpass.getpass(prompt)
    except EOFError as error:
        raise UserError(f"nothing was entered; {needed}") from error
    if not entered:
        raise UserError(f"nothing was entered; {needed}")
    return entered.encode()


def _read_line(descriptor: int, option: str) -> bytes:
    """Reads one line and no byte more, so that several secrets can come the same way."""
    line = b""
    try:
        while len(line) < _MAX_SIZE:
            byte = os.read(descriptor, 1)
            if byte in {b"", b"\n"}:
                break
            line += byte
    except OSError as error:
        raise UserError(f"{option}={descriptor} cannot be read: {error.strerror}") from error
    line = line.removesuffix(b"\r")
    if not line:
        raise UserError(f"{option}={descriptor} gave no secret")
    return line
