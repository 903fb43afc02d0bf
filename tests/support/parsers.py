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
    """Gives the parsers of the commands of a program."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(commands.choices)


def all_commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Gives the parsers of the commands of a program, and of those below them: "card insert"."""
    commands = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                commands[name] = command
                below = all_commands_of(command)
                commands |= {f"{name} {each}": found for each, found in below.items()}
    return commands
