# SPDX-License-Identifier: Apache-2.0
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.qmp import JSON, ErrorClass
from ccidd.service.control.commands import REGISTRY
from ccidd.service.control.errors import CommandError
from ccidd.service.control.registry import Registry, command, event
from ccidd.service.control.roles import DEFAULT, NAMES, Role
from ccidd.service.control.schema import schema
from ccidd.service.control.shapes import Secret, to_json


class Colour(enum.StrEnum):
    RED = "red"
    GREEN = "green"


@dataclass(frozen=True)
class Answer:
    some_number: int
    colours: Sequence[Colour]
    left_out: str | None = None


@command(Role.OPERATE)
async def paint_it(
    _context: object,
    *,
    the_name: str,
    colour: Colour,
    size: int = 0,
    weight: float = 0.0,
    shiny: bool = False,
    pin: Secret | None = None,
    what: str | Mapping[str, JSON] = "",
    times: Sequence[int] = (),
) -> Answer:
    """Paints something.

    And more about it.
    """
    return Answer(1, [colour])


class SomethingPainted:
    """Something has another colour."""

    the_name: str
    colour: Colour | None = None


EXAMPLE = Registry([paint_it], [event(SomethingPainted, Role.OBSERVE | Role.AGENT)])
WHOLE: Mapping[str, JSON] = {
    "the-name": "a",
    "colour": "red",
    "size": 2,
    "weight": 1,
    "shiny": True,
    "pin": "123456",
    "what": {"a": [None]},
    "times": [1, 2],
}


def refusal(arguments: Mapping[str, JSON]) -> str:
    with pytest.raises(CommandError) as refused:
        paint_it.check(arguments)
    assert refused.value.error_class is ErrorClass.GENERIC_ERROR
    return str(refused.value)


def test_a_command_is_what_its_function_is() -> None:
    assert paint_it.name == "paint-it"
    assert paint_it.summary == "Paints something."
    assert [each.name for each in paint_it.arguments if each.is_required] == ["the-name", "colour"]


def test_arguments_come_by_their_names_in_python() -> None:
    assert paint_it.check(WHOLE) == {
        "the_name": "a",
        "colour": Colour.RED,
        "size": 2,
        "weight": 1,
        "shiny": True,
        "pin": Secret("123456"),
        "what": {"a": [None]},
        "times": [1, 2],
    }
    assert "123456" not in repr(paint_it.check(WHOLE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "2"}, "the argument size of paint-it is to be an integer"),
        ({"size": True}, "the argument size of paint-it is to be an integer"),
        ({"size": 2.0}, "the argument size of paint-it is to be an integer"),
        ({"size": None}, "the argument size of paint-it is to be an integer"),
        ({"weight": "2"}, "the argument weight of paint-it is to be a number"),
        ({"weight": False}, "the argument weight of paint-it is to be a number"),
        ({"shiny": 1}, "the argument shiny of paint-it is to be true or false"),
        ({"pin": 123456}, "the argument pin of paint-it is to be a string"),
        ({"pin": "123456\0"}, "the argument pin of paint-it is to have no NUL in it"),
        ({"what": {"a": [{"b": "123456\0"}]}}, "what of paint-it is to have no NUL in it"),
        ({"what": {"123456\0": 1}}, "what of paint-it is to have no NUL in it"),
        ({"the-name": ["123456"]}, "the argument the-name of paint-it is to be a string"),
        ({"what": 1}, "the argument what of paint-it is to be a string or an object"),
        ({"times": "12"}, "the argument times of paint-it is to be a list"),
        ({"times": [1, "2"]}, "an element of the argument times of paint-it is to be an integer"),
        ({"colour": 1}, "the argument colour of paint-it is to be one of red, green"),
        ({"colour": "gren"}, "is to be one of red, green; did you mean green?"),
        ({"colour": "123456"}, "the argument colour of paint-it is to be one of red, green"),
        ({"siez": 1}, "paint-it has no argument 'siez'; did you mean size?"),
        ({"the_name": "a"}, "paint-it has no argument 'the_name'; did you mean the-name?"),
        ({"123456": 1}, "paint-it has no argument of this name; it has the-name, colour, size"),
    ],
)
def test_wrong_arguments_are_told_without_their_values(
    change: Mapping[str, JSON], message: str
) -> None:
    text = refusal({**WHOLE, **change})
    assert message in text
    assert "123456" not in text


def test_missing_arguments_are_told() -> None:
    assert refusal({"the-name": "a"}) == "paint-it needs the argument colour"


@given(st.dictionaries(st.sampled_from(list(WHOLE)), st.from_type(type(None)) | st.text()))
def test_arguments_are_right_or_refused(change: dict[str, JSON]) -> None:
    try:
        checked = paint_it.check({**WHOLE, **change})
    except CommandError:
        return
    assert set(checked) == {name.replace("-", "_") for name in WHOLE}


def test_results_are_json() -> None:
    assert to_json(Answer(1, [Colour.RED])) == {"some-number": 1, "colours": ["red"]}
    assert to_json([{"a": None}, 1.5, (True,)]) == [{"a": None}, 1.5, [True]]


def test_the_schema_is_as_qemus() -> None:
    described = {(info["name"], info["meta-type"]): info for info in schema(EXAMPLE)}
    assert described["paint-it", "command"]["arg-type"] == "paint-it-arg"
    assert described["paint-it", "command"]["ret-type"] == "Answer"
    assert described["SOMETHING_PAINTED", "event"]["arg-type"] == "SOMETHING_PAINTED-arg"
    assert described["SOMETHING_PAINTED-arg", "object"]["members"] == [
        {"name": "the-name", "type": "str"},
        {"name": "colour", "type": "Colour", "default": None},
    ]
    assert described["Answer", "object"]["members"] == [
        {"name": "some-number", "type": "int"},
        {"name": "colours", "type": "[Colour]"},
        {"name": "left-out", "type": "str", "default": None},
    ]
    assert described["Colour", "enum"]["values"] == ["red", "green"]
    assert described["str|any", "alternate"]["members"] == [{"type": "str"}, {"type": "any"}]
    assert described["[Colour]", "array"]["element-type"] == "Colour"
    assert described["int", "builtin"]["json-type"] == "int"


@pytest.mark.parametrize("registry", [EXAMPLE, REGISTRY])
def test_each_type_that_the_schema_names_is_in_it(registry: Registry) -> None:
    infos = schema(registry)
    names = [info["name"] for info in infos]
    assert len(names) == len(set(names))
    for info in infos:
        used = [info[key] for key in ("arg-type", "ret-type", "element-type") if key in info]
        members = info.get("members", [])
        assert isinstance(members, Sequence)
        for member in members:
            assert isinstance(member, Mapping)
            used += [member["type"]] if "type" in member else []
        assert set(used) <= set(names)


# Who may what.


def test_a_command_for_others_is_refused_with_the_reason() -> None:
    assert EXAMPLE.command("paint-it", DEFAULT) is paint_it
    with pytest.raises(CommandError, match="whose role is observe\\+agent: it needs operate"):
        EXAMPLE.command("paint-it", Role.OBSERVE | Role.AGENT)
    with pytest.raises(CommandError, match="no command 'paint-ti'; did you mean paint-it") as no:
        EXAMPLE.command("paint-ti", DEFAULT)
    assert no.value.error_class is ErrorClass.COMMAND_NOT_FOUND
    with pytest.raises(CommandError, match="no command of this name; query-commands lists them"):
        EXAMPLE.command("x" * 50, DEFAULT)


def test_each_role_has_what_is_for_it() -> None:
    assert not EXAMPLE.for_roles(Role.OBSERVE).commands
    assert EXAMPLE.is_told("SOMETHING_PAINTED", Role.AGENT)
    assert not EXAMPLE.is_told("SOMETHING_PAINTED", Role.OPERATE)
    assert not EXAMPLE.is_told("SOMETHING_ELSE", DEFAULT)


def test_observing_is_reading() -> None:
    for each in REGISTRY.for_roles(NAMES["observe"]).commands.values():
        assert each.name.startswith(("query-", "qmp_capabilities"))
    for each in REGISTRY.commands.values():
        assert each.roles & NAMES["operate"] or each.roles == Role.AGENT
