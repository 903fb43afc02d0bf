# SPDX-License-Identifier: Apache-2.0
"""docs/control.md names what there is, in the words of the code."""

from collections.abc import Iterable
from pathlib import Path

from ccidd.service.control.commands import REGISTRY
from ccidd.service.control.registry import Argument
from ccidd.service.control.roles import Role, role_names

GUIDE = Path(__file__).parents[4] / "docs" / "control.md"


def table_under(heading: str) -> list[str]:
    """Gives the rows of the first table under a heading, without the two lines at its top."""
    _, _, section = GUIDE.read_text().partition(f"\n{heading}\n")
    lines = section.partition("\n#")[0].splitlines()
    return [line for line in lines if line.startswith("|")][2:]


def row(name: str, arguments: Iterable[Argument], roles: Role, summary: str) -> str:
    names = ", ".join(
        f"`{each.name}`" if each.is_required else f"[`{each.name}`]" for each in arguments
    )
    return f"| `{name}` | {names} | {', '.join(role_names(roles))} | {summary} |"


def test_the_guide_has_all_commands() -> None:
    assert table_under("## Commands") == [
        row(each.name, each.arguments, each.roles, each.summary)
        for each in REGISTRY.commands.values()
    ]


def test_the_guide_has_all_events() -> None:
    assert table_under("## Events") == [
        row(each.name, each.data, each.roles, each.summary) for each in REGISTRY.events.values()
    ]


def test_each_event_is_emitted_somewhere() -> None:
    service = Path(__file__).parents[4] / "ccidd" / "service"
    sources = "".join(file.read_text() for file in service.rglob("*.py"))
    for name in REGISTRY.events:
        assert f'"{name}"' in sources
