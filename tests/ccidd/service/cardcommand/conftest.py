# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from pathlib import Path

import pytest

from card_command import Command
from ccidd.service.cardcommand import _parser
from ccidd.service.state import State


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("secretinput", "cardfiles"):
        monkeypatch.setattr(f"ccidd.service.{module}.can_ask", lambda: False)


@pytest.fixture
def card(state: State, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command of `ccidd card`, and gives what it prints."""

    def run(*arguments: object) -> str:
        options = _parser().parse_args([str(argument) for argument in arguments])
        options.run(state, options)
        return capsys.readouterr().out

    return run


@pytest.fixture
def secret(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a file with a secret in it."""

    def make(content: str) -> Path:
        path = tmp_path / f"secret-{len(list(tmp_path.iterdir()))}"
        path.write_text(f"{content}\n")
        path.chmod(0o600)
        return path

    return make


@pytest.fixture
def alice(card: Command, secret: Callable[[str], Path]) -> str:
    """A card with the PIN 123456 and the PUK 12345678."""
    pin, puk = secret("123456"), secret("12345678")
    card("create", "alice", "--empty", f"--pin-file={pin}", f"--puk-file={puk}")
    return "alice"
