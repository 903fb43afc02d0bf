# SPDX-License-Identifier: Apache-2.0
"""The kernel and the initial RAM disk of a guest, taken from its file system's tarball.

The archive format is "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst);
the kernel's is the x86 boot protocol (Documentation/arch/x86/boot.rst).
"""

from __future__ import annotations

import lzma
import posixpath
import stat
import tarfile
from typing import IO, TYPE_CHECKING

from harness.errors import HarnessError

if TYPE_CHECKING:
    from pathlib import Path

_ROOT_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
"""What mounting the root needs; ext4 asks for the checksum when it is used, so no list has it."""
_XZ_MAGIC = b"\xfd7zXZ\x00"


def make_initrd(tarball: Path, init: Path, initrd: Path) -> None:
    """Write an initial RAM disk: busybox, an init, and the modules that mount the root.

    Args:
        tarball: The guest's file system; busybox and the modules are taken from it.
        init: The script to start with; it finds the modules numbered in `/modules`.
        initrd: The file to write, an uncompressed newc archive.

    Raises:
        HarnessError: The file system lacks something.
    """
    with tarfile.open(tarball) as root, initrd.open("wb") as output:
        archive = _NewcWriter(output)
        for directory in ("bin", "dev", "modules", "proc", "root"):
            archive.add(directory, stat.S_IFDIR | 0o755)
        archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
        archive.add("bin/busybox", stat.S_IFREG | 0o755, _busybox(root))
        archive.add("init", stat.S_IFREG | 0o755, init.read_bytes())
        for number, (name, module) in enumerate(_modules(root)):
            archive.add(f"modules/{number:02}-{name}.ko", stat.S_IFREG | 0o644, module)
        archive.finish()


def unpacked_kernel(tarball: Path) -> bytes:
    """Return the guest's kernel, unpacked where an emulated processor would take long for it.

    QEMU starts the ELF file inside by its PVH entry. Debian 12 packs it with xz (3 s to unpack
    under TCG), Debian 13 with zstd (half a second; returned as it is).

    Args:
        tarball: The guest's file system.

    Raises:
        HarnessError: There is no kernel in it.
    """
    with tarfile.open(tarball) as root:
        for member in root:
            if member.isfile() and posixpath.basename(member.name).startswith("vmlinuz-"):
                return _unpacked(_content(root, member))
    raise HarnessError(f"no kernel in {tarball}")


def _unpacked(image: bytes) -> bytes:
    setup_sectors = image[0x1F1] or 4
    start = (setup_sectors + 1) * 512 + int.from_bytes(image[0x248:0x24C], "little")
    payload = image[start : start + int.from_bytes(image[0x24C:0x250], "little")]
    if not payload.startswith(_XZ_MAGIC):
        return image
    # The size of the result follows the stream: decompress() alone would take it for garbage.
    return lzma.LZMADecompressor().decompress(payload)


def _busybox(root: tarfile.TarFile) -> bytes:
    for name in ("./bin/busybox", "./usr/bin/busybox"):
        try:
            return _content(root, root.getmember(name))
        except KeyError:
            continue
    raise HarnessError("no busybox in the guest's file system")


def _modules(root: tarfile.TarFile) -> list[tuple[str, bytes]]:
    """Return names and contents of the root's modules, each after those it depends on."""
    dependencies: dict[str, list[str]] = {}
    members = {_module_name(m.name): m for m in root if m.isfile() and ".ko" in m.name}
    index = next((m for m in root if posixpath.basename(m.name) == "modules.dep"), None)
    if index is None:
        raise HarnessError("no modules.dep in the guest's file system")
    for line in _content(root, index).decode().splitlines():
        module, _, needed = line.partition(":")
        # modprobe loads the list from its end.
        dependencies[_module_name(module)] = [_module_name(n) for n in reversed(needed.split())]
    ordered: dict[str, bytes] = {}
    for wanted in _ROOT_MODULES:
        # What is in no list is part of the kernel itself.
        for name in [*dependencies.get(wanted, ()), wanted]:
            if name in members and name not in ordered:
                ordered[name] = _module_content(root, members[name])
    return list(ordered.items())


def _module_name(path: str) -> str:
    return posixpath.basename(path).partition(".ko")[0].replace("-", "_")


def _module_content(root: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = _content(root, member)
    return lzma.decompress(content) if member.name.endswith(".xz") else content


def _content(root: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = root.extractfile(member)
    if stream is None:
        raise HarnessError(f"{member.name} in the guest's file system is no file")
    with stream:
        return stream.read()


class _NewcWriter:
    """Writes an archive of files, directories and devices, all owned by root."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self._inode = 0

    def add(
        self, name: str, mode: int, content: bytes = b"", *, device: tuple[int, int] = (0, 0)
    ) -> None:
        self._inode += 1
        encoded = name.encode() + b"\x00"
        fields = [self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0]
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._write_padded(header + encoded)
        self._write_padded(content)

    def finish(self) -> None:
        self.add("TRAILER!!!", 0)

    def _write_padded(self, data: bytes) -> None:
        self._output.write(data + bytes(-len(data) % 4))
