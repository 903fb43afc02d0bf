# SPDX-License-Identifier: Apache-2.0
"""QEMU: has it the devices that front doors need, as `-device help` lists them.

Source: QEMU, `-device help` (a line for each device: name "NAME", bus BUS, ...).
"""

import contextlib
import os
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from ccidd.errors import UserError
from ccidd.service.check.finding import Finding, Severity, ok, warning

_TIMEOUT: Final = 20.0
"""Seconds that a QEMU has to list its devices."""

_DEVICE: Final = re.compile(r'^name "([^"]+)"', re.MULTILINE)

NEEDED: Final[Mapping[str, Collection[str]]] = {
    "usbredir": ["usb-redir"],
    "vscard": ["usb-ccid", "ccid-card-passthru"],
    "serial": [],
}
"""The devices that QEMU needs for each front door."""

_CONTROLLERS: Final = frozenset(
    {
        "qemu-xhci",
        "nec-usb-xhci",
        "usb-ehci",
        "ich9-usb-ehci1",
        "ich9-usb-uhci1",
        "piix3-usb-uhci",
        "piix4-usb-uhci",
        "pci-ohci",
        "sysbus-ohci",
    }
)
"""Of these, one is needed to have a USB."""


def look_at_qemu(transports: Collection[str], program: Path | None) -> Iterator[Finding]:
    """Looks at QEMU's devices.

    Args:
        transports: the front doors that are served.
        program: the QEMU that is used; None for all on $PATH, of which one is to have the devices.

    Raises:
        UserError: The program cannot be run.
    """
    needed = sorted({device for each in transports for device in NEEDED[each]})
    if not needed:
        return
    programs = _on_path() if program is None else [program]
    if not programs:
        yield warning("QEMU", "there is no qemu-system-… in $PATH to look at; name it: --qemu=PATH")
    lacking = {each: _lacking(each, needed) for each in programs}
    fits = any(not devices for devices in lacking.values())
    severity = Severity.WARNING if fits else Severity.ERROR
    for each, devices in lacking.items():
        if devices:
            yield Finding(severity, f"{each}", f"it has no {', no '.join(devices)}")
        else:
            yield ok(each, f"it has {', '.join(needed)} and a USB controller")


def _on_path() -> Sequence[Path]:
    found: dict[Path, Path] = {}
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        with contextlib.suppress(OSError):
            for program in sorted(Path(directory).iterdir()):
                if program.name.startswith("qemu-system-") and os.access(program, os.X_OK):
                    # Some are there by several names.
                    found.setdefault(program.resolve(), program)
    return list(found.values())


def _lacking(program: Path, needed: Collection[str]) -> Sequence[str]:
    devices = _devices(program)
    lacking = [device for device in needed if device not in devices]
    if not devices & _CONTROLLERS:
        lacking.append("USB controller")
    return lacking


def _devices(program: Path) -> frozenset[str]:
    """Gives the devices that a QEMU lists."""
    try:
        # The machine type "none" is one that every QEMU has.
        result = subprocess.run(  # noqa: S603 (the operator's QEMU)
            [program, "-machine", "none", "-device", "help"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise UserError(f"{program} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{program} lists no devices within {_TIMEOUT:g} s") from error
    return frozenset(_DEVICE.findall(result.stdout.decode(errors="replace")))
