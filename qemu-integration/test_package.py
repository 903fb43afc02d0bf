# SPDX-License-Identifier: Apache-2.0
"""What `./dev package` makes can be installed, used, removed and purged on the release it is for.

Source: Debian Policy Manual, 6 (maintainer scripts are idempotent; what a purge leaves).
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.debian import REPOSITORY, mmdebstrap, run_logged
from harness.systemd import booted_host

if TYPE_CHECKING:
    from harness.image import Image
    from harness.qemu import Qemu

RELEASE = platform.freedesktop_os_release()

pytestmark = pytest.mark.skipif(
    RELEASE["ID"] != "debian", reason="a Debian package is made on Debian, for the same release"
)

# Runs in the root of a fresh Debian, without systemd.
LIFE_OF_A_PACKAGE = r"""
set -eux
apt-get --yes --no-install-recommends install /ccidd.deb
ccidd --version
ccidd --print-capabilities
ccidd-vscclient --version
ccidctl --version
man ccidd | grep -- --socket-path=PATH
man ccidctl | grep card.insert
man ccidd card | grep reset-management-key
man ccidd.toml | grep socket-path
test -e /usr/share/ccidd/backends/50-ccidd.json
getent passwd ccidd
getent group ccidd-qemu
test "$(stat --format='%U:%G %a' /etc/ccidd /run/ccidd)" = $'root:ccidd 750\nroot:root 755'
systemd-analyze verify ccidd.service ccidd@vm.service ccidd-reader@vm.socket

# With the libraries that are compiled: keys are made, modules are found.
setpriv --reuid=nobody --clear-groups \
    env PYTHONPATH=/tmp ccidd card create alice --state-dir=/tmp/state --key=9C=RSA-2048
/usr/lib/ccidd/bin/python3 -I -c 'import PyKCS11, smartcard'
setpriv --reuid=nobody --clear-groups \
    ccidd --state-dir=/tmp/state --card=piv,card=alice --socket-path=/tmp/card.sock &
for _ in $(seq 100); do test -S /tmp/card.sock || sleep 0.1; done
kill $!
wait $!

# Again, in each state that Debian's policy names.
sh -e /var/lib/dpkg/info/ccidd.postinst configure
echo '# mine' >>/etc/ccidd/ccidd.toml
apt-get --yes --no-install-recommends --reinstall install /ccidd.deb
grep '# mine' /etc/ccidd/ccidd.toml
mkdir -p /var/lib/ccidd
apt-get --yes remove ccidd
test -e /etc/ccidd/ccidd.toml -a ! -e /usr/lib/ccidd -a ! -e /usr/bin/ccidd
apt-get --yes purge ccidd
test -d /var/lib/ccidd
rmdir /var/lib/ccidd
find / -xdev -iname '*ccid*' ! -path /ccidd.deb ! -path '/var/cache/man/*' | tee /left
test ! -s /left
echo its life is over
"""

INSTALL = """
set -e
mkdir -p /mnt
mount /dev/vdb /mnt
dpkg --install /mnt/ccidd.deb
# The host that tries the service has its libraries from there too.
echo /usr/lib/ccidd/lib/python3*/site-packages >/usr/lib/python3/dist-packages/host.pth
"""
CONFIGURATION = """
[readers.alice]
transport = "vscard"
"""
SELECT_PIV = "00A4040C09A00000030800001000"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `./dev package` makes."""
    directory = tmp_path_factory.mktemp("dist")
    made = subprocess.run(
        [REPOSITORY / "dev", "package", directory], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return directory


@pytest.fixture(scope="module")
def package(dist: Path) -> Path:
    (package,) = dist.glob("*.deb")
    return package


def test_it_lives_and_leaves_nothing(package: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(LIFE_OF_A_PACKAGE)
    log = tmp_path / "mmdebstrap.log"
    options = [
        "--variant=apt",
        "--include=man-db,python3",
        "--aptopt=Acquire::Retries 3",
        f"--customize-hook=upload {package} /ccidd.deb",
        f"--customize-hook=upload {script} /script",
        "--customize-hook=chroot $1 bash /script",
    ]
    mmdebstrap(RELEASE["VERSION_CODENAME"], Path("/dev/null"), log, options)
    assert "its life is over" in log.read_text()


async def test_its_service_runs_in_a_guest_and_goes_with_it(
    image: Image, qemu: Qemu, package: Path, tmp_path: Path
) -> None:
    if image.release != RELEASE["VERSION_CODENAME"]:
        pytest.skip("the package is for the release of this machine")
    files, disk = tmp_path / "files", tmp_path / "disk.img"
    files.mkdir()
    shutil.copy(package, files / "ccidd.deb")
    argv = ["genext2fs", f"--root={files}", "--block-size=4096", "--size-in-blocks=8192", str(disk)]
    run_logged(argv, tmp_path / "disk.log")
    async with booted_host(image, disk, qemu=qemu, workdir=tmp_path, install=INSTALL) as host:
        await host.add_user("alice", "ccidd-qemu")
        await host.guest.write_file("/etc/ccidd/ccidd.toml", CONFIGURATION.encode())
        await host.sh("systemctl enable --now ccidd-reader@alice.socket")
        answered = await host.connect("alice", "/run/ccidd/alice.sock", SELECT_PIV)
        assert answered.text.splitlines()[-1].endswith("9000")
        (process,) = await host.shown("ccidd.service", "MainPID")
        assert "ccidd (enforce)" in await host.sh(f"cat /proc/{process}/attr/current")
        assert "alice" in await host.sh("ccidctl readers")
        await host.sh("dpkg --purge ccidd", timeout=300)
        assert not await host.sh(f"cat /proc/{process}/cmdline", check=False)
        assert "DENIED" not in await host.sh("dmesg")


def test_lintian_finds_nothing(package: Path) -> None:
    found = subprocess.run(
        ["lintian", "--fail-on=error,warning", package], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_the_source_and_the_wheel_have_what_they_are_made_of(dist: Path) -> None:
    (source,) = dist.glob("*.tar.gz")
    (wheel,) = dist.glob("*.whl")
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "dev",
        "LICENSE",
        "packaging/debian/rules",
        "qemu-integration/test_package.py",
    } <= inside
    with zipfile.ZipFile(wheel) as archive:
        installed = {name.partition(".data/data/")[2] for name in archive.namelist()}
    there = {Path(name).name for name in installed}
    for file in (REPOSITORY / "packaging").rglob("*"):
        if file.is_file() and file.parent.name not in {"debian", "source"}:
            assert file.name.removesuffix(".bash") in there, file
