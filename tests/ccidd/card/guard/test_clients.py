# SPDX-License-Identifier: Apache-2.0
"""This machine's OpenSC and yubico-piv-tool with guarded cards, over a serial line."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from structlog.testing import capture_logs

import cac
import piv
from ccidd.card.card import Card
from ccidd.card.dual import dual_card
from ccidd.card.guard.guard import Guard, Rules
from ccidd.card.guard.operations import NOTHING, USE
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import KeyReference
from ccidd.keys.key import Credential, KeyAlgorithm
from ccidd.reader.slot import Slot
from credentials import credential
from memory import VolatileMemory
from pcscd import Pcscd, pcscd, serving

KEYS = {
    KeyReference.AUTHENTICATION: credential(KeyAlgorithm.RSA_2048),
    KeyReference.SIGNATURE: credential(KeyAlgorithm.P_256),
    KeyReference.KEY_MANAGEMENT: credential(KeyAlgorithm.RSA_3072),
}
PIN, WRONG = "123456", "654321"
MESSAGE = b"to be signed"


@dataclass
class Guest:
    """A host with a guarded card."""

    host: Pcscd
    directory: Path

    async def run(self, *command: str) -> str:
        return await self.host.run(*command)

    async def use(self, what: str, number: str, mechanism: str, data: bytes, pin: str) -> bytes:
        source, target = self.directory / "input", self.directory / "output"
        source.write_bytes(data)
        await self.run(
            *("pkcs11-tool", "--login", f"--pin={pin}", what, f"--id={number}"),
            *(f"--mechanism={mechanism}", "--signature-format=openssl"),
            *(f"--input-file={source}", f"--output-file={target}"),
        )
        return target.read_bytes()

    async def signs(self, number: str, credential: Credential, pin: str = PIN) -> None:
        key = credential.key.public_key
        if isinstance(key, rsa.RSAPublicKey):
            signature = await self.use("--sign", number, "SHA256-RSA-PKCS", MESSAGE, pin)
            key.verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())
        else:
            assert isinstance(key, ec.EllipticCurvePublicKey)
            signature = await self.use("--sign", number, "ECDSA-SHA256", MESSAGE, pin)
            key.verify(signature, MESSAGE, ec.ECDSA(hashes.SHA256()))


@asynccontextmanager
async def guest_with(card: Card, directory: Path) -> AsyncIterator[Guest]:
    link = directory / "reader"
    guarded = Guard(card, Rules(USE, 1, NOTHING))
    async with serving(link, [Slot(guarded)]), pcscd(link, "GemPCTwin") as host:
        yield Guest(host, directory)


@pytest.mark.parametrize("extensions", [False, True])
@pytest.mark.parametrize("dual", [False, True])
async def test_opensc_uses_a_guarded_piv_card_as_any_other(
    tmp_path: Path, *, extensions: bool, dual: bool
) -> None:
    make = dual_card if dual else piv_card
    card = make(KEYS, piv.new_memory(attestation=True), vendor_extensions=extensions)
    async with guest_with(card, tmp_path) as guest:
        with capture_logs() as logs:
            name = await guest.run("opensc-tool", "--name")
            assert re.search("PIV|Personal Identity Verification", name)
            for number, reference in enumerate(KEYS, start=1):
                if reference is not KeyReference.KEY_MANAGEMENT:
                    await guest.signs(f"{number:02}", KEYS[reference])
            if not dual:
                # Of a dual card OpenSC wants no random numbers, guarded or not.
                random = tmp_path / "random"
                await guest.run("pkcs11-tool", "--generate-random=8", f"--output-file={random}")
                assert len(random.read_bytes()) == 8
        refused = [event for event in logs if event["event"] == "guard_refused"]
    # Before it selects anything it asks which card this is.
    assert [event["instruction"] for event in refused] == ["INS CA", "INS CB"]


async def test_opensc_uses_a_guarded_cac_as_any_other(tmp_path: Path) -> None:
    async with guest_with(await cac.powered(), tmp_path) as guest:
        assert "Common Access Card (CAC)" in await guest.run("opensc-tool", "--name")
        await guest.signs("0001", cac.KEYS[0], cac.PIN.decode())
        for _ in range(2):
            with pytest.raises(AssertionError, match="PIN code or key incorrect"):
                await verify(guest, cac.WRONG_PIN.decode())
        with pytest.raises(AssertionError, match="blocked"):
            await verify(guest, cac.PIN.decode())


async def verify(guest: Guest, pin: str) -> None:
    await guest.run("pkcs15-tool", "--verify-pin", "--auth-id", "01", "--pin", pin)


async def tries(memory: VolatileMemory, reference: int = 0x80) -> int:
    return await memory.pin(reference).tries_left()


async def test_opensc_fails_cleanly_where_it_would_manage_the_card(tmp_path: Path) -> None:
    memory = piv.new_memory()
    async with guest_with(piv_card(KEYS, memory), tmp_path) as guest:
        for refused in (
            ("pkcs15-tool", "--change-pin", "--auth-id=01", f"--pin={PIN}", "--new-pin=222222"),
            ("pkcs15-tool", "--unblock-pin", "--auth-id=01", "--puk=87654321", "--new-pin=222222"),
            ("piv-tool", "--genkey=9A:11", "--admin=M:9B:08"),
        ):
            with pytest.raises(AssertionError):
                await guest.run(*refused)
        for _ in range(2):
            with pytest.raises(AssertionError, match="PIN code or key incorrect"):
                await verify(guest, WRONG)
        with pytest.raises(AssertionError, match="blocked"):
            await verify(guest, PIN)
    assert await tries(memory) == 1
    assert await tries(memory, 0x81) == 3


YUBICO_REFUSALS = [
    (("generate", "--slot=9a", "--algorithm=ECCP256"), "Failed authentication"),
    (("change-pin", f"--pin={PIN}", "--new-pin=222222"), "Failed changing/unblocking code"),
    (("change-puk", "--pin=12345678", "--new-pin=22222222"), "Failed changing/unblocking code"),
    (("unblock-pin", "--pin=12345678", "--new-pin=222222"), "Failed changing/unblocking code"),
    (("set-ccc",), "Failed authentication"),
    (("reset",), "Reset failed"),
]


async def test_yubico_piv_tool_fails_cleanly_where_it_would_manage_the_card(tmp_path: Path) -> None:
    memory = piv.new_memory(attestation=True)
    before = dict(memory.contents)
    async with guest_with(piv_card(KEYS, memory, vendor_extensions=True), tmp_path) as guest:

        async def run(*action: str) -> str:
            return await guest.run("yubico-piv-tool", "--reader=ccidd", "--action", *action)

        assert "PIN tries left:\t2" in await run("status")
        for action, message in YUBICO_REFUSALS:
            with pytest.raises(AssertionError, match=message):
                await run(*action)
        assert "Successfully verified PIN" in await run("verify-pin", f"--pin={PIN}")
        for left in (1, 0):
            message = f"{left} tries left" if left else "blocked"
            with pytest.raises(AssertionError, match=message):
                await run("verify-pin", f"--pin={WRONG}")
        with pytest.raises(AssertionError, match="blocked"):
            await run("verify-pin", f"--pin={PIN}")
    assert await tries(memory) == 1
    assert await tries(memory, 0x81) == 3
    assert dict(memory.contents) == before
