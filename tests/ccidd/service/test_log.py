# SPDX-License-Identifier: Apache-2.0
"""The log in its forms, with values that would rather be more than a value."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccidd.service import log as log_module
from ccidd.service.log import FORMATS, configure_log, is_logged, set_log_level
from programs import CCIDD, started
from terminal import new_terminal

HOSTILE = "a\nlevel=error event=fault\r\x1b[2J\x00\x85\u2028\u202e\udc80\t<3>"
PIN = "62853971"
EACH_FORMAT = pytest.mark.parametrize("form", [form for form in FORMATS if form != "auto"])

_LOG_ONE_EVENT = """
import structlog
from ccidd.service.log import configure_log
configure_log("info")
structlog.get_logger().warning("happened", what="this")
"""
LOG_ONE_EVENT = [sys.executable, "-c", _LOG_ONE_EVENT]


@pytest.fixture(autouse=True)
def log_is_as_before() -> Iterator[None]:
    configuration = structlog.get_config()
    level = log_module._threshold.level
    yield
    structlog.configure(**configuration)
    log_module._threshold.level = level


def fail_with(pin: str) -> None:
    raise ValueError(HOSTILE if pin else "no PIN")


def written(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Gives the lines that were logged, cut as the most generous reader would cut them."""
    return capfd.readouterr().err.splitlines()


@EACH_FORMAT
def test_an_event_is_one_line_whatever_its_values_hold(
    form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_log("info", form)
    log = structlog.get_logger()
    log.info("connection_opened", guest=HOSTILE, readers=[HOSTILE], file=Path("a\nb"))
    (line,) = written(capfd)
    assert line.replace("\x1b[0m", "").isprintable()
    assert "connection_opened" in line


@EACH_FORMAT
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(value=st.text())
def test_no_text_makes_a_second_line(
    form: str, value: str, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_log("info", form)
    structlog.get_logger().info("connection_opened", guest=value)
    assert len(written(capfd)) == 1


@EACH_FORMAT
def test_a_traceback_looks_like_no_event(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    configure_log("info", form)
    try:
        fail_with(PIN)
    except ValueError:
        structlog.get_logger().exception("connection_fault")
    first, *others = written(capfd)
    assert "connection_fault" in first
    assert all(line.startswith("    ") for line in others)
    assert bool(others) == (form == "console")
    # The values of variables stay out of it.
    assert PIN not in "".join([first, *others])


def test_json_gives_values_back_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    configure_log("info", "json")
    structlog.get_logger().warning("happened", text="a\n\x1b", number=3, nothing=None, yes=True)
    (line,) = written(capfd)
    event = json.loads(line)
    assert list(event)[:3] == ["timestamp", "level", "event"]
    del event["timestamp"]
    told = {"text": "a\n\x1b", "number": 3, "nothing": None, "yes": True}
    assert event == {"level": "warning", "event": "happened", **told}


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3)]
)
def test_the_journal_is_told_the_level_and_no_time(
    level: str, priority: int, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_log("debug", "journal")
    getattr(structlog.get_logger(), level)("happened", what="a b")
    assert written(capfd) == [f'<{priority}>event=happened what="a b"']


def test_the_level_can_change_under_loggers_that_are_in_use(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure_log("warning", "journal")
    log = structlog.get_logger()
    for level in ("warning", "debug", "info"):
        set_log_level(level)
        assert is_logged("info") == (level != "warning")
        log.info("happened", at=level)
        log.debug("happened_too", at=level)
    assert written(capfd) == [
        "<6>event=happened at=debug",
        "<7>event=happened_too at=debug",
        "<6>event=happened at=info",
    ]


@pytest.mark.parametrize("is_ours", [True, False])
def test_standard_error_that_is_the_journal_is_known(is_ours: bool) -> None:  # noqa: FBT001
    ours, theirs = os.pipe()
    status = os.fstat(theirs)
    inode = status.st_ino if is_ours else status.st_ino + 1
    environ = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{inode}"}
    subprocess.run(LOG_ONE_EVENT, stderr=theirs, env=environ, check=True)
    os.close(theirs)
    line = os.read(ours, 4096).decode()
    os.close(ours)
    if is_ours:
        assert line == "<4>event=happened what=this\n"
    else:
        assert line.startswith("timestamp=")
        assert line.endswith("Z level=warning event=happened what=this\n")


async def test_a_terminal_gets_what_people_read() -> None:
    async with new_terminal() as terminal:
        fd = os.open(terminal.name, os.O_WRONLY | os.O_NOCTTY)
        await trio.run_process(LOG_ONE_EVENT, stderr=fd)
        os.close(fd)
        await terminal.sees("this")
        assert "[warning  ] happened" in terminal.text


async def test_the_program_logs_as_it_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = [f"--socket-path={tmp_path / 'socket'}", f"--state-dir={tmp_path / 'state'}"]
    with started([*CCIDD, *options, "--log-format=json"], log=log) as process:
        while b'"ready"' not in log.read_bytes():
            assert process.poll() is None
        process.terminate()
        process.wait()
    events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert "ready" in [event["event"] for event in events]
