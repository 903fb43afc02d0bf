# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing

from ccidd.service.notify import Notifier
from service_manager import Manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


def test_the_manager_is_told(manager: Manager, tmp_path: Path) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "HOME": "/"}
    notifier = Notifier.take(environ)
    assert environ == {"HOME": "/"}
    notifier.status("at rest")
    notifier.ready()
    notifier.stopping()
    assert manager.heard() == ["STATUS=at rest", "READY=1", "STOPPING=1"]


def test_a_reload_comes_with_its_time(manager: Manager, tmp_path: Path) -> None:
    before = time.monotonic_ns() // 1000
    Notifier(str(tmp_path / "notify")).reloading()
    (heard,) = manager.heard()
    reloading, at = heard.split("\n")
    assert reloading == "RELOADING=1"
    assert before <= int(at.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_a_descriptor_is_stored_and_forgotten(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    reading, writing = os.pipe()
    notifier.store("alice", writing)
    os.close(writing)
    assert manager.wait_for("FDSTORE=1") == "FDSTORE=1\nFDNAME=alice\nFDPOLL=0"
    stored = manager.descriptors["alice"]
    os.write(stored, b"the same")
    assert os.read(reading, 100) == b"the same"
    for descriptor in (reading, stored):
        os.close(descriptor)
    notifier.forget("alice")
    assert manager.heard() == ["FDSTOREREMOVE=1\nFDNAME=alice"]


@pytest.mark.parametrize(("room", "can_store"), [("64", True), ("0", False), ("", False)])
def test_whether_descriptors_are_kept_is_in_the_environment(room: str, *, can_store: bool) -> None:
    environ = {"NOTIFY_SOCKET": "/run/notify", "FDSTORE": room}
    assert Notifier.take(environ).can_store is can_store
    assert not environ
    assert not Notifier.take({"FDSTORE": room}).can_store


def test_an_abstract_address_is_one(tmp_path: Path) -> None:
    manager = Manager(f"\0{tmp_path}")
    Notifier.take({"NOTIFY_SOCKET": f"@{tmp_path}"}).ready()
    assert manager.heard() == ["READY=1"]
    manager.close()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
async def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier.take({**environ, "WATCHDOG_USEC": "1"})
    notifier.ready()
    with trio.fail_after(1):
        await notifier.keep_alive()


def test_a_manager_that_is_gone_is_told_no_more(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "none"))
    with structlog.testing.capture_logs() as logs:
        notifier.ready()
        notifier.stopping()
    assert [entry["event"] for entry in logs] == ["service_manager_unreachable"]


@pytest.mark.parametrize("pid", ["", str(os.getpid())])
async def test_signs_of_life_come_twice_in_the_time(
    manager: Manager,
    tmp_path: Path,
    pid: str,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    notifier = Notifier.take(
        {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "30000000",
            "WATCHDOG_PID": pid,
        }
    )
    nursery.start_soon(notifier.keep_alive)
    await trio.sleep(61)
    assert manager.heard() == ["WATCHDOG=1"] * 5
    nursery.cancel_scope.cancel()


async def test_the_watchdog_of_another_process_is_not_ours(
    manager: Manager, tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    await Notifier.take(environ).keep_alive()
    assert manager.heard() == []


def test_ccidd_says_when_it_is_ready_and_when_it_ends(manager: Manager, tmp_path: Path) -> None:
    ccidd = shutil.which("ccidd")
    assert ccidd is not None
    path = tmp_path / "card.sock"
    with subprocess.Popen(
        [ccidd, f"--socket-path={path}", f"--state-dir={tmp_path / 'state'}", "--log-level=error"],
        env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
        stdout=subprocess.DEVNULL,
    ) as process:
        manager._socket.settimeout(30)
        heard = [manager._socket.recv(1000).decode() for _ in range(2)]
        assert heard == ["STATUS=no guest is connected", "READY=1"]
        with socket.socket(socket.AF_UNIX) as guest:
            guest.connect(str(path))
            assert manager._socket.recv(1000) == b"STATUS=a guest is connected"
        assert manager._socket.recv(1000) == b"STATUS=no guest is connected"
        process.terminate()
        assert manager._socket.recv(1000) == b"STOPPING=1"
        assert process.wait(30) == 0
