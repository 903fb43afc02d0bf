# SPDX-License-Identifier: Apache-2.0
"""The processes of PKCS#11 modules, which have less than ccidd itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ccidd.keys.cryptoki import Cryptoki, CryptokiError
from ccidd.service.configuration import Configuration, ReaderConfiguration
from ccidd.service.options import parse_card
from ccidd.service.sandbox.sandbox import Sandbox
from ccidd.service.sandbox.surroundings import Surroundings
from tokens import SOFTHSM, SoftHsm


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Has modules confined as for a card on a token; gives the state directory."""
    monkeypatch.setattr(Cryptoki, "program", Cryptoki.program)
    monkeypatch.setattr(Cryptoki, "preamble", Cryptoki.preamble)
    state = tmp_path / "state"
    state.mkdir()
    (state / "state.key").write_text("secret")
    card = parse_card("piv,token=any")
    sandbox = Sandbox(
        Configuration((ReaderConfiguration(cards=(card,)),)),
        Surroundings.here(state, None, {"SOFTHSM2_CONF": str(tmp_path / "softhsm/softhsm2.conf")}),
    )
    yield state
    assert sandbox.confinement.granted is None


def test_a_module_is_loaded_and_finds_its_tokens(softhsm: SoftHsm, modules: Path) -> None:
    softhsm.add("token", [])
    cryptoki = Cryptoki(30)
    try:
        assert cryptoki.load(SOFTHSM).manufacturer == "SoftHSM"
        assert [token.label for token in cryptoki.tokens()][:1] == ["token"]
    finally:
        cryptoki.close()


def test_a_module_does_not_read_the_state(softhsm: SoftHsm, modules: Path) -> None:
    """A module that is there itself shows it: the linker says why it is not loaded."""
    cryptoki = Cryptoki(30)
    try:
        with pytest.raises(CryptokiError, match=r"state\.key: .*: Permission denied"):
            cryptoki.load(str(modules / "state.key"))
    finally:
        cryptoki.close()
