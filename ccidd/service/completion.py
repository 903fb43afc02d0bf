# SPDX-License-Identifier: Apache-2.0
"""Completion of command lines in shells, made from the programs' parsers.

    python -m ccidd.service.completion DIRECTORY

writes what packages install: PROGRAM.bash, _PROGRAM (for zsh) and PROGRAM.fish.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import shtab

from ccidd.service.parser import OneLineParser, path

SHELLS: Final[Mapping[str, str]] = {"bash": "{}.bash", "zsh": "_{}", "fish": "{}.fish"}
"""The shells, and what they call the file of a program."""

MakeParser: TypeAlias = Callable[[], argparse.ArgumentParser]


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Gives what makes a shell complete the arguments of a program.

    Args:
        parser: the program's parser, which is changed.
        shell: one of `SHELLS`.
    """
    _prepare(parser)
    lines = shtab.complete(parser, shell).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip() + "\n"


def programs() -> Mapping[str, MakeParser]:
    """Gives all programs, with what makes their parsers."""
    # This is for those who make packages; ccidctl has its own parser only.
    from ccidd.service.ctl import cli as ctl  # noqa: PLC0415
    from ccidd.service.vscclient import cli as vscclient  # noqa: PLC0415

    return {
        "ccidd": _ccidd,
        "ccidctl": ctl.make_parser,
        "ccidd-vscclient": vscclient._parser,  # noqa: SLF001 (the project's own)
    }


def files() -> Mapping[str, str]:
    """Gives the contents of the files that packages install, by their names."""
    return {
        name.format(program): completion(make_parser(), shell)
        for program, make_parser in programs().items()
        for shell, name in SHELLS.items()
    }


def _ccidd() -> argparse.ArgumentParser:
    """Makes one parser of `ccidd` and its commands, which are otherwise found by their names."""
    from ccidd.service import cardcommand, cli  # noqa: PLC0415 (as above)
    from ccidd.service.check.command import check_parser  # noqa: PLC0415 (as above)

    parser = cli._parser()  # noqa: SLF001 (as above)
    commands = parser.add_subparsers(metavar="COMMAND")
    card = cardcommand._parser()  # noqa: SLF001 (as above)
    check = check_parser(cli._parser)  # noqa: SLF001 (as above)
    for name, command in (("card", card), ("check", check)):
        commands.add_parser(
            name, help=command.description, parents=[command], add_help=False, allow_abbrev=False
        )
    return parser


def _prepare(parser: argparse.ArgumentParser) -> None:
    """Has paths completed as such, and choices as shtab expects them."""
    for action in parser._actions:  # noqa: SLF001 (argparse has no public list)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 (likewise)
            for each in action.choices.values():
                _prepare(each)
        elif action.choices is not None:
            # It takes a mapping for subparsers.
            action.choices = list(action.choices)
        if action.type is path:
            action.complete = shtab.FILE  # type: ignore[attr-defined] # shtab looks for it


def main() -> None:
    """Writes the files into a directory."""
    parser = OneLineParser(prog="ccidd.service.completion", description=main.__doc__)
    parser.add_argument("directory", metavar="DIRECTORY", type=path)
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
