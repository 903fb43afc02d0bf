# SPDX-License-Identifier: Apache-2.0
"""A guest uses CACs, and cards that are PIV cards as well, through both front doors."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from cac import card_memory
from ccid_protocol.apdu import CommandAPDU
from ccidd.card.cac.card import cac_card
from ccidd.card.dual import dual_card
from ccidd.card.piv.references import KeyReference
from ccidd.keys.generated import key_usage, self_signed_certificate
from ccidd.keys.key import Credential, KeyAlgorithm
from ccidd.keys.local import local_key
from ccidd.reader.profile import default_profile
from ccidd.reader.slot import Slot
from ccidd.reader.usb_reader import UsbReader
from ccidd.transport.endpoint import Handler, listen
from ccidd.transport.usbredir import UsbredirPort
from ccidd.transport.vscard import serve_vscard
from credentials import private_key
from harness.agent import CommandError
from harness.ccidd import passthru, redirected
from harness.guest import boot_guest
from harness.keys import check_signature
from harness.opensc import CAC_NAME, PIV_NAME, OpenSC
from harness.pcsc import transmit
from memory import VolatilePin
from piv import new_memory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from ccidd.card.card import Card
    from harness.guest import Guest
    from harness.image import Image
    from harness.qemu import Qemu

PIN: Final = "77777777"
WRONG_PIN: Final = "88888888"
MESSAGE: Final = b"signed in a guest\n"

DOORS: Final = {"vscard": passthru, "usbredir": redirected}


def for_everything(algorithm: KeyAlgorithm) -> Credential:
    """Make a credential with a certificate that lets OpenSC sign and decrypt."""
    key = private_key(algorithm, 0)
    usage = key_usage(digital_signature=True, key_encipherment=True)
    certificate = self_signed_certificate(key, f"everything {algorithm.value}", usage)
    return Credential(local_key(key), certificate)


KEYS: Final = [
    for_everything(algorithm)
    for algorithm in (
        KeyAlgorithm.RSA_2048,
        KeyAlgorithm.P_256,
        KeyAlgorithm.RSA_3072,
        KeyAlgorithm.RSA_4096,
    )
]


@asynccontextmanager
async def guest_with(
    card: Card, door: str, *, image: Image, qemu: Qemu, workdir: Path
) -> AsyncGenerator[Guest]:
    """Boot a guest with a card that this process serves."""
    slots = [Slot(card)]
    path = workdir / "card.socket"
    endpoint = listen(path)
    async with trio.open_nursery() as nursery:
        handler: Handler = partial(serve_vscard, slot=slots[0])
        if door == "usbredir":
            port = UsbredirPort(UsbReader(slots, default_profile(1, "CAC")), slots)
            nursery.start_soon(port.run)
            handler = port.serve
        await nursery.start(endpoint.run, handler)
        devices = DOORS[door](f"path={path}")
        async with boot_guest(image, qemu=qemu, workdir=workdir, devices=devices) as guest:
            await OpenSC(guest).wait_for_card()
            yield guest
        nursery.cancel_scope.cancel()
    endpoint.close()


@pytest.mark.parametrize("door", DOORS)
async def test_opensc_uses_a_cac(door: str, image: Image, qemu: Qemu, tmp_path: Path) -> None:
    pin = VolatilePin(PIN.encode())
    card = cac_card(KEYS, card_memory(pin))
    async with guest_with(card, door, image=image, qemu=qemu, workdir=tmp_path) as guest:
        opensc = OpenSC(guest)
        assert await opensc.card_name() == CAC_NAME
        certificates = await opensc.certificates()
        numbers = ("0001", "0002", "0003", "0004")
        assert certificates == dict(zip(numbers, (k.certificate for k in KEYS), strict=True))
        for number in ("0001", "0003"):
            certificate = certificates[number]
            signature = await opensc.sign(number, "SHA256-RSA-PKCS", MESSAGE, PIN)
            check_signature(certificate, signature, MESSAGE)
            key = certificate.public_key()
            assert isinstance(key, rsa.RSAPublicKey)
            secret = key.encrypt(b"secret", padding.PKCS1v15())
            assert await opensc.decrypt(number, "RSA-PKCS", secret, PIN) == b"secret"
        for left in (2, 1, 0):
            assert (await opensc.verify_pin(WRONG_PIN, check=False)).status != 0
            assert await pin.tries_left() == left
        with pytest.raises(CommandError, match="blocked"):
            await opensc.verify_pin(PIN)


@pytest.mark.parametrize("door", DOORS)
async def test_keys_that_opensc_does_not_use_on_a_cac(
    door: str, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    card = cac_card(KEYS, card_memory(VolatilePin(PIN.encode())))
    async with guest_with(card, door, image=image, qemu=qemu, workdir=tmp_path) as guest:
        block, digest = bytes(range(256)) * 2, bytes(range(32))
        login = CommandAPDU(0x00, 0x20, 0x00, 0x00, PIN.encode()).encode()
        get_response = bytes.fromhex("00C0000000")
        *_, first, second, third = await transmit(
            guest,
            [
                bytes.fromhex("00A4040007A0000000790103"),
                login,
                CommandAPDU(0x80, 0x42, 0x80, 0x00, block[:240]).encode(),
                CommandAPDU(0x80, 0x42, 0x80, 0x00, block[240:480]).encode(),
                CommandAPDU(0x80, 0x42, 0x00, 0x00, block[480:]).encode(),
                *[get_response] * 3,
            ],
        )
        rsa_key = KEYS[3].key.public_key
        assert isinstance(rsa_key, rsa.RSAPublicKey)
        numbers = rsa_key.public_numbers()
        result = int.from_bytes(first[:-2] + second[:-2] + third[:-2])
        assert pow(result, numbers.e, numbers.n).to_bytes(512) == block

        *_, answer = await transmit(
            guest,
            [
                bytes.fromhex("00A4040007A0000000790101"),
                login,
                CommandAPDU(0x80, 0x42, 0x00, 0x00, digest, ne=256).encode(),
            ],
        )
        ec_key = KEYS[1].key.public_key
        assert isinstance(ec_key, ec.EllipticCurvePublicKey)
        ec_key.verify(answer[:-2], digest, ec.ECDSA(Prehashed(hashes.SHA256())))


@pytest.mark.parametrize("door", DOORS)
async def test_opensc_takes_a_card_that_is_both_for_a_piv_card(
    door: str, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    references = (
        KeyReference.AUTHENTICATION,
        KeyReference.SIGNATURE,
        KeyReference.KEY_MANAGEMENT,
    )
    keys = dict(zip(references, KEYS, strict=False))
    card = dual_card(keys, new_memory(PIN.encode()))
    async with guest_with(card, door, image=image, qemu=qemu, workdir=tmp_path) as guest:
        opensc = OpenSC(guest)
        assert await opensc.card_name() == PIV_NAME
        certificates = await opensc.certificates()
        for number, mechanism in (("01", "SHA256-RSA-PKCS"), ("02", "ECDSA-SHA256")):
            signature = await opensc.sign(number, mechanism, MESSAGE, PIN)
            check_signature(certificates[number], signature, MESSAGE)
        named = await guest.run("env", "OPENSC_DRIVER=cac", "opensc-tool", "--name")
        assert named.text.strip() == CAC_NAME
