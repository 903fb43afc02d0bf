# SPDX-License-Identifier: Apache-2.0
"""The types of arguments and results, between Python and JSON.

A command is an annotated function. Its arguments may be `str`, `Secret`, `int`, `float`, `bool`, a
`StrEnum`, a `Mapping` (any object), a `Sequence` of one of these, and a union of some that JSON
tells apart. Results may be dataclasses as well. An underscore in a name of Python's stands for a
hyphen in JSON, and what is None in a dataclass is left out.

No message holds a value: it may be a PIN.
"""

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Union

from ccid_protocol.qmp import JSON
from ccidd.service.configtable import suggestion
from ccidd.service.control.errors import CommandError


@dataclass(frozen=True, slots=True)
class Secret:
    """A string that is in no repr, log, event or error.

    Attributes:
        value: the string.
    """

    value: str = field(repr=False)


_EXPECTED: Final[Mapping[object, str]] = {
    str: "a string",
    Secret: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    Mapping: "an object",
    Sequence: "a list",
}


def json_name(name: str) -> str:
    """Gives the name in JSON of something that has a name in Python."""
    return name.replace("_", "-")


def alternatives(annotation: object) -> Sequence[object]:
    """Gives the types of a union, without None; of anything else, itself."""
    if typing.get_origin(annotation) in {Union, types.UnionType}:
        return [each for each in typing.get_args(annotation) if each is not type(None)]
    return [annotation]


def element_type(annotation: object) -> object:
    """Gives what a sequence is of."""
    return typing.get_args(annotation)[0]


def is_sequence(annotation: object) -> bool:
    """Whether a type is a sequence, other than a string."""
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Sequence)


def is_mapping(annotation: object) -> bool:
    """Whether a type is an object of which nothing is known."""
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def from_json(annotation: object, value: JSON, where: str) -> object:
    """Reads an argument.

    Args:
        annotation: its type.
        value: its value.
        where: what it is, for people.

    Raises:
        CommandError: It is of another type.
    """
    for each in alternatives(annotation):
        if is_sequence(each) and isinstance(value, Sequence) and not isinstance(value, str):
            element = element_type(each)
            return [from_json(element, item, f"an element of {where}") for item in value]
        if isinstance(each, type) and issubclass(each, enum.StrEnum) and isinstance(value, str):
            return _choice(each, value, where)
        if _fits(each, value):
            if _has_nul(value):
                raise CommandError(f"{where} is to have no NUL in it")
            return Secret(value) if each is Secret and isinstance(value, str) else value
    expected = " or ".join(dict.fromkeys(_expected(each) for each in alternatives(annotation)))
    raise CommandError(f"{where} is to be {expected}")


def _fits(annotation: object, value: JSON) -> bool:
    if annotation in {str, Secret}:
        return isinstance(value, str)
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return is_mapping(annotation) and isinstance(value, Mapping)


def _has_nul(value: JSON) -> bool:
    """Whether there is a NUL in any string, which would end it where C sees it."""
    match value:
        case str():
            return "\0" in value
        case Mapping():
            return any(map(_has_nul, (*value.keys(), *value.values())))
        case Sequence():
            return any(map(_has_nul, value))
    return False


def _choice(choices: type[enum.StrEnum], value: str, where: str) -> enum.StrEnum:
    names = [each.value for each in choices]
    if value not in names:
        raise CommandError(f"{where} is to be one of {', '.join(names)}{suggestion(value, names)}")
    return choices(value)


def _expected(annotation: object) -> str:
    if isinstance(annotation, type) and issubclass(annotation, enum.StrEnum):
        return f"one of {', '.join(annotation)}"
    return _EXPECTED[typing.get_origin(annotation) or annotation]


def to_json(value: object) -> JSON:
    """Gives a result in JSON."""
    if dataclasses.is_dataclass(value):
        members = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return {
            json_name(name): to_json(member)
            for name, member in members.items()
            if member is not None
        }
    if isinstance(value, enum.StrEnum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): to_json(member) for name, member in value.items()}
    assert isinstance(value, Sequence)
    return [to_json(each) for each in value]
