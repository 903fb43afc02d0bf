# SPDX-License-Identifier: Apache-2.0
"""The documentation says what is so, as far as a program can tell: links, options, files."""

import grp
import pwd
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccidd.service import cardcommand, cli
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.check.command import check_parser
from ccidd.service.configfile import survey_configuration
from ccidd.service.ctl import cli as ctl
from ccidd.service.options import PCSC, READER_OPTIONS, OptionHelp, card_options
from ccidd.service.vscclient import cli as vscclient
from documents import DOCUMENTS, ROOT, blocks, name_of, without_blocks
from parsers import commands_of, options_of

OF_OTHERS = {
    "--admin",  # piv-tool
    "--chroot",  # swtpm
    "--decrypt",  # pkcs11-tool
    "--genkey",  # piv-tool
    "--pcap",  # swtpm
    "--pin",  # pkcs11-tool
    "--runas",  # swtpm
    "--scp11",  # yubico-piv-tool
    "--send-apdu",  # piv-tool
    "--shell",  # ./dev demo
    "--sign",  # pkcs11-tool
}
"""Options that the documents name alone, and that are other programs'."""

PROGRAMS = {
    "ccidd": cli._parser(),
    "ccidctl": ctl.make_parser(),
    "ccidd-vscclient": vscclient._parser(),
}
COMMANDS = {
    "ccidd check": check_parser(cli._parser),
    **{f"ccidd card {name}": each for name, each in commands_of(cardcommand._parser()).items()},
    **{f"ccidctl {name}": each for name, each in commands_of(PROGRAMS["ccidctl"]).items()},
}
ALL = {**PROGRAMS, **COMMANDS}


def inline_code(document: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", without_blocks(document))


def anchors(document: Path) -> set[str]:
    """Gives the names that a page of GitHub's has for the headings of a document."""
    titles = re.findall(r"^#+ (.*)$", without_blocks(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^):]+)\)", document.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_document_is_found_from_the_readme(document: Path) -> None:
    if document.parent.name == "docs":
        assert f"(docs/{document.name})" in (ROOT / "README.md").read_text(encoding="utf-8")


def commands(document: Path) -> Iterator[list[str]]:
    """Finds the commands of ccidd's programs: each a program with its arguments."""
    lines = [line for block in blocks(document, "sh", "console") for line in joined(block)]
    for line in [*lines, *inline_code(document)]:
        words = shlex.split(line.removeprefix("$ ").replace("'…'", "…"), comments=True)
        for index, word in enumerate(words):
            if word.rpartition("/")[2] in PROGRAMS:
                rest = words[index + 1 :]
                end = [i for i, each in enumerate(rest) if re.match(r"[|&;>]", each)]
                yield [word.rpartition("/")[2], *(rest[: end[0]] if end else rest)]
                break


def joined(block: str) -> list[str]:
    """Gives the lines of a block, those joined that a backslash continues."""
    return [
        line
        for line in re.sub(r"\\\n\s*", " ", block).splitlines()
        if not line.count('"') % 2 and not line.count("'") % 2
    ]


def options_for(program: str, arguments: list[str]) -> set[str]:
    """Gives the options of a program, and of the command of its that is run."""
    words = [program, *(each for each in arguments if not each.startswith("-"))]
    called = {" ".join(words[:count]) for count in (1, 2, 3)}
    return {option for name in called & ALL.keys() for option in options_of(ALL[name])}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_have_options_that_there_are(document: Path) -> None:
    for program, *arguments in commands(document):
        known = options_for(program, arguments)
        for argument in arguments:
            name, _, value = argument.partition("=")
            if name.startswith("--") and name != "--":
                assert name in known, f"{program} {' '.join(arguments)}"
                check_value(name, value)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_options_named_alone_are_those_of_some_program(document: Path) -> None:
    known = {option for parser in ALL.values() for option in options_of(parser)}
    for code in inline_code(document):
        if code.startswith("--"):
            name, _, value = re.split(r"[ \[]", code)[0].partition("=")
            assert name in known | OF_OTHERS, code
            check_value(name, value)


def check_value(name: str, value: str) -> None:
    """Checks the names of the options in a `--card` or a `--reader`."""
    if name == "--card" and value not in {"", "help"}:
        kind, *assignments = value.split(",")
        if kind not in {"TYPE", "…"}:
            assert kind in {*CARD_TYPES, PCSC}, value
            check_names(assignments, dict(card_options(kind)))
    elif name == "--reader" and value not in {"", "help"}:
        check_names(value.split(","), dict(READER_OPTIONS))


def check_names(assignments: list[str], known: dict[str, OptionHelp]) -> None:
    for assignment in assignments:
        name, equals, _ = assignment.partition("=")
        # What follows a comma without an equals sign is more of a value.
        if equals and name != "OPTION":
            assert any(
                re.fullmatch(option.pattern or re.escape(key), name) or name == key
                for key, option in known.items()
            ), assignment


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_configurations_can_be_read(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The users and groups in examples are not this machine's.
    monkeypatch.setattr("grp.getgrnam", lambda _name: grp.getgrgid(0))
    monkeypatch.setattr("pwd.getpwnam", lambda _name: pwd.getpwuid(0))
    file = tmp_path / "ccidd.toml"
    for block in blocks(document, "toml"):
        file.write_text(block)
        configuration, problems = survey_configuration(file)
        assert configuration.readers
        assert not problems
