# SPDX-License-Identifier: Apache-2.0
"""The units as systemd reads them; `qemu-integration/test_systemd.py` runs ccidd under them."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[2] / "packaging"
UNITS = PACKAGING / "systemd"
SERVICES = ("ccidd.service", "ccidd@.service")
SOCKETS = ("ccidd.socket", "ccidd-reader@.socket", "ccidd@.socket", "ccidd-control@.socket")
EXPOSURE = 4
"""Ten times what `systemd-analyze security` is to say at most."""

# The drop-ins that cost something, and what: docs/systemd.md has the same numbers.
DEARER = {"allow-users.conf": 5, "usb-token.conf": 6, "tcp.conf": 11}
DROP_INS = sorted(path.name for path in (UNITS / "drop-ins").iterdir())


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory with the units, whose programs are there on this machine."""
    for unit in (*SERVICES, *SOCKETS):
        text = (UNITS / unit).read_text(encoding="utf-8")
        for program in ("/usr/bin/ccidd", "/bin/kill"):
            text = text.replace(program, "/bin/true")
        (tmp_path / unit).write_text(text, encoding="utf-8")
    return tmp_path


def add_drop_in(installed: Path, service: str, name: str) -> None:
    directory = installed / f"{service}.d"
    directory.mkdir()
    shutil.copy(UNITS / "drop-ins" / name, directory)


def analyze(*arguments: str, units: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:" if units else ""}
    return subprocess.run(
        ["systemd-analyze", *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
    )


def assert_exposure(unit: Path, at_most: int) -> None:
    measured = analyze("security", "--offline=true", f"--threshold={at_most}", str(unit))
    assert "Overall exposure level" in measured.stdout
    assert measured.returncode == 0, measured.stdout


def complaints(units: Path, names: Sequence[str]) -> str:
    return analyze("verify", "--man=no", *names, units=units).stdout


@pytest.mark.parametrize("service", SERVICES)
def test_the_exposure_is_as_low_as_was_promised(service: str) -> None:
    assert_exposure(UNITS / service, EXPOSURE)


def test_all_units_are_clean(installed: Path) -> None:
    assert sorted(path.name for path in UNITS.iterdir() if path.is_file()) == sorted(
        (*SERVICES, *SOCKETS)
    )
    assert not complaints(installed, [unit.replace("@", "@vm1") for unit in (*SERVICES, *SOCKETS)])


def test_a_wrong_unit_is_complained_of(installed: Path) -> None:
    unit = installed / "ccidd.service"
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHome=perhaps"))
    assert "perhaps" in complaints(installed, ["ccidd.service"])


def test_both_services_are_confined_alike() -> None:
    def confinement(service: str) -> list[str]:
        text = (UNITS / service).read_text(encoding="utf-8")
        return text.partition("CapabilityBoundingSet=")[2].partition("[Install]")[0].splitlines()

    first, second = map(confinement, SERVICES)
    assert first == second
    assert len(first) > 30


@pytest.mark.parametrize("name", DROP_INS)
def test_each_drop_in_costs_what_the_documentation_says(installed: Path, name: str) -> None:
    add_drop_in(installed, "ccidd.service", name)
    found = complaints(installed, ["ccidd.service"])
    # Debian 12's systemd does not know what is for newer ones.
    assert not [line for line in found.splitlines() if "service type" not in line]
    assert_exposure(installed / "ccidd.service", DEARER.get(name, EXPOSURE))


def test_a_service_that_is_less_confined_is_more_exposed(installed: Path) -> None:
    add_drop_in(installed, "ccidd.service", "tcp.conf")
    with pytest.raises(AssertionError, match="exposure level"):
        assert_exposure(installed / "ccidd.service", EXPOSURE)


def test_the_documentation_has_the_numbers() -> None:
    text = (PACKAGING.parent / "docs/systemd.md").read_text(encoding="utf-8")
    for name in DROP_INS:
        exposure = DEARER.get(name, EXPOSURE) / 10
        assert any(name in line and f"| {exposure} |" in line for line in text.splitlines()), name


def test_the_user_and_the_group_of_those_who_connect_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    config = PACKAGING / "sysusers/ccidd.conf"
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", str(config)], check=True)
    accounts = {
        file: {
            line.split(":")[0]: line.split(":")
            for line in (tmp_path / "etc" / file).read_text().splitlines()
        }
        for file in ("passwd", "group")
    }
    user, group = accounts["passwd"]["ccidd"], accounts["group"]["ccidd"]
    assert user[3] == group[2]
    assert user[6] == "/usr/sbin/nologin"
    # Neither the service nor anybody else is a member yet.
    assert accounts["group"]["ccidd-qemu"][3] == ""


def test_the_apparmor_profile_is_one() -> None:
    profile = PACKAGING / "apparmor/usr.bin.ccidd"
    argv = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", str(profile)]
    parsed = subprocess.run(argv, capture_output=True, check=False, text=True)
    assert parsed.returncode == 0, parsed.stderr
