# SPDX-License-Identifier: Apache-2.0
"""What the parsers of all commands have in common."""

import argparse
import os
from pathlib import Path
from typing import Final, NoReturn

from ccidd.service.state import default_directory

EXIT_USAGE: Final = 2


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with exit status 2."""
        self.exit(EXIT_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_state_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--state-dir`, which all commands that touch cards have."""
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        type=path,
        help="where ccidd keeps retry counters and its own cards (default: $STATE_DIRECTORY, else"
        " $XDG_STATE_HOME/ccidd, else ~/.local/state/ccidd)",
    )


def state_directory(options: argparse.Namespace) -> Path:
    """Gives the state directory, chosen by `--state-dir` or not.

    Raises:
        UserError: It is not chosen, and there is no home directory.
    """
    chosen: Path | None = options.state_dir
    return default_directory(os.environ) if chosen is None else chosen


def path(text: str) -> Path:
    """Reads an option's path, for argparse."""
    if not text:
        raise argparse.ArgumentTypeError("a path is needed")
    return Path(text)
