# SPDX-License-Identifier: Apache-2.0
"""`./dev fuzz`: campaigns, side by side on all cores; docs/fuzzing.md tells more."""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from fuzzing.corpus import CACHE, CORPUS, TARGETS, load

_MAX_SIZE: Final = 4096
_MAX_MEMORY: Final = 1024
"""MiB: an input that makes ccidd take more has found something."""
_MAX_TIME: Final = 30
"""Seconds that one input may take."""


def main() -> None:
    """Fuzzes the targets that are named, or all; ends with status 1 if an input failed."""
    parser = _parser()
    arguments = parser.parse_args()
    for target in arguments.targets:
        if target not in TARGETS:
            parser.error(f"no such target: {target}; there are {', '.join(TARGETS)}")
    if arguments.input is not None:
        for target in arguments.targets:
            load(target)(arguments.input.read_bytes())
        return
    (CACHE / "findings").mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        campaigns = {
            target: pool.submit(_fuzz, target, arguments.seconds) for target in arguments.targets
        }
        failed = [target for target, campaign in campaigns.items() if not campaign.result()]
    if failed:
        sys.exit(f"fuzz: failed: {', '.join(failed)}; the inputs are in {CACHE / 'findings'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev fuzz", description="Feeds hostile input to what reads what comes from outside."
    )
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        default=TARGETS,
        help=f"what to fuzz: {', '.join(TARGETS)}; all if none is named",
    )
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time (one a core)"
    )
    parser.add_argument("--input", type=Path, metavar="FILE", help="only try what is in the file")
    return parser


def _fuzz(target: str, seconds: int) -> bool:
    """Runs one campaign, and tells whether no input failed."""
    found, log = CACHE / "corpus" / target, CACHE / f"{target}.log"
    found.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "fuzzing.campaign", target, str(found), str(CORPUS / target),
        f"-artifact_prefix={CACHE / 'findings'}/{target}-",
        f"-max_total_time={seconds}", f"-max_len={_MAX_SIZE}",
        f"-rss_limit_mb={_MAX_MEMORY}", f"-timeout={_MAX_TIME}",
    ]  # fmt: skip
    with log.open("wb") as output:
        ended = subprocess.run(command, stdout=output, stderr=output, check=False)
    outcome = "FAILED" if ended.returncode else "nothing found"
    sys.stdout.write(f"{target}: {outcome} (log: {log})\n")
    sys.stdout.flush()
    return ended.returncode == 0


if __name__ == "__main__":
    main()
