# SPDX-License-Identifier: Apache-2.0
"""The plugin of pytest that looks for secrets in all that tests leave behind.

After each test it searches what the test has printed and the files in its `tmp_path`, and after
the run all other temporary directories. A test that has to do with secrets in files says so:

    @pytest.mark.holds_secrets
"""

from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from secret_search import Finding, find_below, find_in

_HOLDERS = pytest.StashKey[set[Path]]()
_LATE = pytest.StashKey[Sequence[Finding]]()

_MAX_SHOWN = 10


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "holds_secrets: the test's files hold secrets, and are to hold them"
    )
    config.stash[_HOLDERS] = set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails the teardown of a test that has told a secret."""
    report = yield
    if call.when == "teardown":
        findings = _told_by(item, report)
        if findings:
            report.outcome = "failed"
            report.longrepr = _explained(findings)
    return report


def _told_by(item: pytest.Item, report: pytest.TestReport) -> Sequence[Finding]:
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    if item.get_closest_marker("holds_secrets") is not None:
        if isinstance(directory, Path):
            item.config.stash[_HOLDERS].add(directory)
        return []
    findings = [
        finding
        for title, text in report.sections
        for finding in find_in(text.encode(errors="replace"), title)
    ]
    if isinstance(directory, Path) and directory.is_dir():
        findings += find_below(directory)
        # What was found here is not to be found again.
        item.config.stash[_HOLDERS].add(directory)
    return findings


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Fails a run that has left secrets outside of the directories of single tests."""
    yield
    config = session.config
    factory = getattr(config, "_tmp_path_factory", None)
    directory = getattr(factory, "_basetemp", None)
    findings = []
    if isinstance(directory, Path) and directory.is_dir():
        searched = config.stash[_HOLDERS]
        findings = list(find_below(directory, frozenset(searched)))
    config.stash[_LATE] = findings
    if findings:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    findings = config.stash.get(_LATE, [])
    if findings:
        terminalreporter.section("secrets in what the tests have left", red=True)
        terminalreporter.line(_explained(findings))


def _explained(findings: Sequence[Finding]) -> str:
    shown = [str(finding) for finding in findings[:_MAX_SHOWN]]
    if len(findings) > _MAX_SHOWN:
        shown.append(f"and {len(findings) - _MAX_SHOWN} more")
    return "\n".join(["secrets in what a test has left:", *shown])
