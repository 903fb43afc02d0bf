# SPDX-License-Identifier: Apache-2.0
"""The configuration that comes with the package serves nothing, and its examples can be used."""

import re
from pathlib import Path

import pytest

from ccidd.errors import UserError
from ccidd.service.configfile import load_configuration

CONFIGURATION = Path(__file__).parents[2] / "packaging" / "ccidd.toml"


def test_it_has_no_reader_until_somebody_says_so() -> None:
    with pytest.raises(UserError, match="there is no reader"):
        load_configuration(CONFIGURATION, {})


def test_its_examples_can_be_used(tmp_path: Path) -> None:
    text = CONFIGURATION.read_text(encoding="utf-8")
    file = tmp_path / "ccidd.toml"
    file.write_text(re.sub(r"^# (?=\[|[a-z-]+ = )", "", text, flags=re.MULTILINE))
    readers = load_configuration(file, {}).readers
    assert [reader.name for reader in readers] == ["alice", "bob", "carol"]
