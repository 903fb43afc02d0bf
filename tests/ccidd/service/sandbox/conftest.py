# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from tokens import SoftHsm


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    return SoftHsm(tmp_path / "softhsm", monkeypatch)
