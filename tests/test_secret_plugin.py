# SPDX-License-Identifier: Apache-2.0
"""The search for secrets finds them: tests that tell one fail, and others do not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from secret_search import SECRETS, find_in

SUPPORT = Path(__file__).parent / "support"
ADMINISTRATION_KEY = next(key for key, name in SECRETS.items() if name == "administration key")


def run(directory: Path, test: str) -> subprocess.CompletedProcess[str]:
    """Runs a test of its own with the plugin."""
    file = directory / "test_it.py"
    file.write_text(f"import pytest\n{test}\n")
    own = [f"--rootdir={directory}", f"--basetemp={directory / 'base'}", "-c/dev/null"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *own, "-p", "secret_plugin", "--strict-markers", file],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{SUPPORT}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


@pytest.mark.holds_secrets
@pytest.mark.parametrize(
    "body",
    [
        "print('verifying 123456')",
        "import sys; print('00200080083132333435' + '36FFFF', file=sys.stderr)",
        "(tmp_path / 'log').write_text('event=ready\\npin=123456\\n')",
        "(tmp_path / 'trace').write_bytes(b'\\0' * 90 + b'123456\\xff\\xff')",
        "(tmp_path / 'log').write_text('x ' * 200 + '5ab3c1f0427e9d8812c6ee30a1947f5d')",
    ],
)
def test_a_test_that_tells_a_secret_fails(tmp_path: Path, body: str) -> None:
    result = run(tmp_path, f"def test_it(tmp_path):\n    {body}")
    assert result.returncode == 1, result.stdout
    assert "1 passed, 1 error" in result.stdout
    assert "secrets in what a test has left:" in result.stdout


@pytest.mark.holds_secrets
def test_a_secret_outside_of_the_directories_of_tests_fails_the_run(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        "def test_it(tmp_path_factory):\n"
        "    (tmp_path_factory.mktemp('shared') / 'log').write_text('event=x pin=123456')",
    )
    assert result.returncode == 1
    assert "1 passed in" in result.stdout
    assert "shared0/log: the PIN: 'event=x pin=…'" in result.stdout


@pytest.mark.holds_secrets
def test_what_is_innocent_passes(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        "def test_it(tmp_path):\n"
        "    print('2026-11-25T03:30:16.123456Z', 0x123456, 'port 41234567')\n"
        "    (tmp_path / 'pin').write_text('123456\\n')\n"
        "@pytest.mark.holds_secrets\n"
        "def test_marked(tmp_path):\n"
        "    print(123456)\n"
        "    (tmp_path / 'log').write_text('event=x pin=123456')\n",
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "text",
    [
        "pin 123456.",
        "b'123456\\xff\\xff'",
        "31 32 33 34 35 36",
        "31:32:33:34:35:36",
        "[49, 50, 51, 52, 53, 54]",
        ADMINISTRATION_KEY.hex(),
        ADMINISTRATION_KEY.hex(" ").upper(),
        f"{list(ADMINISTRATION_KEY)}",
    ],
)
def test_secrets_are_found_in_many_forms(text: str) -> None:
    assert len(list(find_in(text.encode(), "here"))) == 1


def test_who_counts_tells_nothing() -> None:
    up = bytes(range(256))
    for counted in (up, up[::-1]):
        for text in (counted.hex(), counted.hex(" ").upper(), f"{list(counted)}"):
            assert not list(find_in(text.encode(), "here"))
        assert not list(find_in(counted, "here"))


def test_both_secrets_of_one_command_are_found() -> None:
    unblock = bytes.fromhex("002C008010") + b"12345678" + b"123456\xff\xff"
    assert list(find_in(unblock, "here"))


def test_what_ccidd_shows_once_is_shown_once() -> None:
    shown = "card  default (piv)\nPIN   710115\nPUK   33093890\nadmin " + "5d1c2f0b" * 6 + "\n"
    shown += "card  alice (piv)\nPIN   123456\n"
    assert not list(find_in(shown.encode(), "log"))
    for told in ("event=x pin=710115", "33093890", "5D1C2F0B" * 6):
        (finding,) = find_in((shown + told).encode(), "log")
        assert finding.name == "secret that was shown once"
