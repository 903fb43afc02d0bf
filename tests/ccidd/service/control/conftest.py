# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccidd.service.service import Service
from ccidd.service.state import State
from crash import CHEAP


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(tmp_path / "state", cost=CHEAP) as state:
        yield state


@pytest.fixture
def service() -> Service:
    """A service without any reader."""
    return Service(stays=True)
