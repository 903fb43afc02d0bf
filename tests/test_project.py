# SPDX-License-Identifier: Apache-2.0
"""What holds for the project as a whole."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SPDX = "# SPDX-License-Identifier: Apache-2.0"


PLACES = ("ccidd", "protocol", "tests", "qemu-integration", "packaging", ".ci", "dev")


def programs() -> list[Path]:
    found = [path for place in PLACES for path in [ROOT / place, *(ROOT / place).rglob("*")]]
    files = [path for path in found if path.is_file()]
    return [p for p in files if p.suffix == ".py" or p.read_bytes().startswith(b"#!")]


@pytest.mark.parametrize("path", programs(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_program_names_its_licence_at_its_top(path: Path) -> None:
    assert SPDX in path.read_text(encoding="utf-8").splitlines()[:4]


def test_the_architecture_names_files_that_are_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tests|qemu-integration)/[\w/.-]+)`", text):
        assert (ROOT / name).exists(), name
