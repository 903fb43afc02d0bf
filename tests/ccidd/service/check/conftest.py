# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from ccidd.keys.generated import private_key_pem
from ccidd.keys.key import KeyAlgorithm
from ccidd.service.check.state import StatePlace
from credentials import credential, private_key


@pytest.fixture
def place(tmp_path: Path) -> StatePlace:
    """Where there is no state yet."""
    return StatePlace(tmp_path / "state", None)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with a key and a PIN, which nobody else can read."""
    key = private_key_pem(private_key(KeyAlgorithm.P_256, 0))
    certificate = credential(KeyAlgorithm.P_256).certificate.public_bytes(Encoding.PEM)
    for name, content in (("key", key + certificate), ("pin", b"123456\n")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    return tmp_path
