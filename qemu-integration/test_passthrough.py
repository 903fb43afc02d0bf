# SPDX-License-Identifier: Apache-2.0
"""A guest uses the card in a reader of the host's, and so does the host.

The reader is a virtual one, in a pcscd of its own; the card is a PIV card of ccidd's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.ccidd import Transport, guest_with_card
from harness.keys import check_signature
from harness.opensc import PIV_NAME, OpenSC
from passthrough import bench, new_piv_card

if TYPE_CHECKING:
    from pathlib import Path

    from harness.image import Image
    from harness.qemu import Qemu
    from pcscd import Pcscd

PIN = "123456"
MESSAGE = b"signed in a guest\n"


@pytest.mark.parametrize("transport", ["usbredir", "vscard"])
async def test_a_guest_and_its_host_sign_by_turns_with_one_card(
    transport: Transport, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    card = "--card=pcsc,reader=Virtual*,idle-release=3"
    async with (
        bench(tmp_path, new_piv_card()) as host,
        guest_with_card(
            card, image=image, qemu=qemu, workdir=tmp_path, transport=transport
        ) as pair,
    ):
        opensc = OpenSC(pair.guest)
        await opensc.wait_for_card()
        assert await opensc.card_name() == PIV_NAME
        certificate = (await opensc.certificates())["01"]
        for _ in range(2):
            signature = await opensc.sign("01", "ECDSA-SHA256", MESSAGE, PIN)
            check_signature(certificate, signature, MESSAGE)
            # It waits until the guest has left the card alone.
            check_signature(certificate, await sign_on(host.host, tmp_path), MESSAGE)
        host.reader.remove()
        await opensc.wait_until_no_card()
        host.reader.insert(new_piv_card())
        await opensc.wait_for_card()
        signature = await opensc.sign("01", "ECDSA-SHA256", MESSAGE, PIN)
        check_signature(certificate, signature, MESSAGE)


async def sign_on(host: Pcscd, directory: Path) -> bytes:
    """Have a program of the host sign the message."""
    data, signature = directory / "data", directory / "signature"
    data.write_bytes(MESSAGE)
    await host.run(
        *("pkcs11-tool", "--login", f"--pin={PIN}", "--sign", "--id=01"),
        *("--mechanism=ECDSA-SHA256", "--signature-format=openssl"),
        *(f"--input-file={data}", f"--output-file={signature}"),
    )
    return signature.read_bytes()
