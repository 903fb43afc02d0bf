# SPDX-License-Identifier: Apache-2.0
"""Guest images: a Debian release that boots in seconds, also without KVM.

An image is a kernel, an initial RAM disk with the few modules that mount the root, and an ext2 file
system, which QEMU opens with `snapshot=on`: any number of guests use it at once, and each starts
from the same state.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.debian import CACHE, cached, mmdebstrap, run_logged, say
from harness.errors import HarnessError
from harness.initrd import make_initrd, unpacked_kernel

if TYPE_CHECKING:
    from collections.abc import Iterable

_PACKAGES = (
    "apparmor",  # apparmor_parser, which loads profiles
    "busybox-static",  # the initial RAM disk
    "dbus",  # polkitd's, and systemctl's
    "gpg",  # gpg --card-status; gpgconf and gpg-agent come with it and scdaemon
    "kmod",  # modprobe
    "libccid",  # the driver under test
    "libstdc++6",  # what ccidd's package bundles
    "libengine-pkcs11-openssl",  # openssl with keys behind OpenSC's PKCS#11 module
    "linux-image-amd64",  # the cloud kernel has no USB
    "opensc",  # opensc-tool, piv-tool, pkcs11-tool, pkcs15-tool
    "openssh-client",  # ssh, which takes keys from a PKCS#11 module
    "openssh-server",
    "openssl",
    "pcscd",
    "polkitd",
    "python3",  # the agent
    "python3-pyscard",  # APDUs as they are, without a card driver
    "python3-usb",  # USB requests as they are, without a CCID driver
    "scdaemon",  # a CCID driver that is not libccid
    "systemd",  # what services are run by, where a guest is to have it
    "udev",  # pcscd's hotplug
    "yubico-piv-tool",  # provisions cards
)
_KERNEL_PARTS = (
    "arch/x86/crypto",
    "crypto",
    "drivers/block/virtio_blk*",
    "drivers/char/hw_random",
    "drivers/char/virtio_console*",
    "drivers/usb/common",
    "drivers/usb/core",
    "drivers/usb/host",
    "drivers/virtio",
    "fs/ext4",
    "fs/jbd2",
    "fs/mbcache*",
    "lib",
)
"""The modules that are kept, below `kernel/`: Debian's others are four fifths of the image."""
_LEFT_OUT = (
    "/etc/kernel/postinst.d/initramfs-tools",  # takes longer than all the rest
    "/usr/share/doc/*",
    "/usr/share/i18n/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
)
_HERE = Path(__file__).resolve().parent
_GUEST_FILES = _HERE / "guest_files"
_BLOCK_SIZE = 4096
_SPARE_BYTES = 160 << 20
"""What a guest may write before its root is full."""


@dataclass(frozen=True)
class Image:
    """A guest that can be booted.

    Attributes:
        release: Debian's name for it.
        kernel: vmlinux, or vmlinuz where it is quick to unpack.
        initrd: Mounts the root.
        root: An ext2 file system, never written to.
    """

    release: str
    kernel: Path
    initrd: Path
    root: Path


def guest_image(release: str, *, cache: Path = CACHE) -> Image:
    """Return the image of a Debian release, building it (about a minute) where it is missing.

    Blocks; call it before trio runs.

    Args:
        release: "bookworm" or "trixie".
        cache: Where images are kept.

    Raises:
        HarnessError: The image could not be built.
    """

    def build(directory: Path, log: Path) -> None:
        say(f"making the Debian {release} guest (a minute or two, once)")
        _build(release, directory, log)

    directory = cached("guest", release, image_inputs(release), build, cache=cache)
    return Image(release, directory / "kernel", directory / "initrd", directory / "root.img")


def image_inputs(
    release: str,
    packages: Iterable[str] = _PACKAGES,
    guest_files: Path = _GUEST_FILES,
) -> list[bytes]:
    """Return all that an image is made from: packages, the guest's files, the code that builds.

    Args:
        release: Debian's name for it.
        packages: What is installed.
        guest_files: The directory whose files go into the guest.
    """
    code = [_HERE / name for name in ("debian.py", "image.py", "initrd.py")]
    files = sorted(path for path in guest_files.iterdir() if path.is_file())
    inputs = [release.encode(), " ".join(packages).encode()]
    for path in [*code, *files]:
        inputs += [path.name.encode(), path.read_bytes()]
    return inputs


def _build(release: str, directory: Path, log: Path) -> None:
    tarball = directory / "root.tar"
    options = ["--variant=essential", f"--include={','.join(_PACKAGES)}"]
    options += ['--aptopt=APT::Install-Recommends "false"', "--aptopt=Acquire::Retries 3"]
    options += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    options.append("--dpkgopt=path-exclude=*/lib/modules/*/kernel/*")
    for part in _KERNEL_PARTS:
        pattern = part if part.endswith("*") else f"{part}/*"
        options.append(f"--dpkgopt=path-include=*/lib/modules/*/kernel/{pattern}")
    options.append("--customize-hook=mkdir $1/opt/guest")
    for path in sorted(_GUEST_FILES.iterdir()):
        if path.is_file():
            options.append(f"--customize-hook=upload {path} /opt/guest/{path.name}")
    options.append("--customize-hook=chmod 0755 $1/opt/guest/*")
    mmdebstrap(release, tarball, log, options)
    make_initrd(tarball, _GUEST_FILES / "initrd-init", directory / "initrd")
    (directory / "kernel").write_bytes(unpacked_kernel(tarball))
    _make_root(tarball, directory / "root.img", log)
    tarball.unlink()


def _make_root(tarball: Path, root: Path, log: Path) -> None:
    size = tarball.stat().st_size + _SPARE_BYTES
    argv = ["genext2fs", "--tarball", str(tarball), f"--block-size={_BLOCK_SIZE}"]
    argv += [f"--size-in-blocks={size // _BLOCK_SIZE}", "--bytes-per-inode=16384", str(root)]
    run_logged(argv, log)
    if not root.exists():
        raise HarnessError(f"genext2fs wrote no {root}")
