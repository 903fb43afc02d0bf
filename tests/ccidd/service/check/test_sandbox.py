# SPDX-License-Identifier: Apache-2.0
import pytest

from ccidd.service.check import sandbox
from ccidd.service.check.sandbox import look_at_sandbox
from ccidd.service.configuration import Configuration
from ccidd.service.where import in_file


def findings(mode: str | None) -> list[str]:
    configuration = Configuration((), sandbox=mode)
    return [str(each) for each in look_at_sandbox(configuration, in_file("f"))]


def test_the_sandbox_is_off() -> None:
    assert findings("off") == ["warning  f: sandbox: off: nothing keeps ccidd to what it needs"]


@pytest.mark.parametrize(
    ("mode", "severity"), [("on", "error"), ("auto", "warning"), (None, "warning")]
)
def test_what_is_missing_is_told(
    mode: str | None, severity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "missing_support", lambda: {"landlock": "not in this kernel"})
    assert findings(mode) == [f"{severity:7}  f: sandbox: there is no landlock: not in this kernel"]
    monkeypatch.setattr(sandbox, "missing_support", dict)
    assert findings(mode) == ["ok       f: sandbox: ccidd can confine itself here"]
