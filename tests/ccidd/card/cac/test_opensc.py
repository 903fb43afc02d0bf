# SPDX-License-Identifier: Apache-2.0
"""This machine's OpenSC uses CACs, and cards that are PIV cards too, over a serial line."""

import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from cac import PIN, WRONG_PIN, card_memory
from ccid_protocol.atr import ATR
from ccidd.card.cac import simpletlv
from ccidd.card.cac.card import cac_card
from ccidd.card.cac.simpletlv import SimpleTlv
from ccidd.card.card import Card
from ccidd.card.dual import dual_card
from ccidd.card.pin import PinMemory
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import KeyReference
from ccidd.keys.generated import key_usage, self_signed_certificate
from ccidd.keys.key import Credential, KeyAlgorithm
from ccidd.keys.local import local_key
from ccidd.reader.slot import Slot
from credentials import private_key
from memory import VolatilePin
from pcscd import Pcscd, pcscd, serving
from piv import new_memory

MESSAGE = b"to be signed"
PERSON = {"cac/0200": simpletlv.encode(SimpleTlv(0x01, b"Marie"), SimpleTlv(0x03, b"Turner"))}


def for_everything(algorithm: KeyAlgorithm) -> Credential:
    """A credential with a certificate that lets OpenSC decrypt, too."""
    key = private_key(algorithm, 0)
    usage = key_usage(digital_signature=True, key_encipherment=True)
    return Credential(
        local_key(key), self_signed_certificate(key, f"everything {algorithm.value}", usage)
    )


IDENTIFICATION = for_everything(KeyAlgorithm.RSA_2048)
SIGNATURE = for_everything(KeyAlgorithm.P_256)
ENCRYPTION = for_everything(KeyAlgorithm.RSA_3072)
LABELS = {
    "CAC ID Certificate": IDENTIFICATION,
    "CAC Email Signature Certificate": SIGNATURE,
    "CAC Email Encryption Certificate": ENCRYPTION,
}


class OpenSC:
    """OpenSC's programs."""

    def __init__(self, host: Pcscd, directory: Path) -> None:
        self._host = host
        self._input, self._output = directory / "input", directory / "output"
        self._files = (f"--input-file={self._input}", f"--output-file={self._output}")

    async def run(self, *command: str) -> str:
        return await self._host.run(*command)

    async def certificate(self, number: str) -> x509.Certificate:
        read = ("--read-object", "--type=cert", f"--id={number}")
        await self.run("pkcs11-tool", *read, f"--output-file={self._output}")
        return x509.load_der_x509_certificate(self._output.read_bytes())

    async def use(
        self, what: str, number: str, mechanism: str, data: bytes, *, pin: bytes = PIN
    ) -> bytes:
        self._input.write_bytes(data)
        key = (what, f"--id={number}", f"--mechanism={mechanism}")
        login = ("--login", f"--pin={pin.decode()}")
        format_ = ("--signature-format=openssl",) if mechanism.startswith("EC") else ()
        await self.run("pkcs11-tool", *login, *key, *format_, *self._files)
        return self._output.read_bytes()

    async def verify_pin(self, pin: bytes) -> None:
        pin_option = ("--pin", pin.decode())
        await self.run("pkcs15-tool", "--verify-pin", "--auth-id", "01", *pin_option)


@asynccontextmanager
async def opensc_with(card: Card, directory: Path) -> AsyncIterator[OpenSC]:
    link = directory / "reader"
    async with serving(link, [Slot(card)]), pcscd(link, "GemPCTwin") as host:
        yield OpenSC(host, directory)


def a_cac(pin: PinMemory | None = None) -> Card:
    return cac_card(list(LABELS.values()), card_memory(pin, PERSON))


async def test_opensc_knows_the_card_and_finds_everything_on_it(tmp_path: Path) -> None:
    async with opensc_with(a_cac(), tmp_path) as opensc:
        assert "Common Access Card (CAC)" in await opensc.run("opensc-tool", "--name")
        listed = await opensc.run(
            "pkcs11-tool", "--list-objects", "--login", f"--pin={PIN.decode()}"
        )
        for number, (label, credential) in enumerate(LABELS.items(), start=1):
            assert label in listed
            assert await opensc.certificate(f"{number:04}") == credential.certificate
        # OpenSC shows the certificate of a key on a curve, but has no use for the key.
        keys = re.findall(r"Private Key Object; RSA.*\n +label: +(.+)", listed)
        assert keys == ["CAC ID Certificate", "CAC Email Encryption Certificate"]
        person = tmp_path / "person"
        await opensc.run(
            *("pkcs11-tool", "--login", f"--pin={PIN.decode()}", "--read-object", "--type=data"),
            *("--label=Person Instance", f"--output-file={person}"),
        )
        # What OpenSC makes of the two buffers is longer than they are.
        assert person.read_bytes().startswith(PERSON["cac/0200"])


@pytest.mark.parametrize("number", ["0001", "0003"])
async def test_opensc_signs_and_decrypts(tmp_path: Path, number: str) -> None:
    async with opensc_with(a_cac(), tmp_path) as opensc:
        key = (await opensc.certificate(number)).public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        signature = await opensc.use("--sign", number, "SHA256-RSA-PKCS", MESSAGE)
        key.verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())
        secret = key.encrypt(b"secret", padding.PKCS1v15())
        assert await opensc.use("--decrypt", number, "RSA-PKCS", secret) == b"secret"


async def test_each_wrong_pin_costs_one_try(tmp_path: Path) -> None:
    memory = VolatilePin(PIN)
    async with opensc_with(a_cac(memory), tmp_path) as opensc:
        await opensc.verify_pin(PIN)
        for left in (2, 1, 0):
            with pytest.raises(AssertionError, match="PIN code or key incorrect"):
                await opensc.verify_pin(WRONG_PIN)
            assert await memory.tries_left() == left
        with pytest.raises(AssertionError, match="blocked"):
            await opensc.verify_pin(PIN)


@pytest.mark.parametrize("kind", ["cac", "piv+cac"])
async def test_opensc_s_own_test_of_a_token(tmp_path: Path, kind: str) -> None:
    keys = {
        KeyReference.AUTHENTICATION: IDENTIFICATION,
        KeyReference.SIGNATURE: SIGNATURE,
        KeyReference.KEY_MANAGEMENT: ENCRYPTION,
    }
    card = a_cac() if kind == "cac" else dual_card(keys, new_memory(PIN))
    async with opensc_with(card, tmp_path) as opensc:
        said = await opensc.run("pkcs11-tool", "--login", f"--pin={PIN.decode()}", "--test")
        assert said.endswith("No errors\n")
        assert "seems to be OK" in said  # random numbers


class Watched(Card):
    """A card whose commands are looked at."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self.instructions: set[int] = set()

    async def power_on(self) -> ATR:
        return await self._card.power_on()

    async def power_off(self) -> None:
        await self._card.power_off()

    async def transmit(self, command: bytes) -> bytes:
        self.instructions.add(command[1])
        return await self._card.transmit(command)


@pytest.mark.parametrize("kind", ["piv", "cac", "piv+cac"])
async def test_opensc_knows_cards_that_have_an_atr_of_their_own(tmp_path: Path, kind: str) -> None:
    keys = {KeyReference.AUTHENTICATION: IDENTIFICATION}
    guid = uuid.UUID(int=2**128 - 1)
    card: Card
    match kind:
        case "piv":
            card = piv_card(keys, new_memory(PIN), guid=guid)
        case "cac":
            card = cac_card([IDENTIFICATION], card_memory(), guid)
        case _:
            card = dual_card(keys, new_memory(PIN), guid=guid)
    number = "0001" if kind == "cac" else "01"
    watched = Watched(card)
    async with opensc_with(watched, tmp_path) as opensc:
        signature = await opensc.use("--sign", number, "SHA256-RSA-PKCS", MESSAGE)
        key = IDENTIFICATION.key.public_key
        assert isinstance(key, rsa.RSAPublicKey)
        key.verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())
        # It has not had to try whether this is a card of Yubico's.
        assert 0xFD not in watched.instructions


async def test_opensc_changes_the_pin(tmp_path: Path) -> None:
    async with opensc_with(a_cac(), tmp_path) as opensc:
        pins = ("--pin", PIN.decode(), "--new-pin", "123456")
        await opensc.run("pkcs11-tool", "--login", "--change-pin", *pins)
        await opensc.verify_pin(b"123456")


async def test_opensc_takes_a_card_that_is_both_for_a_piv_card_and_can_be_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {
        KeyReference.AUTHENTICATION: IDENTIFICATION,
        KeyReference.SIGNATURE: SIGNATURE,
        KeyReference.KEY_MANAGEMENT: ENCRYPTION,
    }
    async with opensc_with(dual_card(keys, new_memory(PIN)), tmp_path) as opensc:
        name = await opensc.run("opensc-tool", "--name")
        assert "Personal Identity Verification Card" in name
        signature = await opensc.use("--sign", "02", "ECDSA-SHA256", MESSAGE)
        public_key = SIGNATURE.key.public_key
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        public_key.verify(signature, MESSAGE, ec.ECDSA(hashes.SHA256()))

        monkeypatch.setenv("OPENSC_DRIVER", "cac")
        assert "Common Access Card (CAC)" in await opensc.run("opensc-tool", "--name")
        for number, credential in enumerate(LABELS.values(), start=1):
            assert await opensc.certificate(f"{number:04}") == credential.certificate
        signature = await opensc.use("--sign", "0001", "SHA256-RSA-PKCS", MESSAGE)
        key = IDENTIFICATION.key.public_key
        assert isinstance(key, rsa.RSAPublicKey)
        key.verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())
