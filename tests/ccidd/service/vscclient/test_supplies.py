# SPDX-License-Identifier: Apache-2.0
"""Which modules hardware comes from."""

from pathlib import Path

import pytest

from ccidd.service.vscclient import supplies
from ccidd.service.vscclient.supplies import hardware_modules
from tokens import SOFTHSM, SoftHsm, nss_database, register_module


@pytest.fixture(autouse=True)
def p11_kit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supplies, "configured_modules", lambda: ["/opensc.so", SOFTHSM])


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the system's database would be."""
    directory = tmp_path / "system"
    monkeypatch.setattr(supplies, "SYSTEM_DATABASE", directory)
    monkeypatch.setattr(supplies, "DEFAULT_DATABASE", f"sql:{directory}")
    return directory


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    SoftHsm(tmp_path / "softhsm", monkeypatch)
    directory = nss_database(tmp_path / "own", {}, "")
    register_module(directory, "SoftHSM", SOFTHSM)
    return directory


def test_a_database_says_which_modules_there_are(own: Path, system: Path) -> None:
    assert hardware_modules(f"sql:{own}") == [SOFTHSM]
    assert hardware_modules(str(own)) == [SOFTHSM]


def test_p11_kit_knows_them_where_there_is_no_database_of_the_system(
    own: Path, system: Path
) -> None:
    assert hardware_modules(None) == ["/opensc.so", SOFTHSM]
    own.rename(system)
    assert hardware_modules(None) == [SOFTHSM]


def test_its_proxy_in_a_list_stands_for_them(own: Path, tmp_path: Path, system: Path) -> None:
    proxy = tmp_path / "p11-kit-proxy.so"
    proxy.touch()
    with (own / "pkcs11.txt").open("a") as modules:
        modules.write(f"library={proxy}\nname=p11-kit-proxy\n\n")
    assert hardware_modules(f"sql:{own}") == [SOFTHSM, "/opensc.so"]
