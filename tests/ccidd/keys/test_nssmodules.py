# SPDX-License-Identifier: Apache-2.0
"""The modules of NSS databases, as modutil itself registers them."""

import shutil
import subprocess
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ccidd.errors import UserError
from ccidd.keys.nssmodules import RegisteredModule, find_module, registered_modules
from tokens import SOFTHSM, SoftHsm, nss_database, register_module


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    SoftHsm(tmp_path / "softhsm", monkeypatch)
    return nss_database(tmp_path / "database", {}, "")


def modutil(database: Path, *options: str) -> None:
    command = ["modutil", "-force", "-dbdir", f"sql:{database}", *options]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_a_fresh_database_lists_none(database: Path) -> None:
    assert registered_modules(database) == []


def test_modules_are_found_however_they_are_named(database: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd 'place=" / "a module.so"
    odd.parent.mkdir()
    shutil.copy(SOFTHSM, odd)
    register_module(database, "SoftHSM", SOFTHSM)
    register_module(database, "an odd = one", odd)
    register_module(database, "OpenSC", "opensc-pkcs11.so")
    opensc = find_module("opensc-pkcs11.so")
    assert opensc is not None
    assert registered_modules(database) == [
        RegisteredModule("SoftHSM", Path(SOFTHSM)),
        RegisteredModule("an odd = one", odd),
        RegisteredModule("OpenSC", opensc),
    ]


def test_what_is_gone_or_disabled_is_left_out(database: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone.so"
    shutil.copy(SOFTHSM, gone)
    register_module(database, "gone", gone)
    register_module(database, "disabled", SOFTHSM)
    modutil(database, "-disable", "disabled")
    gone.unlink()
    with capture_logs() as logs:
        assert registered_modules(database) == []
    assert {(entry["event"], entry["name"]) for entry in logs} == {
        ("module_not_found", "gone"),
        ("module_is_disabled", "disabled"),
    }


def test_what_only_tells_of_other_databases_is_no_module(tmp_path: Path) -> None:
    # Fedora's list in /etc/pki/nssdb.
    (tmp_path / "pkcs11.txt").write_text(
        "library=libnsssysinit.so\n"
        "name=NSS Internal PKCS #11 Module\n"
        "parameters=configdir='sql:/etc/pki/nssdb' flags= \n"
        "NSS=Flags=internal,moduleDBOnly,critical trustOrder=75 cipherOrder=100\n"
        "\n"
        f"library={SOFTHSM}\n"
        "name=p11-kit-proxy\n"
        "NSS=flags=\n"
        "\n"
    )
    assert registered_modules(tmp_path) == [RegisteredModule("p11-kit-proxy", Path(SOFTHSM))]


def test_a_directory_without_a_list_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the list of modules .*/pkcs11.txt: No such"):
        registered_modules(tmp_path)


def test_a_library_that_is_nowhere_is_not_found(tmp_path: Path) -> None:
    assert find_module("no-such-module.so") is None
    assert find_module("relative/softhsm.so") is None
    assert find_module(str(tmp_path)) is None
