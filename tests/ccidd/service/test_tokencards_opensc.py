# SPDX-License-Identifier: Apache-2.0
"""This machine's OpenSC uses cards whose keys are on a token or in a database."""

from pathlib import Path

import pytest

from ccidd.keys.key import KeyAlgorithm
from ccidd.reader.slot import Slot
from ccidd.service.cards import open_card
from ccidd.service.options import parse_card
from ccidd.service.state import State
from pcscd import Pcscd, pcscd, serving
from tokens import SoftHsm, StoredKey, nss_database

RSA, P_256 = KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256


async def try_keys(host: Pcscd, pin: str) -> None:
    said = await host.run("pkcs11-tool", "--login", f"--pin={pin}", "--test")
    assert said.endswith("No errors\n")
    assert "RSA-PKCS: OK" in said


@pytest.mark.parametrize(
    ("kind", "where"),
    [("piv", "token"), ("cac", "token"), ("piv+cac", "token"), ("piv", "database")],
)
async def test_opensc_uses_the_keys_and_changes_the_pin(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, where: str
) -> None:
    if where == "token":
        keys = [StoredKey(P_256, b"\1", "first"), StoredKey(RSA, b"\2", "second")]
        source = f"pkcs11={SoftHsm(tmp_path / 'softhsm', monkeypatch).add('a token', keys)}"
    else:
        database = nss_database(
            tmp_path / "nss", {"first": (P_256, 0), "second": (RSA, 0)}, "123456"
        )
        source = f"nss=sql:{database},cert1=first,cert2=second"
    card = open_card(parse_card(f"{kind},{source}"), state)
    link = tmp_path / "reader"
    async with serving(link, [Slot(card)]), pcscd(link, "GemPCTwin") as host:
        await try_keys(host, "123456")
        pins = ("--login", "--pin=123456", "--change-pin", "--new-pin=654321")
        await host.run("pkcs11-tool", *pins)
        await try_keys(host, "654321")
