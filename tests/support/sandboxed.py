# SPDX-License-Identifier: Apache-2.0
"""Python programs in a sandbox: in a process of their own, since nothing comes out of one again."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Final

from ccidd.service.configuration import Configuration, ReaderConfiguration
from ccidd.service.options import parse_card
from ccidd.service.sandbox.confine import Mode
from ccidd.service.sandbox.derivation import needs_of
from ccidd.service.sandbox.needs import Needs
from ccidd.service.sandbox.surroundings import Surroundings

_PROGRAM: Final = """
import errno, os, pickle, sys
from ccidd.service.log import configure_log
from ccidd.service.sandbox.confine import Mode, confine

def refusal(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return None

configure_log("info")
{before}
confinement = confine(pickle.loads(bytes.fromhex("{needs}")), Mode.{mode})
{program}
"""


def needs_here(state: Path, *cards: str) -> Needs:
    """Tells what a reader with some cards needs.

    Args:
        state: the state directory.
        cards: the cards, as `--card` has them.
    """
    reader = ReaderConfiguration(cards=tuple(parse_card(card) for card in cards))
    return needs_of(Configuration((reader,)), Surroundings.here(state, None, {}))


def program_source(program: str, needs: Needs, mode: Mode, before: str = "") -> str:
    """Gives the source of a program that is confined first; see `run_sandboxed`."""
    return _PROGRAM.format(
        before=before, needs=pickle.dumps(needs).hex(), mode=mode.name, program=program
    )


def run_sandboxed(
    program: str, needs: Needs, *, mode: Mode = Mode.ON, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs a program that is confined first.

    Args:
        program: its source; it has `confinement`, and `refusal(action, *arguments)`, which gives
            the name of the error that an action fails with.
        needs: what is left to it.
        mode: how it is confined.
        before: what comes before that.
    """
    return subprocess.run(
        [sys.executable, "-c", program_source(program, needs, mode, before)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def output_of(program: str, needs: Needs) -> list[str]:
    """Gives the words that a program prints in the sandbox."""
    result = run_sandboxed(program, needs)
    assert result.stderr == ""
    return result.stdout.split()
