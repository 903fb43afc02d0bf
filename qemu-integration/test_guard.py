# SPDX-License-Identifier: Apache-2.0
"""A guest that wants to harm a guarded card, and a host that is asked before its keys are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccidd.keys.key import KeyAlgorithm
from harness.ccidd import redirected, running_ccidd
from harness.guest import boot_guest
from harness.keys import card_option, check_signature
from harness.opensc import OpenSC

if TYPE_CHECKING:
    from pathlib import Path

    from harness.image import Image
    from harness.qemu import Qemu

PIN = "123456"
WRONG_PIN = "654321"
MESSAGE = b"signed in a guest\n"

# A person who agrees to everything, and writes down what was asked.
PINENTRY = """\
#!/bin/sh
echo OK
while read -r line; do
    echo "$line" >>{asked}
    echo OK
done
"""


async def test_a_guest_uses_a_card_when_it_may_and_cannot_block_it(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    asked, pinentry = tmp_path / "asked", tmp_path / "pinentry"
    pinentry.write_text(PINENTRY.format(asked=asked))
    pinentry.chmod(0o700)
    card = card_option([KeyAlgorithm.P_256, KeyAlgorithm.RSA_2048], PIN, tmp_path)
    guard = f"policy=use,retry-floor=1,confirm=sign,decrypt,confirm-with={pinentry}"
    path = tmp_path / "card.socket"
    devices = [*redirected(f"path={path}"), "-name", "guest=win,,11,debug-threads=on"]
    # What this pinentry writes is no business of a pinentry's.
    asked.touch()
    options = (f"--socket-path={path}", f"{card},{guard}", f"--sandbox-path={asked}")
    async with (
        running_ccidd(*options, workdir=tmp_path) as ccidd,
        boot_guest(image, qemu=qemu, workdir=tmp_path, devices=devices) as guest,
    ):
        opensc = OpenSC(guest)
        await opensc.wait_for_card()
        certificates = await opensc.certificates()
        signature = await opensc.sign("02", "SHA256-RSA-PKCS", MESSAGE, PIN)
        check_signature(certificates["02"], signature, MESSAGE)
        questions = [line for line in asked.read_text().splitlines() if "SETDESC" in line]
        assert len(questions) == 1
        assert "guest win,11 asks to sign" in questions[0]
        assert "digital signature key (9C)" in questions[0]

        change = ("--change-pin", "--auth-id=01", f"--pin={PIN}", "--new-pin=222222")
        refused = await guest.run("pkcs15-tool", *change, check=False)
        assert refused.status != 0
        for _ in range(4):
            refused = await opensc.verify_pin(WRONG_PIN, check=False)
            assert refused.status != 0
        refused = await opensc.verify_pin(PIN, check=False)
        assert b"blocked" in refused.stderr
        log = ccidd.log_text()
    refusals = [line for line in log.splitlines() if "event=guard_refused" in line]
    assert any('instruction="CHANGE REFERENCE DATA"' in line for line in refusals)
    assert any("reason=retry-floor" in line and "slot=0" in line for line in refusals)
    assert PIN not in log
    assert WRONG_PIN not in log
