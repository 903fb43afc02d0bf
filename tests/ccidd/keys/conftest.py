# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from tokens import SoftHsm


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """SoftHSM, with no token yet."""
    return SoftHsm(tmp_path / "softhsm", monkeypatch)
