# SPDX-License-Identifier: Apache-2.0
"""TLS with QEMU's own, in both roles. There is no guest: QEMU's BIOS asks for the device."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Literal

import pytest

from authority import Authority
from ccidd.transport.tls import subject_of
from harness.bare import bare_command
from harness.ccidd import passthru, redirected, running_ccidd, until_logged
from harness.machine import quoted
from harness.process import running
from harness.qemu import environment

if TYPE_CHECKING:
    from pathlib import Path

    from authority import Issued
    from harness.qemu import Qemu

AUTHORITY = Authority("authority")
STRANGER = Authority("another authority")
CCIDD = AUTHORITY.issue("ccidd")
QEMU = AUTHORITY.issue("qemu")


def tls(directory: Path, role: Literal["server", "client"], issued: Issued) -> list[str]:
    """Return QEMU's options for its certificates, which it is to use even if they are wrong."""
    AUTHORITY.write(directory, role, issued)
    where = f"dir={quoted(directory)},endpoint={role}"
    return ["-object", f"tls-creds-x509,id=tls,{where},verify-peer=on,sanity-check=off"]


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert isinstance(port, int)
    return port


@pytest.mark.parametrize(
    ("theirs", "seen"),
    [
        (QEMU, "event=device_connected"),
        (STRANGER.issue(), "event=connection_refused"),
    ],
)
async def test_a_qemu_that_connects(qemu: Qemu, tmp_path: Path, theirs: Issued, seen: str) -> None:
    creds = AUTHORITY.write(tmp_path / "creds", "server", CCIDD)
    options = ["--listen=127.0.0.1:0", f"--tls-creds={creds}"]
    options.append(f"--allow=cert:{subject_of(QEMU.certificate).replace(',', ',,')}")
    async with running_ccidd(*options, workdir=tmp_path) as ccidd:
        address = re.search(r"address=127\.0\.0\.1:(\d+)", ccidd.log_text())
        assert address is not None
        chardev = f"host=127.0.0.1,port={address[1]},tls-creds=tls,{qemu.reconnect(1)}"
        argv = bare_command(qemu, [*tls(tmp_path / "qemu", "client", theirs), *redirected(chardev)])
        async with running(argv, log=tmp_path / "qemu.log", env=environment(qemu)):
            await until_logged(ccidd, seen)


@pytest.mark.parametrize(
    ("transport", "identity", "seen"),
    [
        # QEMU has the parts of a subject in the order of the certificate, not in that of RFC 4514.
        ("usbredir", "O=Tests\\, Inc.,CN=ccidd", "event=device_connected"),
        ("vscard", "O=Tests\\, Inc.,CN=ccidd", "event=card_inserted"),
        # QEMU says nothing, and closes the connection.
        ("usbredir", "CN=nobody", "event=connection_closed"),
    ],
)
async def test_a_qemu_that_listens(
    qemu: Qemu, tmp_path: Path, transport: str, identity: str, seen: str
) -> None:
    creds = AUTHORITY.write(tmp_path / "creds", "client", CCIDD)
    port = unused_port()
    chardev = f"host=127.0.0.1,port={port},server=on,wait=off,tls-creds=tls,tls-authz=allowed"
    authz = ["-object", f"authz-simple,id=allowed,identity={identity.replace(',', ',,')}"]
    devices = {"usbredir": redirected, "vscard": passthru}[transport](chardev)
    argv = bare_command(qemu, [*tls(tmp_path / "qemu", "server", QEMU), *authz, *devices])
    options = [f"--connect=127.0.0.1:{port}", f"--tls-creds={creds}", f"--transport={transport}"]
    async with (
        running(argv, log=tmp_path / "qemu.log", env=environment(qemu)),
        running_ccidd(*options, workdir=tmp_path) as ccidd,
    ):
        await until_logged(ccidd, seen)


async def test_a_qemu_of_another_name_is_left_alone(qemu: Qemu, tmp_path: Path) -> None:
    creds = AUTHORITY.write(tmp_path / "creds", "client", CCIDD)
    port = unused_port()
    theirs = AUTHORITY.issue("qemu", hosts=["qemu.example.org"])
    chardev = f"host=127.0.0.1,port={port},server=on,wait=off,tls-creds=tls"
    argv = bare_command(qemu, [*tls(tmp_path / "qemu", "server", theirs), *redirected(chardev)])
    options = [f"--connect=127.0.0.1:{port}", f"--tls-creds={creds}"]
    async with running(argv, log=tmp_path / "qemu.log", env=environment(qemu)):
        async with running_ccidd(*options, workdir=tmp_path) as ccidd:
            await until_logged(ccidd, "certificate is not valid for '127.0.0.1'")
        options.append("--tls-hostname=qemu.example.org")
        async with running_ccidd(*options, workdir=tmp_path) as ccidd:
            await until_logged(ccidd, "event=device_connected")
