# SPDX-License-Identifier: Apache-2.0
"""Which modules hardware comes from."""

from pathlib import Path

import pytest

from ccidd.service.vscclient import supplies
from ccidd.service.vscclient.supplies import listed_modules
from tokens import SOFTHSM, SoftHsm, nss_database, register_module


@pytest.fixture(autouse=True)
def p11_kit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supplies, "configured_modules", lambda: ["/opensc.so", SOFTHSM])


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    SoftHsm(tmp_path / "softhsm", monkeypatch)
    directory = nss_database(tmp_path / "own", {}, "")
    register_module(directory, "SoftHSM", SOFTHSM)
    return directory


def test_a_database_says_which_modules_there_are(own: Path) -> None:
    assert listed_modules(f"sql:{own}") == [SOFTHSM]
    assert listed_modules(str(own)) == [SOFTHSM]


def test_p11_kits_proxy_stands_for_the_modules_that_it_knows(own: Path, tmp_path: Path) -> None:
    proxy = tmp_path / "p11-kit-proxy.so"
    proxy.touch()
    with (own / "pkcs11.txt").open("a") as modules:
        modules.write(f"library={proxy}\nname=p11-kit-proxy\n\n")
    assert listed_modules(f"sql:{own}") == [SOFTHSM, "/opensc.so"]
