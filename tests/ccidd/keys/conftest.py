# SPDX-License-Identifier: Apache-2.0
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tokens import SoftHsm

SHIM = """
import fcntl, os, PyKCS11

if "ONE_SESSION" in os.environ:
    plain = PyKCS11.PyKCS11Lib.openSession

    def open_session(self, slot, flags=0):
        self.lock = open(os.environ["ONE_SESSION"], "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PyKCS11.PyKCS11Error(PyKCS11.CKR_SESSION_COUNT)
        return plain(self, slot, flags)

    PyKCS11.PyKCS11Lib.openSession = open_session

if "MAX_SESSIONS" in os.environ:
    get_info = PyKCS11.PyKCS11Lib.getTokenInfo

    def get_token_info(self, slot):
        info = get_info(self, slot)
        info.ulMaxSessionCount = int(os.environ["MAX_SESSIONS"])
        return info

    PyKCS11.PyKCS11Lib.getTokenInfo = get_token_info

if "KEYPAD" in os.environ:
    get_plain_info = PyKCS11.PyKCS11Lib.getTokenInfo

    def get_token_info_with_keypad(self, slot):
        info = get_plain_info(self, slot)
        info.flags |= PyKCS11.CKF_PROTECTED_AUTHENTICATION_PATH
        return info

    PyKCS11.PyKCS11Lib.getTokenInfo = get_token_info_with_keypad
"""


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """SoftHSM, with no token yet."""
    return SoftHsm(tmp_path / "softhsm", monkeypatch)


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts limits before SoftHSM, which has none, in the processes that use it."""
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim/sitecustomize.py").write_text(SHIM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shim"), prepend=os.pathsep)
    return monkeypatch.setenv
