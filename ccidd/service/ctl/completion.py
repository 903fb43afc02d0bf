# SPDX-License-Identifier: Apache-2.0
"""Completion of command lines in shells, made from the parsers."""

import argparse
from typing import Final

import shtab

from ccidd.service.parser import path

SHELLS: Final = ("bash", "zsh", "fish")


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Gives what makes a shell complete the arguments of a program.

    Args:
        parser: the program's parser, which is changed.
        shell: one of `SHELLS`.
    """
    _complete_paths(parser)
    return shtab.complete(parser, shell).rstrip()


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    """Has paths completed as such."""
    for action in parser._actions:  # noqa: SLF001 (argparse has no public list)
        if action.type is path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 (likewise)
            for each in action.choices.values():
                _complete_paths(each)
