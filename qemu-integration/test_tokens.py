# SPDX-License-Identifier: Apache-2.0
"""A guest's slot follows a PKCS#11 token of the host: SoftHSM's, made, taken out and put back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import trio

from ccidd.keys.key import KeyAlgorithm
from credentials import credential
from harness.agent import CommandError
from harness.ccidd import guest_with_card, until_logged
from harness.keys import check_signature
from harness.opensc import OpenSC
from tokens import PIN, SoftHsm, StoredKey

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from cryptography import x509

    from harness.image import Image

MESSAGE: Final = b"signed in a guest\n"

APPEARING: Final = 30.0
"""Seconds to wait until a guest's program tells of a token: it takes two, on a machine at rest."""


async def test_a_guest_has_a_token_while_the_host_has_it(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    softhsm = SoftHsm(tmp_path / "softhsm", monkeypatch)
    keys = [StoredKey(KeyAlgorithm.P_256, b"\1", "key")]
    other_keys = [StoredKey(KeyAlgorithm.P_256, b"\1", "key", 1)]
    softhsm.add("another", other_keys)
    (another,) = softhsm.tokens.iterdir()
    another = another.rename(tmp_path / "another")
    option = "--card=piv,token=any,slots=1"
    async with guest_with_card(option, image=image, workdir=tmp_path) as pair:
        opensc = OpenSC(pair.guest)
        await opensc.wait_until_no_card()

        softhsm.add("a token", keys)
        with trio.fail_after(APPEARING):
            await opensc.wait_for_card()
        certificate = credential(KeyAlgorithm.P_256).certificate
        assert await opensc.certificates() == {"01": certificate}
        signature = await opensc.sign("01", "ECDSA-SHA256", MESSAGE, PIN.decode())
        check_signature(certificate, signature, MESSAGE)

        softhsm.remove()
        with trio.fail_after(APPEARING):
            await opensc.wait_until_no_card()

        softhsm.bring_back()
        with trio.fail_after(APPEARING):
            await opensc.wait_for_card()
        signature = await opensc.sign("01", "ECDSA-SHA256", MESSAGE, PIN.decode())
        check_signature(certificate, signature, MESSAGE)

        # Another token takes its place at once, and the guest does not take it for the first.
        softhsm.remove()
        another.rename(softhsm.tokens / another.name)
        await until_logged(pair.ccidd, "token=another")
        other = credential(KeyAlgorithm.P_256, 1).certificate
        with trio.fail_after(APPEARING):
            await until_certificates(opensc, {"01": other})
        signature = await opensc.sign("01", "ECDSA-SHA256", MESSAGE, PIN.decode())
        check_signature(other, signature, MESSAGE)


async def until_certificates(opensc: OpenSC, expected: dict[str, x509.Certificate]) -> None:
    """Waits until OpenSC lists these; it fails while the guest is told of another card."""
    while True:
        with contextlib.suppress(CommandError):
            if await opensc.certificates() == expected:
                return
        await trio.sleep(0.2)
