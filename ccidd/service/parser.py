# SPDX-License-Identifier: Apache-2.0
"""What the parsers of all commands have in common."""

import argparse
import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

from ccidd.errors import UserError
from ccidd.service.state import State, default_directory, find_key_file

EXIT_USAGE: Final = 2


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with exit status 2."""
        self.exit(EXIT_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


@contextlib.contextmanager
def told_in_one_line(program: str) -> Iterator[None]:
    """Ends the process with one line that says what cannot be used.

    Args:
        program: the name that the line begins with.
    """
    try:
        yield
    except UserError as error:
        sys.exit(f"{program}: {error}")
    except sqlite3.Error as error:
        sys.exit(f"{program}: cannot use the state: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def add_state_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--state-dir` and `--state-key-file`, which all commands that touch cards have."""
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        type=path,
        help="where ccidd keeps retry counters and its own cards (default: $STATE_DIRECTORY, else"
        " $XDG_STATE_HOME/ccidd, else ~/.local/state/ccidd)",
    )
    parser.add_argument(
        "--state-key-file",
        metavar="FILE",
        type=path,
        help="the key under which they are encrypted: 32 bytes, or their hexadecimal digits"
        " (default: systemd's credential ccidd.state-key, else one that is made in the directory)",
    )


def state_directory(chosen: Path | None) -> Path:
    """Gives the state directory, chosen by `--state-dir` or not.

    Raises:
        UserError: It is not chosen, and there is no home directory.
    """
    return default_directory(os.environ) if chosen is None else chosen


def open_state(options: argparse.Namespace) -> State:
    """Opens the state that the options of `add_state_options` choose.

    Raises:
        UserError: It cannot be used.
    """
    return open_state_in(options.state_dir, options.state_key_file)


def open_state_in(directory: Path | None, key_file: Path | None) -> State:
    """Opens a state.

    Args:
        directory: the state directory; None for the default.
        key_file: the file with its key; None for the default.

    Raises:
        UserError: It cannot be used.
    """
    return State(state_directory(directory), find_key_file(key_file, os.environ))


def path(text: str) -> Path:
    """Reads an option's path, for argparse."""
    if not text:
        raise argparse.ArgumentTypeError("a path is needed")
    return Path(text)


def open_standard_streams() -> None:
    """Sees to it that no socket or file of ours becomes standard input, output or error."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
