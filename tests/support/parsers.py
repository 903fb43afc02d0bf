# SPDX-License-Identifier: Apache-2.0
"""What the parsers of the programs take, for documents to be held against."""

import argparse


def options_of(parser: argparse.ArgumentParser) -> dict[str, str | None]:
    """Gives the options of a parser, and what their values are called.

    Args:
        parser: the parser; the values of an option that has choices are these, with bars between.
    """
    return {name: _value(action) for action in parser._actions for name in action.option_strings}


def _value(action: argparse.Action) -> str | None:
    if action.nargs == 0:
        return None
    return str(action.metavar or "|".join(action.choices or ()))


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Gives the parsers of all commands of a program, by their names: `card insert`, `quit`."""
    commands: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                inner = commands_of(command)
                commands |= {f"{name} {each}": inner[each] for each in inner} or {name: command}
    return commands
