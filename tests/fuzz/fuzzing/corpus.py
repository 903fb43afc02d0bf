# SPDX-License-Identifier: Apache-2.0
"""The targets, the inputs that are kept for them, and inputs that were found to fail."""

import hashlib
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias, cast

from fuzzing import targets

Run: TypeAlias = Callable[[bytes], None]
"""Feeds an input to what a target is about; raises if what must hold does not."""

ROOT: Final = Path(__file__).parents[3]
CORPUS: Final = ROOT / "tests/fuzz/corpus"
CACHE: Final = ROOT / ".cache/fuzz"

TARGETS: Final = sorted(module.name for module in pkgutil.iter_modules(targets.__path__))


def load(target: str) -> Run:
    """Imports a target."""
    return cast("Run", importlib.import_module(f"fuzzing.targets.{target}").run)


def kept(target: str) -> list[Path]:
    """Gives the inputs that are kept for a target."""
    return sorted(path for path in (CORPUS / target).iterdir() if path.is_file())


def keep_finding(target: str, data: bytes) -> Path:
    """Writes an input that failed into a file of the cache, and tells which."""
    path = CACHE / "findings" / f"{target}-{hashlib.sha256(data).hexdigest()[:16]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
