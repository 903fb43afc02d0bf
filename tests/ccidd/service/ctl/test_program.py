# SPDX-License-Identifier: Apache-2.0
"""`ccidctl` as its users run it, with a real ccidd."""

import contextlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
import trio

from ccidd import __version__
from ccidd.service.ctl.cli import main
from ccidd.service.parser import EXIT_USAGE
from ccidd.service.state import State, StoredPin
from control_client import connect
from crash import CHEAP
from kept_cards import PIN, keep_card
from programs import CCIDD, run_ccidd, started

CCIDCTL = str(Path(sys.executable).with_name("ccidctl"))
OTHER_PIN = "654321"

Run: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs ccidctl as a process to its end, with no terminal to ask on."""
    return subprocess.run(
        [CCIDCTL, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def run_here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs ccidctl in this process, which takes less time; not `agent`, which sets the log up."""
    output, errors = io.StringIO(), io.StringIO()
    status = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        patch.setattr(sys, "argv", ["ccidctl", *arguments])
        try:
            main()
        except SystemExit as end:
            if isinstance(end.code, str):
                # Python's own way with a text.
                errors.write(f"{end.code}\n")
                status = 1
            else:
                status = end.code or 0
    return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a ccidd that runs, whose sockets are control.sock and observe.sock."""
    place = tmp_path_factory.mktemp("ctl")
    with State(place / "state", cost=CHEAP) as state:
        keep_card(state, "default")
        keep_card(state, "alice")
    arguments = [
        *CCIDD,
        f"--socket-path={place / 'card.sock'}",
        f"--state-dir={place / 'state'}",
        "--reader=slots=2",
        f"--control={place / 'control.sock'}",
        f"--control={place / 'observe.sock'},role=observe",
    ]
    with started(arguments, log=place / "log"):
        trio.run(wait_for, place / "observe.sock")
        yield place


async def wait_for(path: Path) -> None:
    await (await connect(path)).aclose()


@pytest.fixture
def control(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CCIDD_CONTROL", str(place / "control.sock"))
    return place / "control.sock"


def printed(*arguments: str, run: Run = run_here) -> str:
    result = run(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def refused(*arguments: str, status: int = 1, run: Run = run_here) -> str:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (status, "")
    # A complaint about an option names its command as well.
    assert result.stderr.startswith("ccidctl" if status == EXIT_USAGE else "ccidctl: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


def test_version_and_help_are_printed() -> None:
    assert printed("--version", run=run) == f"ccidctl {__version__}\n"
    assert "answer requests for PINs and consent" in printed("--help")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["card"],
        ["card", "insert"],
        ["card", "remove", "--slot=one"],
        ["log-level", "loud"],
        ["completion", "csh"],
        ["status", "--soc=x"],
        ["status", "--socket="],
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(arguments: list[str]) -> None:
    assert "see ccidctl" in refused(*arguments, status=EXIT_USAGE)


def test_what_there_is_is_shown(control: Path) -> None:
    status = [line.split() for line in printed("status").splitlines()]
    assert ["version", __version__] in status
    assert ["readers", "1"] in status
    assert "reader, slot 1:" in printed("stats").splitlines()
    assert printed("slots").splitlines() == [
        "READER  SLOT  PRESENT  CARD",
        "reader  0     yes      piv,card=default",
        "reader  1     no       -",
    ]
    assert printed("slots", "--reader=reader") == printed("slots")
    heading, reader = printed("readers").splitlines()
    assert heading.split()[:2] == ["NAME", "TRANSPORT"]
    assert reader.split()[:2] == ["reader", "usbredir"]
    cards = printed("cards")
    assert "PIN 3" in cards
    assert "9A P-256" in cards
    assert printed("connections") == printed("requests") == "none\n"
    assert "card-insert" in printed("commands").split()


def test_json_is_what_ccidd_returns(control: Path) -> None:
    first, second = json.loads(printed("--json", "slots"))
    assert first == {"reader": "reader", "slot": 0, "present": True, "card": "piv,card=default"}
    assert second == {"reader": "reader", "slot": 1, "present": False}
    assert json.loads(printed("slots", "--json")) == [first, second]
    assert json.loads(printed("connections", "--json")) == []


def test_cards_come_and_go(control: Path) -> None:
    assert printed("card", "insert", "piv,card=alice", "--slot=1") == ""
    assert "reader  1     yes      piv,card=alice" in printed("slots")
    assert "slot 1 has" in refused("card", "insert", "piv,card=alice", "--slot=1")
    assert "there is no card nobody" in refused("card", "swap", "piv,card=nobody", "--slot=1")
    assert "reader  1     yes      piv,card=alice" in printed("slots")
    assert printed("card", "remove", "--slot=1") == ""
    assert "slot 1 of the reader reader is empty" in refused("card", "remove", "--slot=1")
    assert "no slot 9" in refused("card", "remove", "--slot=9")
    assert "there is no reader of this name" in refused("card", "remove", "--reader=bob")


def test_readers_come_and_go(control: Path, place: Path) -> None:
    socket = place / "lab.sock"
    lab = ("lab", f"--socket-path={socket}", "--transport=vscard", "--card=piv,card=alice")
    assert "lab" in printed("reader", "add", *lab)
    assert socket.is_socket()
    assert "there is a reader lab" in refused("reader", "add", *lab)
    assert "say which reader: " in refused("card", "remove")
    assert printed("reader", "remove", "lab") == ""
    assert not socket.exists()
    assert "socket" in refused("reader", "add", "other")


def test_pins_come_from_files(control: Path, place: Path) -> None:
    with State(place / "state") as state:
        guid = state.card("alice").guid
    for name, pin in (("pin", PIN), ("new", OTHER_PIN)):
        (place / name).write_text(f"{pin}\n")
        (place / name).chmod(0o600)
    change = ("card", "change-pin", "alice", f"--new-pin-file={place / 'new'}")
    assert "tries-left  3" in printed(*change, f"--pin-file={place / 'pin'}")
    assert "this is not the PIN; 2 tries are left" in refused(
        *change, f"--pin-file={place / 'pin'}"
    )
    assert "tries-left  3" in printed("card", "unblock", "alice")
    with State(place / "state") as state:
        stored = StoredPin(state, guid, 0x80)
        assert trio.run(stored.compare, OTHER_PIN.encode().ljust(8, b"\xff"))
    assert "no terminal to ask on; give --pin-file or --pin-fd" in refused(*change, run=run)
    for secret in (PIN, OTHER_PIN):
        assert secret not in (place / "log").read_text()


def test_what_the_role_does_not_allow_is_said(control: Path, place: Path) -> None:
    observe = f"--socket={place / 'observe.sock'}"
    assert "quit is not for this socket, whose role is observe: it needs operate" in refused(
        "quit", observe
    )
    pinentry = "--pinentry=pinentry-tty"
    assert "takes no agents; use a control socket whose role" in refused(
        "agent", observe, pinentry, run=run
    )


def test_what_is_no_control_socket_is_said(place: Path) -> None:
    assert "is no control socket of a ccidd" in refused("status", f"--socket={place / 'card.sock'}")
    assert "there is no control socket" in refused("status", f"--socket={place / 'none'}", run=run)
    assert "is no socket" in refused("status", f"--socket={place / 'log'}")
    assert "use --pinentry" in refused("agent", f"--socket={place / 'control.sock'}", run=run)
    assert "there is no program x" in refused("agent", "--pinentry=x", run=run)


def test_whoever_reads_may_have_enough(control: Path) -> None:
    process = subprocess.Popen(
        [CCIDCTL, "commands"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _output, complaint = process.communicate(timeout=60)
    assert complaint == b""
    assert process.returncode == 128 + signal.SIGPIPE


# A ccidd that ends.


def serving(place: Path) -> list[str]:
    return [
        *CCIDD,
        f"--socket-path={place / 'card.sock'}",
        f"--state-dir={place / 'state'}",
        f"--control={place / 'control.sock'}",
    ]


async def until(process: trio.Process, text: str) -> str:
    """Reads what a program prints until it has printed something."""
    assert process.stdout is not None
    seen = ""
    while text not in seen:
        data = await process.stdout.receive_some()
        assert data, seen
        seen += data.decode()
    return seen


async def watching(place: Path, *options: str) -> trio.Process:
    """Starts `ccidctl watch`, and waits until it watches."""
    process = await trio.lowlevel.open_process(
        [CCIDCTL, "watch", f"--socket={place / 'control.sock'}", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    await until(process, "connected to")
    return process


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A directory with the state of a small card."""
    with State(tmp_path / "state", cost=CHEAP) as state:
        keep_card(state, "default")
    return tmp_path


async def test_watch_follows_a_ccidd_to_its_end(small: Path) -> None:
    with started(serving(small), log=small / "log") as ccidd, trio.fail_after(60):
        await wait_for(small / "control.sock")
        process = await watching(small)
        assert run("quit", f"--socket={small / 'control.sock'}").returncode == 0
        seen = await until(process, "has ended the connection")
        assert await process.wait() == 1
        assert ccidd.wait(60) == 0
    assert "STOPPING" in seen
    assert process.stdout is not None
    await process.stdout.aclose()


async def test_watch_waits_for_the_next_ccidd(small: Path) -> None:
    with trio.fail_after(60):
        with started(serving(small), log=small / "log"):
            await wait_for(small / "control.sock")
            process = await watching(small, "--reconnect", "--json")
        await until(process, "waiting for it to come back")
        with started(serving(small), log=small / "log"):
            await until(process, "connected to")
            assert run("quit", f"--socket={small / 'control.sock'}").returncode == 0
            assert '"event": "STOPPING"' in await until(process, "waiting for it to come back")
        process.terminate()
        await process.wait()
    assert process.stdout is not None
    await process.stdout.aclose()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reader=pin-entry=agent"], "--reader: pin-entry: agent needs a control socket"),
        (
            ["--card=piv,card=default,confirm=sign,confirm-with=agent"],
            "--card=piv: confirm-with: agent needs a control socket for agents (--control)",
        ),
        (
            ["--reader=pin-entry=agent", "--control=c,role=operate"],
            "--reader: pin-entry: agent needs a control socket",
        ),
    ],
)
def test_agents_need_a_socket_for_them(arguments: list[str], message: str, small: Path) -> None:
    socket, state = f"--socket-path={small / 'card.sock'}", f"--state-dir={small / 'state'}"
    result = run_ccidd(socket, state, *arguments)
    assert result.returncode == EXIT_USAGE
    assert message in result.stderr


def test_the_state_is_as_ever(place: Path) -> None:
    result = run_ccidd("card", "list", f"--state-dir={place / 'state'}")
    assert "alice" in result.stdout
