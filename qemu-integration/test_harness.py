# SPDX-License-Identifier: Apache-2.0
"""The harness itself: what it promises to those who write tests with it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from harness.agent import CommandError, GuestGoneError
from harness.bench.doors import USBREDIR, VSCARD, FrontDoor
from harness.ccidd import running_echo
from harness.debian import cache_key, cached
from harness.errors import HarnessError
from harness.guest import Controller, boot_guest
from harness.image import image_inputs
from harness.opensc import OpenSC
from harness.process import running
from harness.qemu import Qemu

if TYPE_CHECKING:
    from pathlib import Path

    from harness.image import Image

READER = "Gemalto"


async def test_a_guest_runs_commands_and_sees_its_devices(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    async with boot_guest(
        image, qemu=qemu, workdir=tmp_path, devices=["-device", "usb-ccid"]
    ) as guest:
        release = await guest.run("cat", "/etc/os-release")
        assert f"VERSION_CODENAME={image.release}" in release.text
        listed = await guest.run_until("opensc-tool", "--list-readers", shows=READER)
        assert listed.status == 0

        content = bytes(range(256)) * 4096
        await guest.write_file("/tmp/content", content)  # noqa: S108 -- a path in the guest
        assert await guest.read_file("/tmp/content") == content  # noqa: S108 -- "

        await guest.restart_pcscd("--debug")
        await guest.run_until("opensc-tool", "--list-readers", shows=READER)
        directory = guest.directory
    assert "debuglog.c" in (directory / "pcscd.log").read_text()
    assert (directory / "usb-0.pcap").stat().st_size > 1000


async def test_a_command_that_fails_shows_its_status_and_all_its_output(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    async with boot_guest(image, qemu=qemu, workdir=tmp_path) as guest:
        with pytest.raises(CommandError) as failed:
            await guest.run("sh", "-c", "echo one; echo two >&2; exit 3")
        for shown in ("echo one; echo two", "status 3", "\none\n", "\ntwo\n"):
            assert shown in str(failed.value)
        allowed = await guest.run("sh", "-c", "exit 3", check=False)
        assert allowed.status == 3

        with pytest.raises(CommandError, match="no-such-program"):
            await guest.run("no-such-program")

        with pytest.raises(CommandError, match=r"killed after 0\.5 s") as killed:
            await guest.run("sh", "-c", "echo begun; exec sleep 1000", timeout=0.5)
        assert "begun" in str(killed.value)
        with trio.move_on_after(0.5):
            await guest.run("sleep", "2000", timeout=None)
        await guest.run("sh", "-c", "while pidof sleep; do :; done")


async def test_commands_run_at_the_same_time(image: Image, qemu: Qemu, tmp_path: Path) -> None:
    async with (
        boot_guest(image, qemu=qemu, workdir=tmp_path) as guest,
        trio.open_nursery() as nursery,
    ):
        await guest.run("mkfifo", "/run/fifo")
        nursery.start_soon(guest.run, "sh", "-c", "echo through >/run/fifo")
        assert (await guest.run("cat", "/run/fifo")).text == "through\n"


async def test_devices_come_and_go_and_the_guest_is_reset(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    async with boot_guest(image, qemu=qemu, workdir=tmp_path) as guest:
        await guest.qmp.execute("device_add", driver="usb-ccid", id="reader")
        await guest.run_until("opensc-tool", "--list-readers", shows=READER)
        await guest.qmp.execute("device_del", id="reader")
        await guest.qmp.wait_for_event("DEVICE_DELETED")
        await guest.run_until("opensc-tool", "--list-readers", shows="No smart card readers")
        with pytest.raises(HarnessError, match="no-such-device"):
            await guest.qmp.execute("device_add", driver="no-such-device")

        await guest.run("touch", "/run/before")
        await guest.reset()
        assert (await guest.run("test", "-e", "/run/before", check=False)).status == 1


async def test_guests_share_an_image_and_each_starts_from_its_pristine_state(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    async with (
        boot_guest(image, qemu=qemu, workdir=tmp_path) as first,
        boot_guest(image, qemu=qemu, workdir=tmp_path) as second,
    ):
        await first.write_file("/root/mine", b"first")
        await first.run("sync")
        assert (await second.run("ls", "/root/mine", check=False)).status != 0
        await first.kill()
        assert first.process.returncode == -signal.SIGKILL
        with pytest.raises(GuestGoneError):
            await first.run("true")
        async with boot_guest(image, qemu=qemu, workdir=tmp_path) as again:
            assert (await again.run("ls", "/root/mine", check=False)).status != 0


@pytest.mark.parametrize("usb", ["uhci", "ehci", "ohci"])
async def test_a_reader_is_seen_on_the_older_controllers(
    image: Image, qemu: Qemu, usb: Controller, tmp_path: Path
) -> None:
    async with boot_guest(
        image, qemu=qemu, usb=usb, workdir=tmp_path, devices=["-device", "usb-ccid"]
    ) as guest:
        await guest.run_until("opensc-tool", "--list-readers", shows=READER)


@pytest.mark.parametrize(
    ("door", "usb"),
    # With UHCI a message comes in pieces.
    [(VSCARD, "xhci"), (USBREDIR, "xhci"), (USBREDIR, "uhci")],
    ids=["vscard-xhci", "usbredir-xhci", "usbredir-uhci"],
)
async def test_a_guest_takes_the_back_ends_that_only_echo(
    door: FrontDoor, usb: Controller, image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    path = tmp_path / "echo.socket"
    devices = door.devices(f"path={path}")
    async with (
        running_echo(door.echo, path),
        boot_guest(image, qemu=qemu, usb=usb, workdir=tmp_path, devices=devices) as guest,
    ):
        await OpenSC(guest).wait_for_card()
        command = "00CB3FFF60" + 96 * "00"
        argv = ["opensc-tool", "--card-driver", "default", *("--send-apdu", command) * 2]
        assert (await guest.run(*argv)).text.count("SW1=0x90, SW2=0x00") == 2


async def test_a_qemu_that_ends_at_once_is_explained(
    image: Image, qemu: Qemu, tmp_path: Path
) -> None:
    with pytest.raises(HarnessError, match=r"(?s)QEMU ended.*no-such-device"):
        async with boot_guest(
            image, qemu=qemu, workdir=tmp_path, devices=["-device", "no-such-device"]
        ):
            pytest.fail("there is no such device")


async def test_a_person_gets_a_shell_and_the_terminal_back(
    image: Image, qemu: Qemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, terminal = pty.openpty()
    seen = b""

    async def see(text: bytes) -> None:
        nonlocal seen
        with trio.fail_after(30):
            while text not in seen:
                await trio.lowlevel.wait_readable(person)
                seen += os.read(person, 4096)

    with os.fdopen(terminal, "r+b", buffering=0) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        monkeypatch.setattr(sys, "stdout", stream)
        async with (
            boot_guest(image, qemu=qemu, workdir=tmp_path) as guest,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(guest.interact)
            await see(b"# ")
            os.write(person, b"echo $((6 * 7)); tty; exit\n")
            await see(b"42\r\n/dev/ttyS0")
        async with (
            boot_guest(image, qemu=qemu, workdir=tmp_path) as guest,
            trio.open_nursery() as nursery,
        ):
            seen = b""
            nursery.start_soon(guest.interact)
            await see(b"# ")
            os.write(person, b"\x1d")
        assert not select.select([person], [], [], 0)[0]
        os.write(person, b"canonical\n")
        assert os.read(terminal, 100) == b"canonical\n"
    os.close(person)


def test_a_qemu_without_a_needed_device_is_refused_by_name(tmp_path: Path) -> None:
    without = tmp_path / "qemu"
    without.write_text('#!/bin/sh\ncase $2 in usb-redir,*) echo "unknown" >&2; exit 1; esac\n')
    without.chmod(0o755)
    with pytest.raises(HarnessError, match="this one has no device usb-redir"):
        Qemu("this one", (str(without),)).check()


@pytest.mark.parametrize(
    ("version", "option"), [((9, 1), "reconnect=2"), ((9, 2), "reconnect-ms=2000")]
)
def test_reconnect_is_spelled_as_the_version_wants_it(
    tmp_path: Path, version: tuple[int, int], option: str
) -> None:
    fake = tmp_path / "qemu"
    fake.write_text(f"#!/bin/sh\necho QEMU emulator version {version[0]}.{version[1]}.0\n")
    fake.chmod(0o755)
    assert Qemu("fake", (str(fake),)).reconnect(2) == option


async def test_a_program_that_ignores_sigterm_is_killed_even_when_cancelled(tmp_path: Path) -> None:
    log = tmp_path / "program.log"
    stubborn = ["sh", "-c", "trap '' TERM; echo started; while :; do sleep 1; done"]
    with trio.move_on_after(0.5):
        async with running(stubborn, log=log, grace=0.5) as process:
            await trio.sleep_forever()
    assert process.returncode == -signal.SIGKILL
    assert process.log_text() == "started\n"


async def test_nothing_is_left_behind_when_the_harness_is_killed(tmp_path: Path) -> None:
    script = (
        "import pathlib, trio\n"
        "from harness.process import running\n"
        "program = ['sh', '-c', 'echo up; exec sleep 1000']\n"
        "async def main():\n"
        "    async with running(program, log=pathlib.Path('program.log')) as process:\n"
        "        while not process.log_text():\n"
        "            await trio.sleep(0.01)\n"
        "        print(process.pid, flush=True)\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(  # noqa: ASYNC220 -- it is read from once, and killed
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    ) as user:
        assert user.stdout is not None
        program = os.pidfd_open(int(user.stdout.readline()))
        user.kill()
    with trio.fail_after(10):
        await trio.lowlevel.wait_readable(program)
    os.close(program)


def test_the_cache_key_changes_with_every_input() -> None:
    keys = [cache_key(inputs) for inputs in ([b"ab"], [b"a", b"b"], [b"ab", b""], [b"ba"], [])]
    assert len(set(keys)) == len(keys)


def test_an_image_is_another_one_when_a_package_or_a_guest_file_changes(tmp_path: Path) -> None:
    (tmp_path / "init").write_text("one")
    before = cache_key(image_inputs("bookworm", ["opensc"], tmp_path))
    assert cache_key(image_inputs("bookworm", ["opensc"], tmp_path)) == before
    assert cache_key(image_inputs("trixie", ["opensc"], tmp_path)) != before
    assert cache_key(image_inputs("bookworm", ["opensc", "gnupg"], tmp_path)) != before
    (tmp_path / "init").write_text("two")
    assert cache_key(image_inputs("bookworm", ["opensc"], tmp_path)) != before


def test_a_build_is_kept_until_another_succeeds(tmp_path: Path) -> None:
    built = []

    def build(directory: Path, log: Path) -> None:
        (directory / "result").write_text("done")
        built.append(directory)

    def fail(directory: Path, log: Path) -> None:
        (directory / "result").write_text("half done")
        raise HarnessError("no network")

    first = cached("kind", "name", [b"1"], build, cache=tmp_path)
    assert cached("kind", "name", [b"1"], build, cache=tmp_path) == first
    assert len(built) == 1
    with pytest.raises(HarnessError, match="no network"):
        cached("kind", "name", [b"2"], fail, cache=tmp_path)
    assert (first / "result").read_text() == "done"
    second = cached("kind", "name", [b"3"], build, cache=tmp_path)
    assert [path for path in (tmp_path / "kind").iterdir() if path.is_dir()] == [second]
