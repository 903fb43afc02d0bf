# SPDX-License-Identifier: Apache-2.0
"""Which guests and which QEMUs the tests run with, and what a failing test shows."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import secret_plugin
from harness.errors import tail
from harness.image import Image, guest_image
from harness.qemu import Qemu, named_qemu

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_SHOWN_LINES = 60


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("guests")
    group.addoption(
        "--release",
        default="bookworm",
        help="the Debian releases in the guests, with commas between: bookworm, trixie",
    )
    group.addoption(
        "--qemu",
        default="system",
        help="the QEMUs, with commas between: system, or the Debian release to take one from",
    )


def pytest_configure(config: pytest.Config) -> None:
    # The tests without guests have it too.
    if not config.pluginmanager.is_registered(secret_plugin):
        config.pluginmanager.register(secret_plugin)


@contextmanager
def _output_shown(config: pytest.Config) -> Iterator[None]:
    """Let the harness say that it builds something, which takes minutes."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        yield


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, option in (("image", "--release"), ("qemu", "--qemu")):
        if fixture in metafunc.fixturenames:
            chosen = str(metafunc.config.getoption(option)).split(",")
            ids = [f"{fixture}-{name}" for name in chosen]
            metafunc.parametrize(fixture, chosen, ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Image:
    """A guest that can be booted, of each release in `--release`."""
    with _output_shown(request.config):
        return guest_image(request.param)


@pytest.fixture(scope="session")
def qemu(request: pytest.FixtureRequest) -> Qemu:
    """Each QEMU in `--qemu`."""
    with _output_shown(request.config):
        return named_qemu(request.param)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the ends of a failing test's logs to its report, and name its captures."""
    report = yield
    workdir = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and isinstance(workdir, Path):
        for log in sorted(workdir.rglob("*.log")):
            report.sections.append((str(log.relative_to(workdir)), tail(log, _SHOWN_LINES)))
        captures = [str(capture) for capture in sorted(workdir.rglob("*.pcap"))]
        if captures:
            report.sections.append(("USB captures, for Wireshark", "\n".join(captures)))
    return report
