# SPDX-License-Identifier: Apache-2.0
"""PINs are entered at real pinentries; and what is done where there is none."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from ccidd.errors import UserError
from ccidd.reader.pinentry import program as program_module
from ccidd.reader.pinentry.dialogue import Dialogue
from ccidd.reader.pinentry.program import Pinentry, PinentryProgram
from ccidd.reader.pinentry.source import (
    ModificationRequest,
    NoPin,
    PinEntry,
    Pins,
    VerificationRequest,
)
from pin_requests import OTHER_PIN, PIN, modification, verification
from scripted_pinentry import CURSES, TTY, Act, Action, Flavour, ScriptedPinentry, Tap, Types
from terminal import Terminal


def program(flavour_or_path: Flavour | Path, terminal: Terminal) -> PinentryProgram:
    name = flavour_or_path.program if isinstance(flavour_or_path, Flavour) else str(flavour_or_path)
    environ = {"PATH": os.environ["PATH"], "GPG_TTY": terminal.name, "TERM": "xterm"}
    return PinentryProgram(name, {**environ, "LC_ALL": "C.UTF-8"})


PROMPTS = {
    TTY: r"(PIN[^\r\n]*: |\]\? )$",
    # It switches to the alternate screen, where the buttons come last.
    CURSES: r"\x1b\[\?1049h.*<(Cancel|Refuse)>",
}


async def act(terminal: Terminal, flavour: Flavour, person: Sequence[Action]) -> None:
    """Does at the terminal what the scripted person does."""
    for action in person:
        await terminal.sees(PROMPTS[flavour])
        match action:
            case Types(text):
                await terminal.types(text + "\r")
            case Act.CANCELS if flavour.has_button:
                await terminal.types("\t\t\r")
            case Act.CANCELS:
                await interrupt(terminal)
            case Act.ALLOWS:
                await terminal.types("\r" if flavour.has_button else "a")
            case Act.REFUSES:
                await terminal.types("\t\r" if flavour.has_button else "r")
            case Act.WAITS:
                pass


async def interrupt(terminal: Terminal) -> None:
    """Types ^C until it is noticed: pinentry-tty may not yet wait for a key."""
    noticed = False
    while not noticed:
        await terminal.types("\x03")
        with trio.move_on_after(0.2):
            await terminal.sees("\n")
            noticed = True


async def with_person(
    pinentry: Pinentry,
    terminal: Terminal,
    flavour: Flavour,
    person: Sequence[Action],
    request: VerificationRequest | ModificationRequest,
) -> PinEntry:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(act, terminal, flavour, person)
            return await pinentry.ask(request)
    raise AssertionError


# The scripted pinentry is like the real ones.

SCENARIO: Sequence[tuple[str, Sequence[Action]]] = [
    ("OPTION ttytype=xterm", []),
    ("OPTION lc-ctype=C.UTF-8", []),
    ("OPTION nonsense=1", []),
    ("NONSENSE", []),
    ("SETTITLE reader", []),
    ("SETDESC 100 %", []),
    ("SETPROMPT PIN:", []),
    ("SETERROR no", []),
    ("GETPIN", [Types("12%34")]),
    ("GETPIN", [Types("")]),
    ("SETTIMEOUT 1", []),
    ("GETPIN", [Act.WAITS]),
    ("SETTIMEOUT 30", []),
    ("SETREPEAT PIN again:", []),
    ("SETREPEATERROR differ", []),
    ("GETPIN", [Types("1234"), Types("4321"), Types("1234"), Types("1234")]),
    ("GETPIN", [Types("1234")]),
    ("SETOK _Allow", []),
    ("SETCANCEL _Refuse", []),
    ("CONFIRM", [Act.ALLOWS]),
    ("CONFIRM", [Act.REFUSES]),
    ("SETTIMEOUT 1", []),
    ("CONFIRM", [Act.WAITS]),
    ("SETTIMEOUT 30", []),
    ("SETCANCEL _Cancel", []),
    ("GETPIN", [Act.CANCELS]),
]


def scenario(flavour: Flavour) -> list[tuple[str, Sequence[Action]]]:
    """Leaves out the actions for the second entries where there is none."""
    return [(command, actions if flavour.repeats else actions[:1]) for command, actions in SCENARIO]


async def transcript(
    stream: trio.abc.Stream, flavour: Flavour, options: Sequence[tuple[str, str]]
) -> list[str]:
    tap = Tap(stream)
    dialogue = Dialogue(tap)
    await dialogue.open(options)
    for command, _actions in scenario(flavour):
        name, _space, argument = command.partition(" ")
        await dialogue._request(name, argument)
    if flavour.has_button:
        await dialogue._request("BYE")
    return tap.received


both = pytest.mark.parametrize("flavour", [TTY, CURSES], ids=lambda flavour: flavour.program)


@both
async def test_the_scripted_pinentry_says_what_a_real_one_says(
    flavour: Flavour, terminal: Terminal, nursery: trio.Nursery
) -> None:
    person = [action for _command, actions in scenario(flavour) for action in actions]
    options = program(flavour, terminal)._options
    assert ("ttyname", terminal.name) in options
    async with ScriptedPinentry(nursery, person, flavour).open() as stream:
        # Its one-second time-outs pass, and the real one's are alike.
        expected = await transcript(stream, flavour, options)
    with trio.fail_after(60):
        nursery.start_soon(act, terminal, flavour, person)
        async with program(flavour, terminal)._open() as stream:
            assert await transcript(stream, flavour, options) == expected
    assert "S PIN_REPEATED" in expected or not flavour.repeats


# Real pinentries.


@both
async def test_a_pin_is_entered_at_a_real_pinentry(flavour: Flavour, terminal: Terminal) -> None:
    pinentry = program(flavour, terminal)
    person = [Types("12"), Types("123456789"), Types(PIN)]
    entry = await with_person(pinentry, terminal, flavour, person, verification())
    assert entry == Pins(current=PIN.encode())
    assert "in slot 1 of Reader of a guest" in terminal.text
    assert "A PIN of 4 to 8 digits is needed." in terminal.text
    assert PIN not in terminal.text
    assert terminal.is_as_before


@both
async def test_a_pin_is_changed_at_a_real_pinentry(flavour: Flavour, terminal: Terminal) -> None:
    person = [Types(PIN), Types("24"), Types("24"), Types(OTHER_PIN), Types(OTHER_PIN)]
    if not flavour.repeats:
        # It does not ask for the second one where the first one will not do.
        del person[2]
    entry = await with_person(program(flavour, terminal), terminal, flavour, person, modification())
    assert entry == Pins(current=PIN.encode(), new=OTHER_PIN.encode())


@both
async def test_an_entry_is_cancelled_at_a_real_pinentry(
    flavour: Flavour, terminal: Terminal
) -> None:
    pinentry = program(flavour, terminal)
    entry = await with_person(pinentry, terminal, flavour, [Act.CANCELS], modification())
    assert entry is NoPin.CANCELLED
    assert terminal.is_as_before


@both
async def test_a_person_allows_and_refuses_at_a_real_pinentry(
    flavour: Flavour, terminal: Terminal, nursery: trio.Nursery
) -> None:
    pinentry = program(flavour, terminal)
    nursery.start_soon(act, terminal, flavour, [Act.ALLOWS, Act.REFUSES])
    with trio.fail_after(60):
        assert await pinentry.confirm("May vm1 use card A?", 60)
        assert not await pinentry.confirm("May vm2 use card A?", 60)
    assert "May vm2 use card A?" in terminal.text


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pinentry-script"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


def is_gone(pid_file: Path) -> bool:
    """Tells whether the process has ended and was waited for."""
    return not Path("/proc", pid_file.read_text().strip()).exists()


@both
async def test_an_aborted_entry_leaves_no_process_and_the_terminal_as_it_was(
    flavour: Flavour, terminal: Terminal, tmp_path: Path, nursery: trio.Nursery
) -> None:
    pid_file = tmp_path / "pid"
    path = script(tmp_path, f"echo $$ > {pid_file}; exec {flavour.program}")

    async def abort() -> None:
        await terminal.sees(PROMPTS[flavour])
        assert not terminal.is_as_before
        assert not is_gone(pid_file)
        scope.cancel()

    nursery.start_soon(abort)
    with trio.fail_after(60), trio.CancelScope() as scope:
        await program(path, terminal).ask(verification())
    assert scope.cancelled_caught
    assert is_gone(pid_file)
    assert terminal.is_as_before


@both
async def test_an_entry_that_takes_too_long_ends_as_an_aborted_one(
    flavour: Flavour, terminal: Terminal, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    path = script(tmp_path, f"echo $$ > {pid_file}; exec {flavour.program}")
    entry = await with_person(
        program(path, terminal), terminal, flavour, [Act.WAITS], verification(1)
    )
    assert entry is NoPin.TIMED_OUT
    assert is_gone(pid_file)
    assert terminal.is_as_before


async def test_a_pinentry_that_does_not_end_is_killed_with_its_children(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_module, "END_TIME", 0.05)
    pid_file, fifo = tmp_path / "pid", tmp_path / "fifo"
    os.mkfifo(fifo)
    path = script(
        tmp_path,
        f"trap '' INT; exec 3> {fifo}; echo $$ > {pid_file}; echo alive >&3; echo OK; sleep 1000",
    )
    # It is open for writing as long as one of the processes lives.
    async with trio.lowlevel.FdStream(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)) as alive:
        with trio.fail_after(60), trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(program(path, terminal).ask, verification())
                while not (text := await alive.receive_some()):
                    await trio.lowlevel.checkpoint()
                assert text == b"alive\n"
                scope.cancel()
        assert is_gone(pid_file)
        with trio.fail_after(60):
            assert await alive.receive_some() == b""


# A pinentry that is none.


def test_a_program_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no program pinentry-none for PIN entry"):
        PinentryProgram("pinentry-none")
    with pytest.raises(UserError, match="no program pinentry for PIN entry"):
        PinentryProgram(environ={"PATH": str(tmp_path)})
    path = script(tmp_path, "exec pinentry")
    path.chmod(stat.S_IRUSR)
    with pytest.raises(UserError, match=f"no program {path} for"):
        PinentryProgram(str(path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 1", "connection closed while greeting"),
        ("echo OK; exec <&-; exit", ""),
        ("echo hello; cat", "a line of 5 bytes that is no response"),
        ("echo ERR 5 not today; cat", "it refuses to start: error 5 not today"),
    ],
)
async def test_a_pinentry_that_fails_cancels_the_entry_and_is_told_in_the_log(
    text: str, reason: str, terminal: Terminal, tmp_path: Path
) -> None:
    pinentry = program(script(tmp_path, text), terminal)
    with capture_logs() as logs, trio.fail_after(60):
        assert await pinentry.ask(verification()) is NoPin.CANCELLED
        assert not await pinentry.confirm("Really?", 60)
    assert [entry["event"] for entry in logs] == ["pinentry_failed"] * 2
    assert reason in logs[0]["reason"]
    assert logs[0]["program"] == str(tmp_path / "pinentry-script")


async def test_a_program_that_vanished_is_told_in_the_log(
    terminal: Terminal, tmp_path: Path
) -> None:
    path = script(tmp_path, "exec pinentry")
    pinentry = program(path, terminal)
    path.unlink()
    with capture_logs() as logs:
        assert await pinentry.ask(verification()) is NoPin.CANCELLED
    assert logs[0]["reason"] == "No such file or directory"


async def test_a_terminal_that_is_none_is_told_in_the_log(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "GPG_TTY": "/nonexistent", "TERM": "xterm"}
    with capture_logs() as logs, trio.fail_after(60):
        entry = await PinentryProgram("pinentry-curses", environ).ask(verification())
    assert entry is NoPin.CANCELLED
    assert "it refuses GETPIN" in logs[0]["reason"]


# Secrets.


@both
async def test_a_pin_is_in_no_argument_environment_or_log(
    flavour: Flavour, terminal: Terminal, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    path = script(
        tmp_path,
        f"{{ env; tr '\\0' ' ' < /proc/$$/cmdline; }} >> {seen}; exec {flavour.program}",
    )
    with capture_logs() as logs:
        person = [Types(PIN), Types(OTHER_PIN), Types(OTHER_PIN)]
        entry = await with_person(
            program(path, terminal), terminal, flavour, person, modification()
        )
    assert isinstance(entry, Pins)
    for text in (seen.read_text(), str(logs), repr(entry), terminal.text):
        assert PIN not in text
        assert OTHER_PIN not in text
    assert "GPG_TTY=" in seen.read_text()
