# SPDX-License-Identifier: Apache-2.0
"""A guest uses a PIV card of ccidd's: signs, decrypts, and goes on when ccidd comes and goes.

Unless a test says otherwise, its reader is QEMU's own usb-ccid, with ccid-card-passthru; ccidd's
own reader is the matter of test_ccid_reader.py.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU
from ccidd.keys.key import KeyAlgorithm
from harness import scripted_card
from harness.agent import CommandError
from harness.ccidd import (
    WAYS,
    Transport,
    Way,
    guest_with_card,
    passthru,
    pin_of_embedded_card,
    running_ccidd,
    until_logged,
)
from harness.guest import boot_guest
from harness.keys import card_option, check_signature
from harness.opensc import PIV_NAME, OpenSC
from harness.pcsc import transmit

if TYPE_CHECKING:
    from pathlib import Path

    from harness.guest import Guest
    from harness.image import Image
    from harness.qemu import Qemu

PIN = "123456"
WRONG_PIN = "654321"
MESSAGE = b"signed in a guest\n"
VSCARD = "--transport=vscard"


@pytest.mark.parametrize("transport", ["usbredir", "vscard"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_guest_signs_with_the_embedded_card(
    way: Way, transport: Transport, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    async with guest_with_card(
        image=image, qemu=qemu, workdir=tmp_path, way=way, transport=transport
    ) as pair:
        opensc = OpenSC(pair.guest)
        pin = pin_of_embedded_card(pair.ccidd)
        await opensc.wait_for_card()
        assert await opensc.card_name() == PIV_NAME

        certificates = await opensc.certificates()
        assert {
            number: certificate.subject.rfc4514_string()
            for number, certificate in certificates.items()
        } == {
            "01": "CN=ccidd PIV authentication",
            "02": "CN=ccidd digital signature",
            "03": "CN=ccidd key management",
        }
        await opensc.verify_pin(pin)
        signature = await opensc.sign("01", "ECDSA-SHA256", MESSAGE, pin)
        check_signature(certificates["01"], signature, MESSAGE)
        signature = await opensc.sign("02", "SHA256-RSA-PKCS", MESSAGE, pin)
        check_signature(certificates["02"], signature, MESSAGE)

        key = certificates["03"].public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        secret = key.encrypt(b"secret", padding.PKCS1v15())
        assert await opensc.decrypt("03", "RSA-PKCS", secret, pin) == b"secret"


async def test_opensc_s_own_test_finds_no_errors(image: Image, qemu: Qemu, tmp_path: Path) -> None:
    async with guest_with_card(
        image=image, qemu=qemu, workdir=tmp_path, transport="vscard"
    ) as pair:
        opensc = OpenSC(pair.guest)
        await opensc.wait_for_card()
        shown = await opensc.self_test(pin_of_embedded_card(pair.ccidd))
        assert "No errors" in shown
        assert "RSA-PKCS: OK" in shown


@pytest.mark.parametrize(
    "algorithms",
    [
        (KeyAlgorithm.RSA_3072, KeyAlgorithm.P_384, KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256),
        (KeyAlgorithm.P_384, KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_2048),
    ],
    ids=lambda algorithms: " ".join(algorithm.value for algorithm in algorithms),
)
async def test_each_key_can_be_of_any_algorithm_and_its_certificate_of_any_size(
    algorithms: tuple[KeyAlgorithm, ...], image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    # The padding makes the certificates larger than a container, so that they are compressed.
    option = card_option(algorithms, PIN, tmp_path, padding_size=1500)
    async with guest_with_card(
        option, image=image, qemu=qemu, workdir=tmp_path, transport="vscard"
    ) as pair:
        opensc = OpenSC(pair.guest)
        await opensc.wait_for_card()
        certificates = await opensc.certificates()
        assert len(certificates) == 4
        for number, certificate in certificates.items():
            key = certificate.public_key()
            mechanism = "ECDSA-SHA256"
            if isinstance(key, rsa.RSAPublicKey):
                mechanism = "SHA256-RSA-PKCS"
                secret = key.encrypt(b"secret", padding.PKCS1v15())
                assert await opensc.decrypt(number, "RSA-PKCS", secret, PIN) == b"secret"
            # OpenSC does not sign with the key-management key.
            if number != "03":
                signature = await opensc.sign(number, mechanism, MESSAGE, PIN)
                check_signature(certificate, signature, MESSAGE)


async def test_an_rsa_4096_key_which_opensc_of_debian_12_does_not_know(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    option = card_option([KeyAlgorithm.RSA_4096], PIN, tmp_path)
    async with guest_with_card(
        option, image=image, qemu=qemu, workdir=tmp_path, transport="vscard"
    ) as pair:
        opensc = OpenSC(pair.guest)
        await opensc.wait_for_card()
        key = (await opensc.certificates())["01"].public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        block = bytes(range(256)) * 2
        template = tlv.encode(0x7C, tlv.encode(0x82), tlv.encode(0x81, block))
        get_response = bytes.fromhex("00C0000000")
        *_, first, second, third = await transmit(
            pair.guest,
            [
                bytes.fromhex("00A4040009A00000030800001000"),
                bytes.fromhex("0020008008") + PIN.encode().ljust(8, b"\xff"),
                CommandAPDU(0x10, 0x87, 0x16, 0x9A, template[:255]).encode(),
                CommandAPDU(0x10, 0x87, 0x16, 0x9A, template[255:510]).encode(),
                CommandAPDU(0x00, 0x87, 0x16, 0x9A, template[510:]).encode(),
                *[get_response] * 3,
            ],
        )
        assert (first[-2:], third[-2:]) == (b"\x61\x00", b"\x90\x00")
        result = first[:-2] + second[:-2] + third[:-2]
        numbers = key.public_numbers()
        signed = pow(int.from_bytes(result[-512:]), numbers.e, numbers.n)
        assert signed.to_bytes(512) == block


async def test_three_wrong_pins_block_the_card_also_for_the_next_process(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    option = card_option([KeyAlgorithm.P_256], PIN, tmp_path)
    path = tmp_path / "card.socket"
    async with boot_guest(
        image, qemu=qemu, workdir=tmp_path, devices=passthru(f"path={path},{qemu.reconnect(1)}")
    ) as guest:
        opensc = OpenSC(guest)
        async with running_ccidd(option, VSCARD, f"--socket-path={path}", workdir=tmp_path):
            await opensc.wait_for_card()
            for left in (2, 1, 0):
                assert (await opensc.verify_pin(WRONG_PIN, check=False)).status != 0
                assert await tries_left(guest) == left
        await opensc.wait_until_no_card()
        async with running_ccidd(option, VSCARD, f"--socket-path={path}", workdir=tmp_path):
            await opensc.wait_for_card()
            assert await tries_left(guest) == 0
            with pytest.raises(CommandError, match="blocked"):
                await opensc.verify_pin(PIN)


async def tries_left(guest: Guest) -> int:
    """Ask the card with an empty VERIFY."""
    select = bytes.fromhex("00A4040009A00000030800001000")
    _properties, answer = await transmit(guest, [select, bytes.fromhex("0020008000")])
    if answer == b"\x69\x83":
        return 0
    assert answer[0] == 0x63
    return answer[1] & 0x0F


async def test_a_qemu_that_was_killed_and_started_again_has_the_card_again(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "card.socket"
    async with running_ccidd(VSCARD, f"--socket-path={path}", workdir=tmp_path) as ccidd:
        pin = pin_of_embedded_card(ccidd)
        for _ in range(2):
            async with boot_guest(
                image, qemu=qemu, workdir=tmp_path, devices=passthru(f"path={path}")
            ) as guest:
                opensc = OpenSC(guest)
                await opensc.wait_for_card()
                await opensc.sign("01", "ECDSA-SHA256", MESSAGE, pin)
                await guest.kill()


@pytest.mark.parametrize("end", ["killed", "stopped"])
async def test_a_ccidd_that_is_started_again_brings_the_card_back_without_anyone_s_help(
    end: str, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "card.socket"
    devices = passthru(f"path={path},{qemu.reconnect(1)}")
    async with boot_guest(image, qemu=qemu, workdir=tmp_path, devices=devices) as guest:
        opensc = OpenSC(guest)
        async with running_ccidd(VSCARD, f"--socket-path={path}", workdir=tmp_path) as ccidd:
            await opensc.wait_for_card()
            pin = pin_of_embedded_card(ccidd)
            await opensc.sign("01", "ECDSA-SHA256", MESSAGE, pin)
            if end == "killed":
                ccidd.kill()
                await ccidd.wait()
        if end == "stopped":
            assert ccidd.returncode == 0
            await opensc.wait_until_no_card()
        async with running_ccidd(VSCARD, f"--socket-path={path}", workdir=tmp_path) as ccidd:
            await until_logged(ccidd, "event=card_inserted")
            await opensc.wait_for_card()
            certificates = await opensc.certificates()
            signature = await opensc.sign("01", "ECDSA-SHA256", MESSAGE, pin)
            check_signature(certificates["01"], signature, MESSAGE)


async def test_a_guest_that_waits_for_a_killed_ccidd_is_freed_by_the_next(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "card.socket"
    devices = passthru(f"path={path},{qemu.reconnect(1)}")
    async with boot_guest(image, qemu=qemu, workdir=tmp_path, devices=devices) as guest:
        opensc = OpenSC(guest)
        async with running_ccidd(VSCARD, f"--socket-path={path}", workdir=tmp_path) as ccidd:
            await opensc.wait_for_card()
            pin = pin_of_embedded_card(ccidd)
            ccidd.kill()
            await ccidd.wait()
        async with trio.open_nursery() as nursery:
            # It begins while nobody answers, and must come to an end.
            nursery.start_soon(partial(opensc.verify_pin, pin, check=False))
            await guest.run_until("pidof", "pkcs15-tool", shows="\n")
            async with running_ccidd(VSCARD, f"--socket-path={path}", workdir=tmp_path) as ccidd:
                await until_logged(ccidd, "event=card_inserted")
                await opensc.wait_for_card()
                await opensc.verify_pin(pin)


async def test_responses_of_every_length_come_through_intact(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "card.socket"
    program = (sys.executable, "-P", scripted_card.__file__)
    async with (
        running_ccidd(f"--socket-path={path}", workdir=tmp_path, program=program),
        boot_guest(image, qemu=qemu, workdir=tmp_path, devices=passthru(f"path={path}")) as guest,
    ):
        await OpenSC(guest).wait_for_card()
        lengths = range(2, 259)
        # Le is what the card will give; 0 stands for 256.
        commands = [bytes([0, 0x10, *divmod(n, 256), (n - 2) % 256]) for n in lengths]
        # The one length that QEMU cannot carry comes in two pieces.
        get_response = bytes.fromhex("00C0000001")
        commands.insert(54 - 2 + 1, get_response)
        responses = await transmit(guest, commands)
        rest = responses.pop(54 - 2 + 1)
        assert responses[54 - 2][-2:] == b"\x61\x01"
        responses[54 - 2] = responses[54 - 2][:-2] + rest
        assert responses == [scripted_card.response_of_length(n) for n in lengths]
