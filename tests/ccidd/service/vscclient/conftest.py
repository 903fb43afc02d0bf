# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from ccidd.keys.key import KeyAlgorithm
from running_vscclient import PASSWORD
from tokens import nss_database


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rsa = KeyAlgorithm.RSA_2048
    keys = {"id-cert": (rsa, 0), "signing-cert": (rsa, 1), "encryption-cert": (rsa, 2)}
    return nss_database(tmp_path_factory.mktemp("nss") / "database", keys, PASSWORD)


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory of the test's own, in its usual place."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
