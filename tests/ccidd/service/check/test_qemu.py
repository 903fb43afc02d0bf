# SPDX-License-Identifier: Apache-2.0
"""What is said of a QEMU; qemu-integration/test_check.py asks a real one."""

from pathlib import Path

import pytest

from ccidd.errors import UserError
from ccidd.service.check.finding import Severity
from ccidd.service.check.qemu import NEEDED, look_at_qemu
from ccidd.service.configuration import TRANSPORTS

WHOLE = ("usb-redir", "usb-ccid", "ccid-card-passthru", "qemu-xhci")


def qemu(directory: Path, *devices: str, name: str = "qemu-system-x86_64") -> Path:
    """Makes a program that lists devices as QEMU does."""
    directory.mkdir(exist_ok=True)
    lines = [f'name "{device}", bus USB, desc "something"' for device in devices]
    program = directory / name
    program.write_text("\n".join(["#!/bin/sh", "cat <<END", "USB devices:", *lines, "END"]) + "\n")
    program.chmod(0o755)
    return program


def findings(*transports: str, program: Path | None = None) -> list[str]:
    return [str(each) for each in look_at_qemu(transports, program)]


def test_each_front_door_has_its_devices() -> None:
    assert set(NEEDED) == set(TRANSPORTS)


def test_a_qemu_with_all(tmp_path: Path) -> None:
    program = qemu(tmp_path, *WHOLE)
    assert findings("usbredir", "vscard", program=program) == [
        f"ok       {program}: it has ccid-card-passthru, usb-ccid, usb-redir and a USB controller"
    ]


@pytest.mark.parametrize(
    ("transport", "devices", "lacking"),
    [
        ("usbredir", ("usb-ccid", "qemu-xhci"), "no usb-redir"),
        ("vscard", ("usb-redir", "qemu-xhci"), "no ccid-card-passthru, no usb-ccid"),
        ("usbredir", ("usb-redir",), "no USB controller"),
    ],
)
def test_what_is_missing_is_named(
    transport: str, devices: tuple[str, ...], lacking: str, tmp_path: Path
) -> None:
    program = qemu(tmp_path, *devices)
    assert findings(transport, program=program) == [f"error    {program}: it has {lacking}"]


def test_of_those_on_the_path_one_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = qemu(tmp_path / "a", *WHOLE), qemu(tmp_path / "b", name="qemu-system-arm")
    (tmp_path / "b" / "qemu-system-again").symlink_to(good)
    monkeypatch.setenv("PATH", f"{tmp_path / 'a'}:{tmp_path / 'b'}:/usr/bin/false:{tmp_path}/none")
    monkeypatch.setattr("ccidd.service.check.qemu._devices", _devices_listed)
    assert findings("usbredir") == [
        f"ok       {good}: it has usb-redir and a USB controller",
        f"warning  {bad}: it has no usb-redir, no USB controller",
    ]


def _devices_listed(program: Path) -> frozenset[str]:
    # There is no cat on that path.
    return frozenset(each for each in WHOLE if each in program.read_text())


def test_no_qemu_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}")
    (found,) = look_at_qemu(["usbredir"], None)
    assert found.severity is Severity.WARNING
    assert "--qemu=PATH" in found.text


def test_a_serial_reader_needs_no_qemu() -> None:
    assert findings("serial", program=Path("/nowhere")) == []


def test_a_program_that_cannot_be_run() -> None:
    with pytest.raises(UserError, match="/nowhere cannot be run: No such file or directory"):
        findings("usbredir", program=Path("/nowhere"))


def test_a_program_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccidd.service.check.qemu._TIMEOUT", 0.1)
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with pytest.raises(UserError, match="lists no devices within"):
        findings("usbredir", program=program)
