# SPDX-License-Identifier: Apache-2.0
"""The command line of `./dev bench`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

import trio

from harness.bench import roundtrips, service, signatures, start
from harness.bench.figures import Report
from harness.errors import HarnessError

PARTS: Final = {
    "service": service.measure,
    "guest": roundtrips.measure,
    "signatures": signatures.measure,
    "start": start.measure,
}


async def bench(parts: list[str], write: Path | None) -> None:
    """Measure, print a table, and write it if that is wanted."""
    report = Report()
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="ccidd-bench-") as directory:
            await PARTS[part](report, Path(directory))
    if write is not None:
        report.write(write)


def main() -> None:
    """Run what the arguments name."""
    parser = argparse.ArgumentParser(prog="./dev bench")
    parser.add_argument("part", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument(
        "--write", type=Path, metavar="FILE.md", help="also write a table, and a plot beside it"
    )
    options = parser.parse_args()
    for part in options.part:
        if part not in PARTS:
            parser.error(f"there is no part {part}; there are {', '.join(PARTS)}")
    try:
        trio.run(bench, options.part or list(PARTS), options.write)
    except HarnessError as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
