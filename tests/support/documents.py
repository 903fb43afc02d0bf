# SPDX-License-Identifier: Apache-2.0
"""The documents of the project, and the code in them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))


def name_of(path: Path) -> str:
    """Names the case of a test."""
    return path.name


def blocks(document: Path, *languages: str) -> Iterator[str]:
    """Gives the blocks of code in some languages, without their indentation."""
    text = document.read_text(encoding="utf-8")
    for match in re.finditer(r"^( *)```(\w+)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        if match[2] in languages:
            yield re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE)


def without_blocks(document: Path) -> str:
    """Gives the text of a document, without its blocks of code."""
    return re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
