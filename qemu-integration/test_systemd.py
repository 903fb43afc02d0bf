# SPDX-License-Identifier: Apache-2.0
"""ccidd under systemd, with the units as they are shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio

from ccidd.keys.key import KeyAlgorithm
from harness.installation import ccidd_disk
from harness.keys import card_option
from harness.systemd import Host, booted_host

if TYPE_CHECKING:
    from pathlib import Path

    from harness.image import Image
    from harness.qemu import Qemu

ALICE: Final = "/run/ccidd/alice.sock"
BOB: Final = "/run/ccidd/readers/bob.sock"
SELECT_PIV: Final = "00A404000BA000000308000010000100"
VERIFY: Final = "0020008008363534333231FFFF"
PIN: Final = "654321"
EXPOSURE: Final = 4

CONFIGURATION: Final = """
[readers.alice]
transport = "vscard"
cards = [{ type = "piv", keys = "credential:alice.pem", pin-file = "credential:alice.pin" }]
"""
ANOTHER_READER: Final = f"""
[readers.bob]
transport = "vscard"
socket-path = "{BOB}"
socket-mode = "0660"
"""
GREETING: Final = r"""
import socket
control = socket.socket(socket.AF_UNIX)
control.connect("/run/ccidd/control.sock")
print(control.recv(1000).decode())
"""
DROP_IN: Final = """
[Service]
LoadCredential=alice.pem:/root/alice.pem
LoadCredentialEncrypted=alice.pin
# No longer than a test likes to wait.
WatchdogSec=20
"""
ENCRYPTED: Final = f"""
mkdir -p --mode=700 /etc/credstore.encrypted
cd /etc/credstore.encrypted
encrypt() {{ systemd-creds encrypt --with-key=host --name="$1" - "$1"; }}
echo {PIN} | encrypt alice.pin
openssl rand -hex 32 | encrypt ccidd.state-key
"""
ASK_POLKIT: Final = "pkcheck --action-id org.debian.pcsc-lite.access_pcsc --process"
POLICY: Final = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/PolicyKit/1/policyconfig.dtd">
<policyconfig>
  <action id="org.debian.pcsc-lite.access_pcsc">
    <description>Access to the PC/SC daemon</description>
    <message>Authentication is required</message>
    <defaults>
      <allow_any>no</allow_any>
      <allow_inactive>no</allow_inactive>
      <allow_active>yes</allow_active>
    </defaults>
  </action>
</policyconfig>
"""


@pytest.fixture(scope="session")
def disk(image: Image) -> Path:
    return ccidd_disk(image.release)


async def test_ccidd_is_a_service_that_operators_trust(
    image: Image, disk: Path, qemu: Qemu, tmp_path: Path
) -> None:
    async with booted_host(image, disk, qemu=qemu, workdir=tmp_path) as host:
        card_option([KeyAlgorithm.P_256], PIN, tmp_path)
        await configure(host, (tmp_path / "keys.pem").read_bytes())
        await the_first_guest_starts_it_and_strangers_do_not_get_in(host)
        await it_is_confined_and_has_its_secrets_from_systemd(host)
        await a_reload_adds_a_reader(host)
        await one_that_hangs_is_started_again_and_its_sockets_stay(host)
        await only_root_controls_it(host)
        await polkit_lets_it_in_and_nobody_else(host)
        await it_stops_cleanly(host)
        # By AppArmor.
        assert "DENIED" not in await host.sh("dmesg")


async def configure(host: Host, keys: bytes) -> None:
    await host.add_user("alice", "ccidd-qemu")
    await host.add_user("mallory", "kvm")
    await host.guest.write_file("/root/alice.pem", keys)
    await host.guest.write_file("/etc/ccidd/ccidd.toml", CONFIGURATION.encode())
    await host.sh("mkdir /etc/systemd/system/ccidd.service.d")
    await host.guest.write_file("/etc/systemd/system/ccidd.service.d/test.conf", DROP_IN.encode())
    await host.sh(ENCRYPTED)
    await host.sh("systemctl daemon-reload && systemctl enable --now ccidd-reader@alice.socket")


async def the_first_guest_starts_it_and_strangers_do_not_get_in(host: Host) -> None:
    stranger = await host.connect("mallory", ALICE, check=False)
    assert "Permission denied" in stranger.error_text
    assert await host.shown("ccidd.service", "ActiveState") == ["inactive"]
    answered = await host.connect("alice", ALICE, SELECT_PIV, VERIFY)
    atr, _selected, verified = answered.text.splitlines()
    assert atr.startswith("3b")
    assert verified == "9000"
    state, status = await host.shown("ccidd.service", "ActiveState", "StatusText")
    assert (state, status) == ("active", "no guest is connected")
    journal = await host.journal("ccidd.service")
    (opened,) = [line for line in journal.splitlines() if "event=connection_opened" in line]
    # ccidd sees QEMU's command line.
    assert 'guest="guest alice"' in opened


async def it_is_confined_and_has_its_secrets_from_systemd(host: Host) -> None:
    await host.sh(f"systemd-analyze security --threshold={EXPOSURE} ccidd.service")
    (pid,) = await host.shown("ccidd.service", "MainPID")
    assert "ccidd (enforce)" in await host.sh(f"cat /proc/{pid}/attr/current")
    assert "Seccomp:\t2" in await host.sh(f"cat /proc/{pid}/status")
    # ccidd's own sandbox is whole within systemd's.
    assert "event=confined_in_part" not in await host.journal("ccidd.service")
    # The key that is beside the state would say that the one from systemd was not taken.
    state = await host.sh("ls /var/lib/ccidd")
    assert "state.sqlite3" in state
    assert "state.key" not in state


async def a_reload_adds_a_reader(host: Host) -> None:
    text = CONFIGURATION + ANOTHER_READER
    await host.guest.write_file("/etc/ccidd/ccidd.toml", text.encode())
    await host.sh("systemctl reload ccidd.service")
    listing = ("systemctl", "show", "--property=StatusText", "ccidd.service")
    await host.guest.run_until(*listing, shows="2 readers, 0 of them connected")
    # It is opened within the sandbox, and for the same QEMUs as those of systemd.
    ownership = await host.sh(f"stat --format=%U:%G:%a {BOB}")
    assert ownership.strip() == "ccidd:ccidd-qemu:660"


async def one_that_hangs_is_started_again_and_its_sockets_stay(host: Host) -> None:
    (pid,) = await host.shown("ccidd.service", "MainPID")
    await host.sh(f"kill -STOP {pid}")

    async def wait_for_the_next(socket: str) -> None:
        answered = await host.connect("alice", socket, SELECT_PIV)
        assert answered.text.startswith("3b")

    # The one socket is systemd's, the other one was opened by ccidd, and is kept by systemd.
    async with trio.open_nursery() as nursery:
        for socket in (ALICE, BOB):
            nursery.start_soon(wait_for_the_next, socket)
    restarts, status = await host.shown("ccidd.service", "NRestarts", "StatusText")
    assert int(restarts) == 1
    assert status.startswith("2 readers")
    journal = await host.journal("ccidd.service")
    assert "Watchdog timeout" in journal
    assert "confined_in_part" not in journal


async def only_root_controls_it(host: Host) -> None:
    assert "QMP" in (await host.guest.run("python3", "-c", GREETING)).text
    as_alice = ("setpriv", "--reuid=alice", "--regid=alice", "--init-groups")
    refused = await host.guest.run(*as_alice, "python3", "-c", GREETING, check=False)
    assert "Permission denied" in refused.error_text


async def polkit_lets_it_in_and_nobody_else(host: Host) -> None:
    policy = "/usr/share/polkit-1/actions/org.debian.pcsc-lite.policy"
    # Debian 12's pcscd does not ask polkit, and so brings no such file.
    if (await host.guest.run("test", "-e", policy, check=False)).status != 0:
        await host.guest.write_file(policy, POLICY.encode())
    (pid,) = await host.shown("ccidd.service", "MainPID")
    await host.sh(f"{ASK_POLKIT} {pid}")
    (another,) = await host.shown("dbus.service", "MainPID")
    refused = await host.guest.run("sh", "-c", f"{ASK_POLKIT} {another}", check=False)
    assert "Not authorized" in refused.error_text


async def it_stops_cleanly(host: Host) -> None:
    with trio.fail_after(60):
        await host.sh("systemctl stop ccidd.service")
    assert await host.shown("ccidd.service", "ActiveState", "Result") == ["inactive", "success"]
    assert "event=stopped" in await host.journal("ccidd.service")
    await host.sh("systemctl stop ccidd-reader@alice.socket ccidd.socket")
    assert (await host.sh("ls /run/ccidd")).split() == ["readers"]
