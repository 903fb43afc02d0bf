# SPDX-License-Identifier: Apache-2.0
"""Shells complete what the programs take."""

import subprocess
from pathlib import Path

import pytest

from ccidd.service.completion import completion, files
from ccidd.service.ctl.cli import make_parser

COMPLETION = Path(__file__).parents[2] / "packaging" / "completion"


def test_the_files_of_packages_are_those_of_the_parsers() -> None:
    kept = {file.name: file.read_text(encoding="utf-8") for file in COMPLETION.iterdir()}
    made = files()
    stale = [name for name in kept.keys() | made.keys() if kept.get(name) != made.get(name)]
    assert not stale, "run `.venv/bin/python -m ccidd.service.completion packaging/completion`"


def test_what_ccidctl_prints_is_the_same() -> None:
    kept = (COMPLETION / "ccidctl.bash").read_text(encoding="utf-8")
    assert completion(make_parser(), "bash") == kept


def completed(line: str, directory: Path) -> set[str]:
    """Gives what bash offers at the end of a line."""
    *words, last = line.split(" ")
    script = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))\n'
        '"$(complete -p "$1" | sed "s/.* -F \\([^ ]*\\).*/\\1/")"; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    file = COMPLETION / f"{words[0]}.bash"
    result = subprocess.run(
        ["bash", "-uc", script, "bash", file, *words, last],
        check=True,
        capture_output=True,
        text=True,
        cwd=directory,
    )
    assert result.stderr == ""
    return {each.strip() for each in result.stdout.splitlines()}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ccidctl w", {"watch"}),
        ("ccidctl re", {"readers", "requests", "reader", "reload"}),
        ("ccidctl card s", {"swap"}),
        ("ccidctl card unblock --which ", {"pin", "puk", "global"}),
        ("ccidctl log-level w", {"warning"}),
        ("ccidctl watch --rec", {"--reconnect"}),
        ("ccidctl --socket con", {"control.sock"}),
        ("ccidd card exp", {"export"}),
        ("ccidd --transport v", {"vscard"}),
        ("ccidd --config cc", {"ccidd.toml"}),
        ("ccidd-vscclient --state-d", {"--state-dir"}),
    ],
)
def test_bash_offers_what_fits(line: str, offered: set[str], tmp_path: Path) -> None:
    for name in ("control.sock", "ccidd.toml"):
        (tmp_path / name).touch()
    assert completed(line, tmp_path) == offered
