# SPDX-License-Identifier: Apache-2.0
"""`./dev demo`: a guest signs with a card that ccidd serves, step by step."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from cryptography.exceptions import InvalidSignature

from harness.ccidd import guest_with_card, pin_of_embedded_card
from harness.errors import HarnessError
from harness.image import guest_image
from harness.keys import check_signature
from harness.opensc import PIV_NAME, OpenSC
from harness.qemu import system_qemu

if TYPE_CHECKING:
    from harness.ccidd import Pair

_DATA = b"I was signed by a card that is not in this machine.\n"
_MECHANISMS = {"01": "ECDSA-SHA256", "02": "SHA256-RSA-PKCS"}

_SHELL_HINT = """
You are in the guest now. Things to try, with PIN {pin}:
  opensc-tool --list-readers
  pkcs11-tool --list-objects
  pkcs11-tool --login --test
`exit` or Ctrl-] ends it."""


class Steps:
    """Says what is being done, and what came of it."""

    def __init__(self) -> None:
        self._number = 0

    def step(self, text: str) -> None:
        self._number += 1
        print(f"{self._number}. {text}", flush=True)

    @staticmethod
    def result(text: str) -> None:
        print(f"   {text}", flush=True)


async def demonstrate(*, release: str, shell: bool) -> None:
    """Run the demonstration.

    Args:
        release: The Debian release in the guest.
        shell: Whether to leave the user in the guest afterwards.

    Raises:
        HarnessError: A step failed.
    """
    image, qemu = guest_image(release), system_qemu()
    steps = Steps()
    version = ".".join(map(str, qemu.version))
    with tempfile.TemporaryDirectory(prefix="ccidd-demo-") as directory:
        steps.step(
            f"ccidd starts with the card that it makes itself, and QEMU {version} boots a"
            f" Debian guest ({release}) against it; this takes up to a minute"
        )
        async with guest_with_card(image=image, qemu=qemu, workdir=Path(directory)) as pair:
            await _use_card(pair, steps)
            if shell:
                print(_SHELL_HINT.format(pin=pin_of_embedded_card(pair.ccidd)), flush=True)
                await pair.guest.interact()


async def _use_card(pair: Pair, steps: Steps) -> None:
    opensc = OpenSC(pair.guest)
    pin = pin_of_embedded_card(pair.ccidd)

    steps.step("The guest sees the reader, with a card in it: opensc-tool --list-readers")
    steps.result(await opensc.wait_for_card())

    steps.step("The guest knows the card: opensc-tool --name")
    name = await opensc.card_name()
    steps.result(name)
    if name != PIV_NAME:
        raise HarnessError(f"the card should be known as {PIV_NAME!r}")

    steps.step("It reads the certificates: pkcs11-tool --list-objects --type cert")
    certificates = await opensc.certificates()
    for number, certificate in certificates.items():
        steps.result(f"{number}  {certificate.subject.rfc4514_string()}")
    if not certificates.keys() >= _MECHANISMS.keys():
        raise HarnessError("there should be certificates 01 and 02")

    steps.step(f"It shows the card its PIN, {pin}: pkcs15-tool --verify-pin")
    await opensc.verify_pin(pin)
    steps.result("the card accepts it")

    for number, mechanism in _MECHANISMS.items():
        steps.step(f"The guest signs: pkcs11-tool --sign --id {number} --mechanism {mechanism}")
        signature = await opensc.sign(number, mechanism, _DATA, pin)
        steps.result(f"{len(signature)} bytes: {signature[:16].hex()}…")
        steps.step("The host verifies the signature with the certificate's key")
        try:
            check_signature(certificates[number], signature, _DATA)
        except InvalidSignature as error:
            raise HarnessError("the signature is not that of the card's key") from error
        steps.result("it is right")


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    parser.add_argument("--shell", action="store_true", help="then leave you in the guest")
    parser.add_argument(
        "--release", default="bookworm", help="the guest's Debian release (default: bookworm)"
    )
    options = parser.parse_args()
    if options.shell and not (sys.stdin.isatty() and sys.stdout.isatty()):
        sys.exit("demo: --shell needs a terminal")
    try:
        trio.run(lambda: demonstrate(release=options.release, shell=options.shell))
    except HarnessError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print("All of it happened.")


if __name__ == "__main__":
    main()
