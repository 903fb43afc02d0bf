# SPDX-License-Identifier: Apache-2.0
"""A guest uses ccidd's reader with the CCID driver of GnuPG's scdaemon, and without pcscd.

It is another host than libccid: it speaks T=1 and PPS itself at the TPDU level, wants T=1 at the
other levels too, waits 5 seconds unless it is asked for more, and reads at most 2065 bytes.
"""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING

import pytest
import trio
from cryptography import x509

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU
from harness import scripted_reader
from harness.ccidd import pin_of_embedded_card, redirected, running_ccidd
from harness.gnupg import GnuPG
from harness.guest import Controller, boot_guest
from harness.keys import check_signature
from harness.opensc import OpenSC
from harness.pcsc import transmit
from harness.scripted_reader import (
    OPENPGP_FINGERPRINTS,
    OPENPGP_URL,
    hand_at,
    openpgp_aid,
    response_of_length,
)

if TYPE_CHECKING:
    from pathlib import Path

    from harness.image import Image
    from harness.qemu import Qemu
    from harness.scripted_reader import Hand

# The log of scdaemon in the guest shows what it sends, PINs too.
pytestmark = pytest.mark.holds_secrets

SCRIPTED_READER = (sys.executable, "-P", scripted_reader.__file__)
AT_EACH_LEVEL = pytest.mark.parametrize(
    ("level", "usb"), [("extended", "xhci"), ("short", "uhci"), ("tpdu", "ehci")]
)
MESSAGE = b"signed in a guest\n"
CONTENT = bytes(i % 253 for i in range(65535))


def answer_of_length(length: int) -> bytes:
    return CommandAPDU(0, 0x10, *divmod(length, 256)).encode()


def backwards(length: int) -> bytes:
    """Return a command of 9 bytes and so much data; the card gives the data back, reversed."""
    return CommandAPDU(0, 0x20, 0, 0, CONTENT[:length], ne=65536, extended=True).encode()


def reversed_content(length: int) -> bytes:
    return CONTENT[:length][::-1] + b"\x90\0"


def work(seconds: int) -> bytes:
    return bytes([0, 0x30, seconds, 0])


@AT_EACH_LEVEL
async def test_scdaemon_drives_the_reader_itself(
    level: str, usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "reader.socket"
    options = [f"--socket-path={path}", f"--level={level}"]
    async with (
        running_ccidd(*options, workdir=tmp_path, program=SCRIPTED_READER),
        hand_at(path) as hand,
        boot_guest(
            image, qemu=qemu, workdir=tmp_path, devices=redirected(f"path={path}"), usb=usb
        ) as guest,
    ):
        gnupg = GnuPG(guest)
        await gnupg.take_reader()
        await check_lengths(gnupg, level)
        # Longer than the 5 seconds that scdaemon waits.
        assert await gnupg.transmit(work(6)) == [b"\x90\0"]
        await check_removal(gnupg, hand)
        await check_card_status(gnupg, hand, cards=(1, 2))


async def check_lengths(gnupg: GnuPG, level: str) -> None:
    """Send commands and get responses of many lengths, also such as need several blocks."""
    lengths = [*range(2, 12), *range(50, 60), *range(245, 275), *range(500, 515), 1024, 2055]
    # What comes in one message must not be longer: scdaemon has no room for it.
    lengths += [] if level == "extended" else [2056, 65535]
    responses = await gnupg.transmit(*[answer_of_length(n) for n in lengths])
    assert responses == [response_of_length(n) for n in lengths]

    lengths = [1, 100, *range(240, 253)]
    lengths += [] if level == "short" else [253, 254, 300, 400]
    responses = await gnupg.transmit(*[backwards(n) for n in lengths])
    assert responses == [reversed_content(n) for n in lengths]
    if level == "short":
        # scdaemon cuts a command of 262 bytes in two, which this level does not provide for.
        lines = [f"APDU {backwards(n).hex()}" for n in (253, 252)]
        replies = await gnupg.scd("SERIALNO undefined", *lines, check=False)
        assert [reply.is_ok for reply in replies] == [True, False, True]


async def check_removal(gnupg: GnuPG, hand: Hand) -> None:
    """Take the card out while it works, and put another in."""
    async with trio.open_nursery() as nursery:

        async def fail() -> None:
            replies = await gnupg.scd("SERIALNO undefined", f"APDU {work(60).hex()}", check=False)
            assert [reply.is_ok for reply in replies] == [True, False]

        nursery.start_soon(fail)
        await hand.until_working(0)
        await hand.remove(0)
    await hand.insert(0)


async def check_card_status(gnupg: GnuPG, hand: Hand, cards: tuple[int, int]) -> None:
    """Look at a card as a user does, and at the next that takes its place."""
    first, second = cards
    assert (await gnupg.card_status()).text == card_status(first)
    await hand.remove(0)
    assert (await gnupg.card_status(check=False)).status != 0
    await hand.insert(0)
    assert (await gnupg.card_status()).text == card_status(second)


def card_status(number: int) -> str:
    """Return what `gpg --card-status` shows of a scripted card."""
    keys = [
        f"{key[:10].hex(' ', 2)}  {key[10:].hex(' ', 2)}".upper() for key in OPENPGP_FINGERPRINTS
    ]
    return f"""\
Reader ...........: 0E0F:0004:SCRIPTED1:0
Application ID ...: {openpgp_aid(number).hex().upper()}
Application type .: OpenPGP
Version ..........: 3.4
Manufacturer .....: test card
Serial number ....: {number:08X}
Name of cardholder: Scripted Card
Language prefs ...: en
Salutation .......: Ms.
URL of public key : {OPENPGP_URL}
Login data .......: scripted
Signature PIN ....: forced
Key attributes ...: rsa4096 nistp256 nistp256
Max. PIN lengths .: 127 127 127
PIN retry counter : 3 0 2
Signature counter : 7
Signature key ....: {keys[0]}
      created ....: 2023-11-14 22:13:21
Encryption key....: {keys[1]}
      created ....: 2023-11-14 22:13:22
Authentication key: {keys[2]}
      created ....: 2023-11-14 22:13:23
General key info..: [none]
"""


async def test_drivers_put_together_what_does_not_fit_into_one_message(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "reader.socket"
    # 261 bytes of an APDU, the fewest that the extended APDU level can have.
    options = [f"--socket-path={path}", "--max-message=271"]
    lengths = [2, 260, 261, 262, 522, 523, 783, 784, 2055, 2056, 65535]
    commands = [answer_of_length(n) for n in lengths]
    responses = [response_of_length(n) for n in lengths]
    # Commands of 260 to 262 bytes, and then such responses.
    lengths = [251, 252, 253, 258, 259, 260, 400]
    commands += [backwards(n) for n in lengths]
    responses += [reversed_content(n) for n in lengths]
    longer = [513, 514, 774, 775, 65535]
    async with (
        running_ccidd(*options, workdir=tmp_path, program=SCRIPTED_READER),
        boot_guest(image, qemu=qemu, workdir=tmp_path, devices=redirected(f"path={path}")) as guest,
    ):
        await OpenSC(guest).wait_for_card()
        # scdaemon's command line has no room for these.
        answers = await transmit(guest, [*commands, *[backwards(n) for n in longer]])
        assert answers == responses + [reversed_content(n) for n in longer]
        gnupg = GnuPG(guest)
        await gnupg.take_reader()
        assert await gnupg.transmit(*commands) == responses


SELECT_PIV = bytes.fromhex("00A4040009A0000003080000100000")
CERTIFICATE_9C = bytes.fromhex("00CB3FFF055C035FC10A00")


@AT_EACH_LEVEL
async def test_scdaemon_signs_with_the_embedded_card(
    level: str, usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "reader.socket"
    options = ["--transport=usbredir", f"--socket-path={path}", f"--reader=level={level}"]
    async with (
        running_ccidd(*options, workdir=tmp_path) as ccidd,
        boot_guest(
            image, qemu=qemu, workdir=tmp_path, devices=redirected(f"path={path}"), usb=usb
        ) as guest,
    ):
        gnupg = GnuPG(guest)
        await gnupg.take_reader()
        pin = pin_of_embedded_card(ccidd)
        certificate = await sign_by_apdus(gnupg, pin)
        # GnuPG of Debian 12 does not know PIV cards.
        if image.release != "bookworm":
            await sign_by_command(gnupg, pin, certificate)
            assert "Application type .: PIV\n" in (await gnupg.card_status()).text


async def sign_by_apdus(gnupg: GnuPG, pin: str) -> x509.Certificate:
    """Sign with the key 9C, RSA-2048; return its certificate."""
    digest = hashlib.sha256(MESSAGE).digest()
    # EMSA-PKCS1-v1_5 (RFC 8017, 9.2).
    encoded = bytes.fromhex("3031300D060960864801650304020105000420") + digest
    block = b"\0\1".ljust(255 - len(encoded), b"\xff") + b"\0" + encoded
    template = tlv.encode(0x7C, tlv.encode(0x82), tlv.encode(0x81, block))
    _properties, found, verified, begun, signed = await gnupg.transmit(
        SELECT_PIV,
        CERTIFICATE_9C,
        bytes.fromhex("0020008008") + pin.encode().ljust(8, b"\xff"),
        CommandAPDU(0x10, 0x87, 0x07, 0x9C, template[:255]).encode(),
        CommandAPDU(0x00, 0x87, 0x07, 0x9C, template[255:], ne=256).encode(),
    )
    assert (verified, begun) == (b"\x90\0", b"\x90\0")
    (container,) = tlv.decode(found[:-2])
    certificate = x509.load_der_x509_certificate(tlv.decode_to_dict(container.value)[0x70])
    (answer,) = tlv.decode(signed[:-2])
    check_signature(certificate, tlv.decode_to_dict(answer.value)[0x82], MESSAGE)
    return certificate


async def sign_by_command(gnupg: GnuPG, pin: str, certificate: x509.Certificate) -> None:
    """Have scdaemon read the certificate and sign, as it does for gpg and gpgsm."""
    _serial, learned, read, _set, signed = await gnupg.scd(
        "SERIALNO",
        "LEARN --force",
        "READCERT PIV.9C",
        f"SETDATA {hashlib.sha256(MESSAGE).hexdigest()}",
        f"PKSIGN --hash=sha256 PIV.9C\nD {pin}%00\nEND",
    )
    keys = [status.split()[2] for status in learned.status if status.startswith("KEYPAIRINFO")]
    assert keys == ["PIV.9A", "PIV.9C", "PIV.9D"]
    assert x509.load_der_x509_certificate(read.data) == certificate
    check_signature(certificate, signed.data, MESSAGE)
