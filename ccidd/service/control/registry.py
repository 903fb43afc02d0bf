# SPDX-License-Identifier: Apache-2.0
"""Which commands and events there are: each is declared once, in Python.

    @command(Role.OPERATE)
    async def card_remove(context: Context, *, reader: str, slot: int = 0) -> None:
        "Takes the card out of a slot."

is the command `card-remove` with the argument `reader` and the optional `slot`. What
`query-commands` and `query-schema` tell, and how arguments are checked, follows from that.
"""

import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from ccid_protocol.qmp import JSON, ErrorClass
from ccidd.service.configtable import suggestion
from ccidd.service.control.errors import CommandError
from ccidd.service.control.roles import Role, role_names
from ccidd.service.control.shapes import from_json, json_name

Handler: TypeAlias = Callable[..., Awaitable[object]]
"""Executes a command: takes the context, and the arguments by their names."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z_-]{0,40}")
_WORD_BEGINS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a command, or a member of an event's data.

    Attributes:
        name: its name in JSON.
        type: its type.
        is_required: whether it is always there.
    """

    name: str
    type: object
    is_required: bool


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        name: its name.
        roles: what a socket must be for to have it, at least one of them.
        summary: what it does, for people.
        arguments: its arguments.
        result: the type of what it returns.
        handler: executes it.
    """

    name: str
    roles: Role
    summary: str
    arguments: Sequence[Argument]
    result: object
    handler: Handler

    def check(self, given: Mapping[str, JSON]) -> Mapping[str, object]:
        """Checks arguments, and gives them by their names in Python.

        Raises:
            CommandError: One is missing, unknown or of the wrong type.
        """
        known = {argument.name: argument for argument in self.arguments}
        for name in given:
            if name not in known:
                what = suggestion(name, known) or f"; it has {', '.join(known) or 'none'}"
                raise CommandError(f"{self.name} has no argument {_quoted(name)}{what}")
        for argument in self.arguments:
            if argument.is_required and argument.name not in given:
                raise CommandError(f"{self.name} needs the argument {argument.name}")
        return {
            name.replace("-", "_"): from_json(
                known[name].type, value, f"the argument {name} of {self.name}"
            )
            for name, value in given.items()
        }


@dataclass(frozen=True, slots=True)
class EventType:
    """A kind of event.

    Attributes:
        name: its name.
        roles: what a socket must be for to be told, at least one of them.
        summary: what has happened, for people.
        data: what more it tells.
    """

    name: str
    roles: Role
    summary: str
    data: Sequence[Argument]


def command(roles: Role, name: str | None = None) -> Callable[[Handler], Command]:
    """Makes a command of a function.

    Args:
        roles: what a socket must be for to have it, at least one of them.
        name: its name, if that is not the function's.
    """

    def make(handler: Handler) -> Command:
        types = typing.get_type_hints(handler)
        parameters = inspect.signature(handler).parameters.values()
        return Command(
            name or json_name(handler.__name__),
            roles,
            _summary(handler),
            [
                Argument(json_name(each.name), types[each.name], each.default is each.empty)
                for each in parameters
                if each.kind is each.KEYWORD_ONLY
            ],
            types["return"],
            handler,
        )

    return make


def event(declaration: type, roles: Role = Role.OBSERVE) -> EventType:
    """Makes a kind of event of a class, whose attributes are annotated and no more.

    Args:
        declaration: the class. What is not always there has the value None in it.
        roles: who is told.
    """
    types = typing.get_type_hints(declaration)
    return EventType(
        _WORD_BEGINS.sub("_", declaration.__name__).upper(),
        roles,
        _summary(declaration),
        [
            Argument(json_name(name), kind, not hasattr(declaration, name))
            for name, kind in types.items()
        ],
    )


class Registry:
    """All commands and events.

    Args:
        commands: the commands.
        events: the events.

    Attributes:
        commands: the commands by their names, sorted.
        events: the events, likewise.
    """

    def __init__(self, commands: Iterable[Command], events: Iterable[EventType]) -> None:
        self.commands: Final = {each.name: each for each in sorted(commands, key=_name)}
        self.events: Final = {each.name: each for each in sorted(events, key=_name)}
        self._parts: dict[Role, Registry] = {}

    def command(self, name: str, roles: Role) -> Command:
        """Finds a command.

        Args:
            name: its name.
            roles: what the socket is for.

        Raises:
            CommandError: There is none, or it is not for such a socket.
        """
        found = self.commands.get(name)
        if found is None:
            what = suggestion(name, self.commands) or "; query-commands lists them"
            raise CommandError(
                f"there is no command {_quoted(name)}{what}", ErrorClass.COMMAND_NOT_FOUND
            )
        if not found.roles & roles:
            raise CommandError(
                f"{found.name} is not for this socket, whose role is"
                f" {'+'.join(role_names(roles))}: it needs {' or '.join(role_names(found.roles))}",
                ErrorClass.COMMAND_NOT_FOUND,
            )
        return found

    def is_told(self, name: str, roles: Role) -> bool:
        """Whether those at a socket with some roles are told of an event."""
        return name in self.events and bool(self.events[name].roles & roles)

    def for_roles(self, roles: Role) -> "Registry":
        """Gives what is for a socket with some roles, the same object each time."""
        if roles not in self._parts:
            self._parts[roles] = Registry(
                (each for each in self.commands.values() if each.roles & roles),
                (each for each in self.events.values() if each.roles & roles),
            )
        return self._parts[roles]


def _quoted(name: str) -> str:
    """Gives a name as a message may have it; other text may be a secret in the wrong place."""
    return repr(name) if _NAME.fullmatch(name) else "of this name"


def _name(declared: Command | EventType) -> str:
    return declared.name


def _summary(declared: object) -> str:
    documentation = inspect.getdoc(declared)
    assert documentation
    return documentation.partition("\n")[0]
