# SPDX-License-Identifier: Apache-2.0
"""The command line of `ccidd check`."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from ccidd.errors import UserError
from ccidd.service.agents import check_agents
from ccidd.service.check.finding import Finding, Severity, refusal
from ccidd.service.check.plan import Subject, checks_of
from ccidd.service.check.running import TIMEOUT, run_checks
from ccidd.service.check.state import StatePlace
from ccidd.service.configfile import survey_configuration
from ccidd.service.configuration import Configuration
from ccidd.service.control.options import ControlOptions
from ccidd.service.parser import OneLineParser, path, state_directory
from ccidd.service.state import find_key_file

_DESCRIPTION: Final = """\
Looks at all that serving would need, with the same options, and tells what it finds, one line each.
Nothing is served, made or changed, and no PIN is tried. Run it as the user that ccidd runs as.
The exit status is 0 (warnings allowed), 1 (errors) or 2 (wrong options).
"""


def check_parser(make_parser: Callable[[str, str, str], OneLineParser]) -> OneLineParser:
    """Makes the parser of `ccidd check`.

    Args:
        make_parser: makes that of serving, with another name, description and epilogue.
    """
    parser = make_parser("ccidd check", _DESCRIPTION, "")
    parser.add_argument(
        "--qemu",
        metavar="PATH",
        type=path,
        help="the QEMU whose devices are looked at (default: each qemu-system-… in $PATH)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser


def run(
    options: argparse.Namespace,
    configuration: Configuration | None,
    file: Path | None,
    control: Sequence[ControlOptions] = (),
) -> None:
    """Runs the checks, and prints what they find.

    Args:
        options: those of `check_parser`.
        configuration: what the command line says, if there is no file.
        file: the configuration file, if there is one.
        control: the control sockets that are to be there beside those of the file.

    Raises:
        UserError: There is no place for the state.
        SystemExit: There are errors.
    """
    # What is worth telling is found.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    findings = _findings(options, configuration, file, control)
    errors, warnings = (
        sum(each.severity is severity for each in findings)
        for severity in (Severity.ERROR, Severity.WARNING)
    )
    if options.json:
        told = [{**asdict(each), "severity": each.severity.value} for each in findings]
        print(json.dumps({"findings": told, "errors": errors, "warnings": warnings}, indent=2))  # noqa: T201
    else:
        for each in findings:
            print(each)  # noqa: T201 (this is what it is for)
        print(f"errors: {errors}, warnings: {warnings}")  # noqa: T201
    sys.stdout.flush()
    if errors:
        sys.exit(1)


def _findings(
    options: argparse.Namespace,
    configuration: Configuration | None,
    file: Path | None,
    control: Sequence[ControlOptions],
) -> list[Finding]:
    problems = []
    if configuration is None:
        assert file is not None
        try:
            configuration, refusals = trio.run(_survey, file)
        except UserError as error:
            return [refusal(error)]
        problems = [refusal(each) for each in refusals]
    configuration = replace(
        configuration,
        control=(*control, *configuration.control),
        metrics_file=options.metrics_file or configuration.metrics_file,
    )
    try:
        check_agents(configuration)
    except UserError as error:
        # systemd may pass it.
        problems.append(refusal(error, Severity.WARNING))
    directory = state_directory(options.state_dir or configuration.state_dir)
    key_file = find_key_file(options.state_key_file or configuration.state_key_file, os.environ)
    subject = Subject(configuration, StatePlace(directory, key_file), file, options.qemu)
    found = trio.run(partial(run_checks, list(checks_of(subject))))
    return [*problems, *found]


async def _survey(file: Path) -> tuple[Configuration, Sequence[UserError]]:
    """Reads the file, which may be on a server that is gone."""
    with trio.move_on_after(TIMEOUT):
        return await trio.to_thread.run_sync(survey_configuration, file, abandon_on_cancel=True)
    raise UserError(f"cannot read {file}: no answer within {TIMEOUT:g} s")
