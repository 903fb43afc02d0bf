# SPDX-License-Identifier: Apache-2.0
"""The manual pages say what the programs' own help says, and are well-formed.

Source: mdoc(7).
"""

import argparse
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from ccidd.service import cardcommand, cli, configfile
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.check.command import check_parser
from ccidd.service.control.options import CONTROL_OPTIONS
from ccidd.service.ctl.cli import make_parser as make_ctl_parser
from ccidd.service.options import PCSC, READER_OPTIONS, OptionHelp, card_options
from ccidd.service.vscclient import cli as vscclient
from parsers import commands_of, options_of

MANUAL = Path(__file__).parents[2] / "packaging" / "man"
PAGES = sorted(MANUAL.glob("man?/*"))

Options = dict[str, str | None]
"""The options of a program, with their leading hyphens, and what their values are called."""


def section(page: str, title: str) -> list[str]:
    """Gives the lines between a heading and the next of its rank."""
    lines = (MANUAL / f"man{page[-1]}" / page).read_text(encoding="utf-8").splitlines()
    rank = ".Sh" if f".Sh {title}" in lines else ".Ss"
    start = lines.index(f"{rank} {title}") + 1
    ends = (".Sh",) if rank == ".Sh" else (".Sh", ".Ss")
    rest = lines[start:]
    return rest[: next(i for i, line in enumerate([*rest, ".Sh"]) if line.startswith(ends))]


def on_page(lines: Iterable[str]) -> Options:
    """Finds the options that a page describes."""
    options: Options = {}
    for line in lines:
        if match := re.fullmatch(r"\.It Fl (.*?)(?:(?: Ns = Ns)? Ar (.*))?", line):
            names, value = match.groups()
            options |= {f"-{name}": value for name in names.split(" , ")}
    return options


@pytest.mark.parametrize(
    ("page", "parser"),
    [
        ("ccidd.1", cli._parser()),
        ("ccidctl.1", make_ctl_parser()),
        ("ccidd-vscclient.1", vscclient._parser()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_page_has_the_options_of_its_program(page: str, parser: argparse.ArgumentParser) -> None:
    assert on_page(section(page, "OPTIONS")) == options_of(parser)


def test_the_page_of_the_check_has_what_serving_has_not() -> None:
    options = options_of(check_parser(cli._parser))
    more = {name: options[name] for name in options.keys() - options_of(cli._parser())}
    assert on_page(section("ccidd-check.1", "OPTIONS")) == more


COMMANDS = {
    "ccidd-card.1": commands_of(cardcommand._parser()),
    "ccidctl.1": commands_of(make_ctl_parser()),
}


def heading(name: str, parser: argparse.ArgumentParser) -> str:
    """Gives the heading of a command: its name, and what else it takes."""
    words = [name]
    for action in parser._get_positional_actions():
        macro = {"?": "Op Ar", None: "Ar", "+": ""}[action.nargs]  # type: ignore[index] # a str or None in our parsers
        words += [*macro.split(), str(action.metavar), *(["..."] if action.nargs == "+" else [])]
    return " ".join(words)


@pytest.mark.parametrize(
    ("page", "name"), [(page, name) for page, commands in COMMANDS.items() for name in commands]
)
def test_a_page_has_the_options_of_each_command(page: str, name: str) -> None:
    options = options_of(COMMANDS[page][name])
    of_all = on_page(section(page, "OPTIONS"))
    described = on_page(section(page, heading(name, COMMANDS[page][name])))
    assert described == {each: options[each] for each in options.keys() - of_all.keys()}
    assert options.items() <= (of_all | described).items()


@pytest.mark.parametrize("page", COMMANDS)
def test_a_page_has_no_other_commands(page: str) -> None:
    headings = [line for line in section(page, "COMMANDS") if line.startswith(".Ss")]
    expected = [f".Ss {heading(name, parser)}" for name, parser in COMMANDS[page].items()]
    assert sorted(headings) == sorted(expected)


def values_on_page(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Finds the OPTION=VALUE pairs that a page describes."""
    for line in lines:
        if match := re.fullmatch(r"\.It Cm (\S+) Ns = Ns Ar (.*)", line):
            yield match[1], match[2]


def values_of(options: dict[str, OptionHelp]) -> list[tuple[str, str]]:
    return sorted((name, option.value) for name, option in options.items())


def test_the_page_has_what_a_card_is_made_from() -> None:
    options: dict[str, OptionHelp] = {}
    for kind in (*CARD_TYPES, PCSC):
        options |= card_options(kind)
    assert sorted(values_on_page(section("ccidd.1", "CARDS"))) == values_of(options)
    types = re.findall(r"^\.It Cm (\S+)$", "\n".join(section("ccidd.1", "CARDS")), re.MULTILINE)
    assert types == [*CARD_TYPES, PCSC]


def test_the_page_has_what_a_reader_is_like() -> None:
    described = sorted(values_on_page(section("ccidd.1", "THE READER")))
    assert described == values_of(dict(READER_OPTIONS))


def test_the_page_has_what_a_control_socket_is_like() -> None:
    described = sorted(values_on_page(section("ccidd.1", "CONTROL SOCKETS")))
    assert described == values_of(dict(CONTROL_OPTIONS))


@pytest.mark.parametrize(
    ("title", "keys"),
    [
        ("The top of the file", configfile._GLOBAL),
        ("Tables of readers", configfile.READER_KEYS),
    ],
)
def test_the_page_has_the_keys_of_the_file(title: str, keys: tuple[str, ...]) -> None:
    entries = [line for line in section("ccidd.toml.5", title) if line.startswith(".It Ic ")]
    described = [key for line in entries for key in line.removeprefix(".It Ic ").split(" , ")]
    assert sorted(described) == sorted(keys)


def test_the_example_of_the_file_can_be_read(tmp_path: Path) -> None:
    example = section("ccidd.toml.5", "EXAMPLES")
    file = tmp_path / "ccidd.toml"
    file.write_text("\n".join(line for line in example if not line.startswith(".")))
    assert len(configfile.load_configuration(file, {}).readers) == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_a_page_is_well_formed(page: Path) -> None:
    mandoc = subprocess.run(
        ["mandoc", "-Tlint", "-Wall", page], capture_output=True, text=True, check=False
    )
    # Which other pages there are depends on the machine.
    complaints = [
        line
        for line in (mandoc.stdout + mandoc.stderr).splitlines()
        if "referenced manual not found" not in line and "outdated mandoc.db" not in line
    ]
    man = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
        capture_output=True,
        text=True,
        check=True,
    )
    assert complaints + man.stderr.splitlines() == []


def test_the_pages_name_each_other_rightly() -> None:
    there = {page.name for page in PAGES}
    for page in PAGES:
        for name, number in re.findall(r"\.Xr (ccid\S*) (\d)", page.read_text(encoding="utf-8")):
            assert f"{name}.{number}" in there
