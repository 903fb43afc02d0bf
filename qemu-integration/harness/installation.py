# SPDX-License-Identifier: Apache-2.0
"""A disk with ccidd as it is installed: its wheel, what that needs, and the files of `packaging/`.

    devices = ["-drive", f"file={ccidd_disk('bookworm')},format=raw,if=virtio,snapshot=on"]

It is mounted in a guest as /usr/lib/ccidd, and Python finds ccidd there.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Final

from harness.debian import CACHE, REPOSITORY, cached, run_logged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PYTHONS: Final = {"bookworm": "3.11", "trixie": "3.13"}
"""The Python of each Debian release."""

# PEP 600: what wheels for these releases' C library are called.
_PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64")
_SOURCES: Final = ("ccidd", "protocol", "packaging")
_BLOCK_SIZE: Final = 4096
_SPARE_BYTES: Final = 4 << 20


def ccidd_disk(release: str, *, cache: Path = CACHE) -> Path:
    """Return an ext2 file system with ccidd for a Debian release; it takes some seconds to make.

    Blocks; call it before trio runs.

    Args:
        release: Debian's name for it.
        cache: Where it is kept.

    Raises:
        HarnessError: It could not be made.
    """

    def build(directory: Path, log: Path) -> None:
        _build(release, directory, log)

    return cached("installation", release, _inputs(release), build, cache=cache) / "ccidd.img"


def _inputs(release: str) -> Iterator[bytes]:
    yield release.encode()
    files = [REPOSITORY / name for name in ("pyproject.toml", "constraints.txt")]
    for name in _SOURCES:
        files += sorted(path for path in (REPOSITORY / name).rglob("*") if path.is_file())
    for file in files:
        if "__pycache__" not in file.parts:
            yield str(file.relative_to(REPOSITORY)).encode()
            yield file.read_bytes()


def _build(release: str, directory: Path, log: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    constraints = str(REPOSITORY / "constraints.txt")
    wheels, tree = directory / "wheels", directory / "tree"
    argv = [*pip, "wheel", "--no-deps", f"--wheel-dir={wheels}"]
    run_logged([*argv, f"--build-constraint={constraints}", str(REPOSITORY)], log)
    (wheel,) = wheels.glob("ccidd-*.whl")
    argv = [*pip, "install", f"--target={tree}", f"--constraint={constraints}"]
    argv += [f"--python-version={PYTHONS[release]}", "--implementation=cp"]
    argv += ["--only-binary=:all:", *(f"--platform={platform}" for platform in _PLATFORMS)]
    run_logged([*argv, str(wheel)], log)
    shutil.copytree(REPOSITORY / "packaging", tree / "packaging")
    size = sum(file.stat().st_size + _BLOCK_SIZE for file in tree.rglob("*")) + _SPARE_BYTES
    argv = ["genext2fs", f"--root={tree}", "--squash-uids", f"--block-size={_BLOCK_SIZE}"]
    argv += [f"--size-in-blocks={size // _BLOCK_SIZE}", "--bytes-per-inode=8192"]
    run_logged([*argv, str(directory / "ccidd.img")], log)
    for done in (wheels, tree):
        shutil.rmtree(done)
