# SPDX-License-Identifier: Apache-2.0
"""QEMU's own clients, unmodified, at a real ccidd."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from ccid_protocol.qmp import JSON, Error
from ccidd.service.control.server import MAX_CLIENTS
from ccidd.service.state import State
from control_client import ControlClient, connect
from crash import CHEAP
from kept_cards import keep_card
from programs import CCIDD, run_ccidd, started

QMP_SHELL = Path(sys.executable).with_name("qmp-shell")

# asyncio, and so a program of its own.
QMP_CLIENT = """
import asyncio, json, sys
from qemu.qmp import EventListener, ExecuteError, QMPClient

async def main():
    client = QMPClient("ccidd")
    listener = EventListener(names={"STOPPING"})
    client.register_listener(listener)
    await client.connect(sys.argv[1])
    seen = {"greeting": client.greeting.QMP.version, "status": await client.execute("query-status")}
    replies = await asyncio.gather(*(client.execute("query-version") for _ in range(50)))
    seen["replies"] = len(replies)
    try:
        await client.execute("card-instert")
    except ExecuteError as error:
        seen["error"] = [error.error_class, str(error)]
    await client.execute("quit")
    seen["event"] = dict(await listener.get())
    await client.disconnect()
    print(json.dumps(seen))

asyncio.run(main())
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> str:
    """An option for a state whose embedded card is there already, with one small key."""
    with State(tmp_path / "state", cost=CHEAP) as state:
        keep_card(state, "default")
    return f"--state-dir={tmp_path / 'state'}"


@pytest.fixture
def control(tmp_path: Path, state_dir: str) -> Iterator[Path]:
    """The control socket of a ccidd that runs."""
    arguments = [
        *CCIDD,
        f"--socket-path={tmp_path / 'card.sock'}",
        state_dir,
        f"--control={tmp_path / 'control.sock'}",
        f"--control={tmp_path / 'observe.sock'},role=observe,mode=0660,group={os.getgid()}",
        "--log-level=debug",
    ]
    with started(arguments, log=tmp_path / "log"):
        trio.run(wait_for, tmp_path / "observe.sock")
        yield tmp_path / "control.sock"


async def wait_for(path: Path) -> None:
    await (await connect(path)).aclose()


def qmp_shell(socket: Path, commands: str, home: Path) -> str:
    """Types commands into qmp-shell, which keeps its history in the home directory."""
    result = subprocess.run(
        [QMP_SHELL, socket],
        input=commands,
        env={**os.environ, "HOME": str(home)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not result.stderr
    return result.stdout


def answers(output: str) -> list[dict[str, JSON]]:
    lines = [line.removeprefix("(QEMU) ") for line in output.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_qmp_shell_works(control: Path, tmp_path: Path) -> None:
    commands = "query-status\nquery-versoin\nqmp_capabilities\nquery-version extra=1\n"
    output = qmp_shell(control, commands, tmp_path)
    assert "Connected to QEMU 0.1.0" in output
    status, unknown, negotiated, extra = answers(output)
    assert isinstance(status["return"], dict)
    assert status["return"]["state"] == "running"
    assert status["return"]["readers"] == 1
    assert unknown == {
        "error": {
            "class": "CommandNotFound",
            "desc": "there is no command 'query-versoin'; did you mean query-version?",
        }
    }
    assert "error" in negotiated
    assert "has no argument 'extra'" in str(extra["error"])


def test_the_role_is_the_sockets(control: Path, tmp_path: Path) -> None:
    (refused,) = answers(qmp_shell(tmp_path / "observe.sock", "quit\n", tmp_path))
    assert refused == {
        "error": {
            "class": "CommandNotFound",
            "desc": "quit is not for this socket, whose role is observe: it needs operate",
        }
    }
    assert stat.S_IMODE((tmp_path / "observe.sock").stat().st_mode) == 0o660
    assert stat.S_IMODE(control.stat().st_mode) == 0o600


def test_the_python_package_works_and_quit_ends_ccidd_well(control: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", QMP_CLIENT, control],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    seen = json.loads(result.stdout)
    assert seen["greeting"]["package"] == "ccidd 0.1.0"
    assert seen["status"]["state"] == "running"
    assert seen["replies"] == 50
    assert seen["error"][0] == "CommandNotFound"
    assert seen["event"]["event"] == "STOPPING"
    assert not result.stderr


def test_quit_is_a_success_and_leaves_no_socket(tmp_path: Path, state_dir: str) -> None:
    control = tmp_path / "control.sock"
    arguments = [
        *CCIDD,
        f"--socket-path={tmp_path / 'card.sock'}",
        state_dir,
        f"--control={control}",
    ]
    with started(arguments, log=tmp_path / "log") as process:
        trio.run(wait_for, control)
        qmp_shell(control, "quit\n", tmp_path)
        assert process.wait(10) == 0
    assert not control.exists()
    assert not (tmp_path / "card.sock").exists()
    log = (tmp_path / "log").read_text()
    assert "event=control_command" in log
    assert log.splitlines()[-1].endswith("event=stopped")


async def test_a_hundred_clients_at_once_are_served_or_told_why_not(control: Path) -> None:
    outcomes = []
    over = trio.Event()

    async def client() -> None:
        async with await connect(control) as stream:
            client = ControlClient(stream)
            if isinstance(await client.receive(), Error):
                outcomes.append("refused")
            else:
                await client.execute("qmp_capabilities")
                await client.execute("query-status")
                outcomes.append("served")
            if len(outcomes) == 100:
                over.set()
            await over.wait()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(client)
    assert outcomes.count("served") == MAX_CLIENTS
    assert outcomes.count("refused") == 100 - MAX_CLIENTS


async def test_a_client_that_reads_nothing_does_not_keep_ccidd_from_ending(
    tmp_path: Path, state_dir: str
) -> None:
    control = tmp_path / "control.sock"
    arguments = [
        *CCIDD,
        f"--socket-path={tmp_path / 'card.sock'}",
        state_dir,
        f"--control={control}",
    ]
    with started(arguments, log=tmp_path / "log") as process, trio.fail_after(60):
        async with await connect(control) as stream, await connect(control) as other:
            await ControlClient(stream).begin()
            with trio.move_on_after(0.5):
                while True:
                    await stream.send_all(b"{'execute':'query-schema'}" * 100)
            client = ControlClient(other)
            await client.begin()
            await client.execute("query-status")
            process.terminate()
            assert await client.event("STOPPING") == {}
            with trio.fail_after(10):
                assert await trio.to_thread.run_sync(process.wait) == 0


async def test_systemd_passes_control_sockets_by_name(tmp_path: Path, state_dir: str) -> None:
    names = ["card.sock", "control.sock", "observe.sock"]
    activation = [
        "systemd-socket-activate",
        *(f"--listen={tmp_path / name}" for name in names),
        "--fdname=connection:control:control-observe",
    ]
    command = [*activation, *CCIDD, state_dir]
    with started(command, log=tmp_path / "log") as process, trio.fail_after(60):
        async with await connect(tmp_path / "observe.sock") as stream:
            client = ControlClient(stream)
            await client.begin()
            status = await client.execute("query-status")
            assert isinstance(status, dict)
            assert status["roles"] == ["observe"]
        async with await connect(tmp_path / "control.sock") as stream:
            client = ControlClient(stream)
            await client.begin()
            await client.execute("quit")
        assert process.wait(10) == 0


def test_a_control_socket_that_is_in_use_leaves_no_other_behind(
    control: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.sock"
    result = run_ccidd(
        f"--socket-path={other}",
        "--card=piv,token=any",
        f"--control={control}",
        f"--state-dir={tmp_path / 'two'}",
    )
    assert result.returncode == 1
    assert f"ccidd: cannot listen on {control}: another process listens there" in result.stderr
    assert not other.exists()
