# SPDX-License-Identifier: Apache-2.0
"""PIN entry that the guest never sees: OpenSC uses the reader as a PIN pad."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccidd.keys.key import KeyAlgorithm
from harness.ccidd import redirected, running_ccidd
from harness.guest import boot_guest
from harness.keys import card_option, check_signature
from harness.opensc import OpenSC

if TYPE_CHECKING:
    from pathlib import Path

    from harness.image import Image
    from harness.qemu import Qemu

PIN = "482913"
MESSAGE = b"signed in a guest\n"


@pytest.mark.parametrize("level", ["extended", "short", "tpdu"])
async def test_a_guest_signs_without_the_pin_and_the_bus_never_carries_it(
    level: str, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "card.socket"
    card = card_option([KeyAlgorithm.P_256, KeyAlgorithm.RSA_2048], PIN, tmp_path)
    reader = f"--reader=level={level},pin-file={tmp_path / 'pin'}"
    options = ("--transport=usbredir", f"--socket-path={path}", card, reader)
    async with running_ccidd(*options, workdir=tmp_path):
        async with boot_guest(
            image, qemu=qemu, workdir=tmp_path, devices=redirected(f"path={path}")
        ) as guest:
            opensc = OpenSC(guest)
            await opensc.wait_for_card()
            certificates = await opensc.certificates()
            # No --pin: the token says that it has a protected authentication path.
            signature = await opensc.sign("01", "ECDSA-SHA256", MESSAGE)
            check_signature(certificates["01"], signature, MESSAGE)
            signature = await opensc.sign("02", "SHA256-RSA-PKCS", MESSAGE)
            check_signature(certificates["02"], signature, MESSAGE)
        capture = (guest.directory / "usb-0.pcap").read_bytes()
    assert bytes.fromhex("A000000308") in capture
    assert PIN.encode() not in capture
