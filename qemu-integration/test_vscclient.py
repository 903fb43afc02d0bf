# SPDX-License-Identifier: Apache-2.0
"""The commands of QEMU's document on smart cards, with ccidd-vscclient in the place of vscclient.

Source: QEMU, docs/system/devices/ccid.rst.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.x509.oid import NameOID

from ccidd.keys.key import KeyAlgorithm
from credentials import credential
from harness.ccidd import passthru, until_logged
from harness.guest import boot_guest
from harness.keys import check_signature
from harness.opensc import CAC_NAME, OpenSC
from harness.process import running
from tokens import PIN as TOKEN_PIN
from tokens import SOFTHSM, SoftHsm, StoredKey, register_module

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cryptography import x509

    from harness.guest import Controller, Guest
    from harness.image import Image
    from harness.qemu import Qemu

PIN: Final = "654321"
MESSAGE: Final = b"signed in a guest\n"

# "Using ccid-card-emulated with certificates stored in files".
CERTIFICATES: Final = r"""
certutil -S -d sql:$PWD -s "CN=Fake Smart Card CA" -x -t TC,TC,TC -n fake-smartcard-ca
certutil -S -d sql:$PWD -t ,, -s "CN=John Doe" -n id-cert -c fake-smartcard-ca
certutil -S -d sql:$PWD -t ,, -s "CN=John Doe (signing)" --nsCertType smime \
    -n signing-cert -c fake-smartcard-ca
certutil -S -d sql:$PWD -t ,, -s "CN=John Doe (encryption)" --nsCertType sslClient \
    -n encryption-cert -c fake-smartcard-ca
"""

# "Using ccid-card-passthru with client side certificates".
WITH_CERTIFICATES: Final = r"""
vscclient -e "db=\"sql:$PWD\" use_hw=no soft=(,Test,CAC,,id-cert,signing-cert,encryption-cert)" \
    <qemu-host> 2001
"""


# "Using ccid-card-passthru with client side hardware"; SoftHSM says that its tokens are removable,
# but not that they are hardware.
WITH_HARDWARE: Final = r"""
vscclient -e "db=\"sql:$PWD\" use_hw=removable" <qemu-host> 2001
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The document's fake-smartcard."""
    directory = tmp_path / "fake-smartcard"
    directory.mkdir()
    (directory / "pw").write_text(f"{PIN}\n")
    (directory / "noise").write_bytes(os.urandom(64))
    commands = ["certutil -N -d sql:$PWD -f pw"]
    # What it asks people for; and serial numbers, which it makes of the time in half seconds.
    lines = CERTIFICATES.strip().replace("\\\n", "").splitlines()
    commands += [f"{line} -f pw -z noise -m {n}" for n, line in enumerate(lines, start=1)]
    subprocess.run(["sh", "-c", " && ".join(commands)], cwd=directory, check=True, timeout=120)
    return directory


@asynccontextmanager
async def guest_with_vscclient(
    command: str,
    directory: Path,
    *,
    image: Image,
    qemu: Qemu,
    usb: Controller,
) -> AsyncGenerator[Guest]:
    """Boot a guest, and run a command of the document in a directory."""
    workdir = directory.parent
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    command = command.replace("vscclient", "ccidd-vscclient").replace("<qemu-host>", "localhost")
    script = f"cd {shlex.quote(str(directory))}; exec {command.replace('2001', str(port)).strip()}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "XDG_STATE_HOME": str(workdir / "state")}
    devices = passthru(f"server=on,host=0.0.0.0,port={port},wait=off")
    log = workdir / "vscclient.log"
    async with (
        boot_guest(image, qemu=qemu, workdir=workdir, devices=devices, usb=usb) as guest,
        running(["sh", "-c", script], log=log, env=environ) as process,
    ):
        await until_logged(process, "> ")
        await OpenSC(guest).wait_for_card()
        yield guest


def name_of(certificate: x509.Certificate) -> object:
    return certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


@pytest.mark.parametrize("usb", ["uhci", "xhci"])
async def test_a_guest_uses_certificates_of_the_client_side(
    usb: Controller, directory: Path, image: Image, qemu: Qemu
) -> None:
    async with guest_with_vscclient(
        WITH_CERTIFICATES, directory, image=image, qemu=qemu, usb=usb
    ) as guest:
        opensc = OpenSC(guest)
        assert await opensc.card_name() == CAC_NAME
        certificates = await opensc.certificates()
        assert [name_of(each) for each in certificates.values()] == [
            "John Doe",
            "John Doe (signing)",
            "John Doe (encryption)",
        ]
        number, certificate = next(iter(certificates.items()))
        signature = await opensc.sign(number, "SHA256-RSA-PKCS", MESSAGE, PIN)
        check_signature(certificate, signature, MESSAGE)


async def test_a_guest_uses_a_token_of_the_client_side(
    directory: Path, image: Image, qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    softhsm = SoftHsm(directory.parent / "softhsm", monkeypatch)
    softhsm.configure("slots.removable = true")
    softhsm.add("my token", [StoredKey(KeyAlgorithm.RSA_2048, b"\1", "a key")])
    register_module(directory, "SoftHSM", SOFTHSM)
    async with guest_with_vscclient(
        WITH_HARDWARE, directory, image=image, qemu=qemu, usb="uhci"
    ) as guest:
        opensc = OpenSC(guest)
        assert await opensc.card_name() == CAC_NAME
        certificates = await opensc.certificates()
        expected = credential(KeyAlgorithm.RSA_2048).certificate
        assert list(certificates.values()) == [expected]
        (number,) = certificates
        signature = await opensc.sign(number, "SHA256-RSA-PKCS", MESSAGE, TOKEN_PIN.decode())
        check_signature(expected, signature, MESSAGE)
        softhsm.remove()
        await opensc.wait_until_no_card()
        softhsm.bring_back()
        await opensc.wait_for_card()
