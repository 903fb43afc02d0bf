# SPDX-License-Identifier: Apache-2.0
"""Which QEMU: this host's, or Debian 13's, and how each is told what it understands.

Debian 13's is unpacked, not installed, and run by its own dynamic linker with its own libraries: it
needs no chroot and no rights.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from harness.debian import cached, mmdebstrap, run_logged, say
from harness.errors import HarnessError

_NEEDED_DEVICES = ("ccid-card-passthru", "usb-ccid", "usb-redir")
_RECONNECT_MS_SINCE = (9, 2)
_HERE = Path(__file__).resolve().parent
_PACKAGE = "qemu-system-x86"
_PROGRAM = "usr/bin/qemu-system-x86_64"
_LINKER = "ld-linux-x86-64.so.2"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_FIRMWARE = ("usr/share/qemu", "usr/share/seabios")


@dataclass(frozen=True)
class Qemu:
    """A QEMU that can be run.

    Attributes:
        name: For messages.
        argv: The command, to which options are added.
        env: What it needs in its environment besides.
    """

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict, hash=False)

    @cached_property
    def version(self) -> tuple[int, int]:
        """Major and minor."""
        answer = self._ask("--version")
        found = re.search(r"version (\d+)\.(\d+)", answer.stdout)
        if found is None:
            raise HarnessError(f"{self.name} --version: {answer.stdout}{answer.stderr}")
        return int(found[1]), int(found[2])

    def reconnect(self, seconds: int) -> str:
        """Return the option of a socket chardev that has it connect again, as this QEMU spells it.

        Args:
            seconds: How long QEMU waits between two tries.
        """
        if self.version >= _RECONNECT_MS_SINCE:
            return f"reconnect-ms={seconds * 1000}"
        return f"reconnect={seconds}"

    def check(self) -> None:
        """Raise an error where a device that the tests need is missing.

        Raises:
            HarnessError: Names the devices.
        """
        # "-device help" would load all modules, and those of another QEMU on this host with them.
        results = {name: self._ask("-device", f"{name},help") for name in _NEEDED_DEVICES}
        for name, result in results.items():
            if result.returncode != 0:
                raise HarnessError(f"{self.name} has no device {name}: {result.stderr.strip()}")

    def _ask(self, *options: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*self.argv, *options],
                env=environment(self),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                text=True,
            )
        except FileNotFoundError:
            raise HarnessError(f"{self.name} is missing: ./dev installs it, on Debian") from None


def environment(qemu: Qemu) -> dict[str, str]:
    """Return the whole environment that a QEMU runs with."""
    return {**os.environ, **qemu.env}


@cache
def system_qemu() -> Qemu:
    """Return this host's QEMU.

    Raises:
        HarnessError: There is none, or it lacks a device.
    """
    qemu = Qemu("qemu-system-x86_64", ("qemu-system-x86_64",))
    qemu.check()
    return qemu


@cache
def debian_qemu(release: str) -> Qemu:
    """Return the QEMU of a Debian release, fetching it (a few seconds) where it is missing.

    Blocks; call it before trio runs.

    Args:
        release: Debian's name for it: "trixie" has QEMU 10.0.

    Raises:
        HarnessError: It could not be fetched, or lacks a device.
    """

    def build(directory: Path, log: Path) -> None:
        say(f"fetching the QEMU of Debian {release} (once)")
        _unpack(release, directory, log)

    code = [(_HERE / name).read_bytes() for name in ("debian.py", "qemu.py")]
    root = cached("qemu", release, [release.encode(), *code], build)
    libraries = root / _LIBRARIES
    argv = [root / _LIBRARIES / _LINKER, "--library-path", libraries, root / _PROGRAM]
    for firmware in _FIRMWARE:
        argv += ["-L", root / firmware]
    env = {"QEMU_MODULE_DIR": str(libraries / "qemu")}
    qemu = Qemu(f"the QEMU of Debian {release}", tuple(str(word) for word in argv), env)
    qemu.check()
    return qemu


def named_qemu(name: str) -> Qemu:
    """Return a QEMU by its name in the tests' options: "system", or a release of Debian.

    Raises:
        HarnessError: There is no such QEMU.
    """
    return system_qemu() if name == "system" else debian_qemu(name)


def _unpack(release: str, directory: Path, log: Path) -> None:
    tarball = directory / "packages.tar"
    options = ["--variant=extract", f"--include={_PACKAGE}"]
    options += ['--aptopt=APT::Install-Recommends "false"', "--aptopt=Acquire::Retries 3"]
    mmdebstrap(release, tarball, log, options)
    kept = [f"./{path}" for path in (_PROGRAM, _LIBRARIES, *_FIRMWARE)]
    argv = ["tar", "--extract", "--no-same-owner", f"--file={tarball}", f"--directory={directory}"]
    run_logged([*argv, *kept], log)
    tarball.unlink()
