# SPDX-License-Identifier: Apache-2.0
"""A guest in which systemd is process 1, and ccidd is installed as an operator installs it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from harness.guest import Guest, boot_guest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from harness.agent import Completed
    from harness.image import Image
    from harness.qemu import Qemu

_INSTALL: Final = r"""
set -e
mkdir -p /usr/lib/ccidd
mount /dev/vdb /usr/lib/ccidd
echo /usr/lib/ccidd >/usr/lib/python3/dist-packages/ccidd.pth
printf '#!/usr/bin/python3\nfrom ccidd.service.cli import main\nmain()\n' >/usr/bin/ccidd
chmod 755 /usr/bin/ccidd
cd /usr/lib/ccidd/packaging
cp systemd/*.service systemd/*.socket /usr/lib/systemd/system/
cp sysusers/ccidd.conf /usr/lib/sysusers.d/
cp tmpfiles/ccidd.conf /usr/lib/tmpfiles.d/
cp polkit/50-ccidd.rules /etc/polkit-1/rules.d/
apparmor_parser --add --skip-cache apparmor/usr.bin.ccidd
systemd-sysusers
systemd-tmpfiles --create ccidd.conf
systemctl daemon-reload
"""
_CLIENT: Final = "/opt/client/vscard_client.py"
_SCRIPTS: Final = Path(__file__).with_name("guest_scripts")
_SUPPORT: Final = Path(__file__).parents[2] / "tests/support"


class Host:
    """The guest, as the operator of ccidd sees it.

    Attributes:
        guest: The guest.
    """

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    async def sh(self, script: str, *, check: bool = True, timeout: float = 120) -> str:  # noqa: ASYNC109 -- kept in the guest
        """Run a script as root; return its standard output."""
        ran = await self.guest.run("bash", "-c", script, check=check, timeout=timeout)
        return ran.text

    async def shown(self, unit: str, *properties: str) -> list[str]:
        """Return what systemd knows of a unit."""
        names = [f"--property={name}" for name in properties]
        lines = (await self.guest.run("systemctl", "show", *names, unit)).text.splitlines()
        values = dict(line.split("=", 1) for line in lines)
        return [values[name] for name in properties]

    async def journal(self, unit: str) -> str:
        """Return what a unit has logged."""
        return await self.sh(f"journalctl --boot --no-pager --output=cat --unit={unit}")

    async def add_user(self, name: str, *groups: str) -> None:
        """Make a user with more groups than the one of the same name."""
        await self.guest.run("useradd", "--user-group", f"--groups={','.join(groups)}", name)

    async def connect(
        self, user: str, socket: str, *commands: str, check: bool = True
    ) -> Completed:
        """Have the card behind a socket answer commands, as a QEMU that runs as some user does."""
        identity = (f"--reuid={user}", f"--regid={user}", "--init-groups")
        argv = ("python3", _CLIENT, socket, *commands, "-name", f"guest={user}")
        return await self.guest.run("setpriv", *identity, *argv, check=check, timeout=120)


@asynccontextmanager
async def booted_host(
    image: Image, disk: Path, *, qemu: Qemu, workdir: Path, install: str = _INSTALL
) -> AsyncGenerator[Host]:
    """Boot a guest with systemd, and install ccidd in it.

    Args:
        image: What to boot.
        disk: What `harness.installation.ccidd_disk` made for the same release; the guest has it
            as /dev/vdb.
        qemu: Which QEMU.
        workdir: Gets the logs, and the journal in the end.
        install: A script that installs ccidd from another disk.
    """
    drive = f"file={disk},format=raw,if=virtio,snapshot=on"
    async with boot_guest(
        image, qemu=qemu, workdir=workdir, devices=["-drive", drive], init="init-systemd"
    ) as guest:
        host = Host(guest)
        await host.sh(install, timeout=300)
        for source in (_SCRIPTS / "vscard_client.py", _SUPPORT / "qemu_peer.py"):
            await guest.run("mkdir", "-p", "/opt/client")
            await guest.write_file(f"/opt/client/{source.name}", source.read_bytes())
        try:
            yield host
        finally:
            with trio.move_on_after(30, shield=True):
                journal = await host.sh("journalctl --boot --no-pager", check=False)
                (guest.directory / "journal.log").write_text(journal)
