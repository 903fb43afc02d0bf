# SPDX-License-Identifier: Apache-2.0
"""What `query-schema` tells: all commands and events with their types, for programs.

Source: QEMU, qapi/introspect.json (the answer of query-qmp-schema). Where QEMU has numbers for the
names of types, these have names; clients take no notice of them.
"""

import enum
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final

from ccid_protocol.qmp import JSON
from ccidd.service.control.registry import Argument, Registry
from ccidd.service.control.shapes import (
    Secret,
    alternatives,
    element_type,
    is_mapping,
    is_sequence,
    json_name,
)

_BUILTIN: Final[Mapping[object, str]] = {
    str: "str",
    Secret: "str",
    int: "int",
    float: "number",
    bool: "bool",
}
_JSON_TYPES: Final = {
    "str": "string",
    "int": "int",
    "number": "number",
    "bool": "boolean",
    "any": "value",
}
_NOTHING: Final = "empty"


@cache
def schema(registry: Registry) -> Sequence[Mapping[str, JSON]]:
    """Gives the schema, a list of what QEMU calls SchemaInfo."""
    types = _Types()
    entities: list[Mapping[str, JSON]] = [
        {
            "name": command.name,
            "meta-type": "command",
            "arg-type": types.object_of(f"{command.name}-arg", command.arguments),
            "ret-type": types.result(command.result),
        }
        for command in registry.commands.values()
    ]
    entities += [
        {
            "name": event.name,
            "meta-type": "event",
            "arg-type": types.object_of(f"{event.name}-arg", event.data),
        }
        for event in registry.events.values()
    ]
    return [*entities, *types.infos()]


class _Types:
    """The types that the schema names."""

    def __init__(self) -> None:
        self._infos: dict[str, Mapping[str, JSON]] = {}

    def infos(self) -> Iterable[Mapping[str, JSON]]:
        return self._infos.values()

    def result(self, annotation: object) -> str:
        """Gives the name of what a command returns; nothing is an empty object."""
        return self.object_of("", ()) if annotation is type(None) else self.name(annotation)

    def name(self, annotation: object) -> str:
        """Gives the name of a type, which is then in the schema."""
        several = alternatives(annotation)
        if len(several) > 1:
            return self._alternate(several)
        (only,) = several
        if is_sequence(only):
            return self._array(element_type(only))
        if is_mapping(only):
            return self._builtin("any")
        if only in _BUILTIN:
            return self._builtin(_BUILTIN[only])
        assert isinstance(only, type)
        return self._enumeration(only) if issubclass(only, enum.StrEnum) else self._record(only)

    def _record(self, annotation: type) -> str:
        hints = typing.get_type_hints(annotation)
        members = [
            Argument(json_name(name), hint, type(None) not in typing.get_args(hint))
            for name, hint in hints.items()
        ]
        return self.object_of(annotation.__name__, members)

    def object_of(self, name: str, members: Iterable[Argument]) -> str:
        """Gives the name of an object with some members."""
        described = []
        for member in members:
            info: dict[str, JSON] = {"name": member.name, "type": self.name(member.type)}
            if not member.is_required:
                info["default"] = None
            described.append(info)
        return self._add(name if described else _NOTHING, "object", members=described)

    def _array(self, element: object) -> str:
        of = self.name(element)
        return self._add(f"[{of}]", "array", **{"element-type": of})

    def _builtin(self, name: str) -> str:
        return self._add(name, "builtin", **{"json-type": _JSON_TYPES[name]})

    def _enumeration(self, choices: type[enum.StrEnum]) -> str:
        values = [each.value for each in choices]
        members = [{"name": value} for value in values]
        return self._add(choices.__name__, "enum", values=values, members=members)

    def _alternate(self, several: Iterable[object]) -> str:
        names = [self.name(each) for each in several]
        members = [{"type": name} for name in names]
        return self._add("|".join(names), "alternate", members=members)

    def _add(self, name: str, meta_type: str, **more: JSON) -> str:
        self._infos[name] = {"name": name, "meta-type": meta_type, **more}
        return name
