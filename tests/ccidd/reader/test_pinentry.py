# SPDX-License-Identifier: Apache-2.0
import os
import stat
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from ccid_protocol.assuan import MAX_LINE
from ccidd.errors import UserError
from ccidd.reader.pinentry import program as program_module
from ccidd.reader.pinentry.dialogue import MAX_ATTEMPTS, Dialogue
from ccidd.reader.pinentry.program import Pinentry, PinentryProgram
from ccidd.reader.pinentry.source import (
    ModificationRequest,
    NoPin,
    PinEntry,
    Pins,
    VerificationRequest,
)
from scripted_pinentry import CURSES, TTY, Act, Action, Flavour, ScriptedPinentry, Tap, Types
from terminal import Terminal, new_terminal

READER = "Reader of a guest"
PIN = "135792"
OTHER_PIN = "246813"


def verification(timeout: float = 60, *, least: int = 4, most: int = 8) -> VerificationRequest:
    return VerificationRequest(
        reader=READER, slot=1, card="card A", min_digits=least, max_digits=most, timeout=timeout
    )


def modification(
    *, current: bool = True, confirms: bool = True, after_mismatch: bool = False
) -> ModificationRequest:
    return ModificationRequest(
        reader=READER,
        slot=1,
        card="card A",
        min_digits=4,
        max_digits=8,
        timeout=60,
        asks_current=current,
        confirms=confirms,
        after_mismatch=after_mismatch,
    )


def asking(scripted: ScriptedPinentry) -> Pinentry:
    return Pinentry("scripted", scripted.open)


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    async with new_terminal() as terminal:
        yield terminal


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


# What is said to a pinentry.


async def test_the_options_come_from_the_environment(tmp_path: Path) -> None:
    def options(**environ: str) -> dict[str, str]:
        return dict(
            PinentryProgram("pinentry-tty", {**environ, "PATH": os.environ["PATH"]})._options
        )

    assert options(GPG_TTY="/dev/pts/7", TERM="xterm", DISPLAY=":1") == {
        "ttyname": "/dev/pts/7",
        "ttytype": "xterm",
        "display": ":1",
    }
    localised = options(GPG_TTY="t", LANG="de_DE.UTF-8", LC_CTYPE="C.UTF-8", LC_MESSAGES="")
    assert localised == {"ttyname": "t", "lc-ctype": "C.UTF-8", "lc-messages": "de_DE.UTF-8"}


async def test_a_pinentry_is_told_what_to_show_in_order(nursery: trio.Nursery) -> None:
    scripted = ScriptedPinentry(nursery, [Types("12"), Types(PIN)])
    pinentry = Pinentry("scripted", scripted.open, [("ttyname", "t"), ("nonsense", "1")])
    assert await pinentry.ask(verification()) == Pins(current=PIN.encode())
    assert scripted.commands == [
        "OPTION ttyname=t",
        "OPTION nonsense=1",
        "SETTITLE Smart-card reader",
        (
            "SETDESC A guest asks for the PIN of card A,\nin slot 1 of Reader of a guest.\n"
            "It has 4 to 8 digits."
        ),
        "SETPROMPT PIN:",
        "SETTIMEOUT 60",
        "GETPIN",
        "SETERROR A PIN of 4 to 8 digits is needed.",
        "SETTIMEOUT 60",
        "GETPIN",
        "BYE",
    ]


@pytest.mark.parametrize(
    ("least", "most", "text"),
    [(4, 4, "It has 4 digits."), (0, 8, "It has 1 to 8 digits."), (1, 1, "It has 1 digit.")],
)
async def test_the_number_of_digits_is_told(
    least: int, most: int, text: str, nursery: trio.Nursery
) -> None:
    scripted = ScriptedPinentry(nursery, [Act.CANCELS])
    await asking(scripted).ask(verification(least=least, most=most))
    assert scripted.arguments("SETDESC")[0].endswith(text)


@pytest.mark.parametrize("text", ["", "12a4", "1234 ", "١٢٣٤", "1" * 9, "123"])
async def test_what_is_no_pin_is_asked_for_again_but_not_for_ever(
    text: str, nursery: trio.Nursery
) -> None:
    scripted = ScriptedPinentry(nursery, [Types(text)] * MAX_ATTEMPTS)
    assert await asking(scripted).ask(verification()) is NoPin.CANCELLED
    assert len(scripted.arguments("SETERROR")) == MAX_ATTEMPTS - 1


async def test_an_empty_entry_is_no_pin_even_if_no_digit_is_asked_for(
    nursery: trio.Nursery,
) -> None:
    scripted = ScriptedPinentry(nursery, [Types(""), Types("1")])
    assert await asking(scripted).ask(verification(least=0)) == Pins(current=b"1")


@pytest.mark.parametrize("flavour", [TTY, CURSES])
async def test_a_modification_asks_for_no_more_than_it_needs(
    flavour: Flavour, nursery: trio.Nursery
) -> None:
    scripted = ScriptedPinentry(nursery, [Types(OTHER_PIN)], flavour)
    request = modification(current=False, confirms=False)
    assert await asking(scripted).ask(request) == Pins(new=OTHER_PIN.encode())
    assert scripted.arguments("SETREPEAT") == []
    assert scripted.arguments("SETPROMPT") == ["New PIN:"]


async def test_a_pinentry_that_repeats_sees_to_the_confirmation(nursery: trio.Nursery) -> None:
    person = [Types(PIN), *[Types(text) for text in (OTHER_PIN, PIN, OTHER_PIN, OTHER_PIN)]]
    scripted = ScriptedPinentry(nursery, person, TTY)
    entry = await asking(scripted).ask(modification())
    assert entry == Pins(current=PIN.encode(), new=OTHER_PIN.encode())
    assert scripted.arguments("SETPROMPT") == ["Current PIN:", "New PIN:"]


@pytest.mark.parametrize("answers", [{}, {"SETREPEAT": "ERR 536871187", "SETREPEATERROR": "ERR 1"}])
async def test_a_new_pin_is_asked_for_twice_where_a_pinentry_cannot(
    answers: dict[str, str], nursery: trio.Nursery
) -> None:
    person = [Types(text) for text in (PIN, OTHER_PIN, OTHER_PIN, PIN, OTHER_PIN, PIN)]
    scripted = ScriptedPinentry(nursery, person, CURSES, answers)
    pinentry = asking(scripted)
    entry = await pinentry.ask(modification())
    assert entry == Pins(current=PIN.encode(), new=OTHER_PIN.encode())
    assert scripted.arguments("SETPROMPT") == ["Current PIN:", "New PIN:", "New PIN again:"]
    assert await pinentry.ask(modification()) is NoPin.MISMATCH


async def test_the_person_is_told_of_a_mismatch_before(nursery: trio.Nursery) -> None:
    for current in (True, False):
        scripted = ScriptedPinentry(nursery, [Types(PIN), Act.CANCELS, Act.CANCELS])
        request = modification(current=current, confirms=False, after_mismatch=True)
        await asking(scripted).ask(request)
        assert scripted.arguments("SETERROR") == ["The two new PINs were different."]
        error = scripted.commands.index("SETERROR The two new PINs were different.")
        assert error < scripted.commands.index("GETPIN")


@pytest.mark.parametrize("flavour", [TTY, CURSES])
@pytest.mark.parametrize("before", [0, 1, 2])
async def test_each_entry_can_be_cancelled(
    flavour: Flavour, before: int, nursery: trio.Nursery
) -> None:
    person: list[Action] = [Types(PIN)] * before
    if before == 2 and flavour.repeats:
        person.append(Types(OTHER_PIN))
    scripted = ScriptedPinentry(nursery, [*person, Act.CANCELS], flavour)
    assert await asking(scripted).ask(modification()) is NoPin.CANCELLED
    assert scripted.open_windows == 0


async def test_what_could_deceive_the_person_is_not_shown(nursery: trio.Nursery) -> None:
    scripted = ScriptedPinentry(nursery, [Act.CANCELS, Act.REFUSES])
    pinentry = asking(scripted)
    request = VerificationRequest(
        reader="R\n\x1b[2J\u202e" + "\U0001f5dd" * 1000,
        slot=0,
        card="\ud800" + "ä" * 1000,
        min_digits=4,
        max_digits=8,
        timeout=60,
    )
    await pinentry.ask(request)
    await pinentry.confirm("Really?\n\x1b[2J" + "\U0001f5dd" * 1000, 60)
    entry, confirmation = scripted.arguments("SETDESC")
    assert entry.split("\n")[1].startswith("in slot 0 of R  [2J \U0001f5dd")
    assert entry.endswith("It has 4 to 8 digits.")
    assert confirmation.startswith("Really?\n [2J\U0001f5dd")
    assert all(len(text.encode()) < MAX_LINE for text in (entry, confirmation))


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"SETDESC": "ERR 7 no\x1b way"}, "it refuses SETDESC: error 7 no  way"),
        ({"SETPROMPT": "ERR 7"}, "it refuses SETPROMPT: error 7 "),
        ({"GETPIN": "ERR 83918950 Inappropriate ioctl"}, "it refuses GETPIN: error 83918950 In"),
        ({"GETPIN": f"D {PIN}\n" * 200 + "OK"}, "more than 1000 bytes of data"),
        ({"GETPIN": f"D {PIN}%\nOK"}, "D with a percent sign that escapes nothing"),
        ({"GETPIN": f"{PIN}\nOK"}, "a line of 6 bytes that is no response"),
        ({"GETPIN": f"S closing connection\nD {PIN}"}, "connection closed while busy"),
        ({"SETDESC": "OK closing connection"}, "it has ended"),
    ],
)
async def test_a_failure_is_told_without_the_pin(
    answers: dict[str, str], reason: str, nursery: trio.Nursery
) -> None:
    scripted = ScriptedPinentry(nursery, answers=answers)
    with capture_logs() as logs:
        assert await asking(scripted).ask(verification()) is NoPin.CANCELLED
    assert [entry["event"] for entry in logs] == ["pinentry_failed"]
    assert reason in logs[0]["reason"]
    assert PIN not in str(logs)
    assert scripted.open_windows == 0


async def test_what_only_helps_may_be_refused(nursery: trio.Nursery) -> None:
    refused = dict.fromkeys(("OPTION", "SETTITLE", "SETTIMEOUT", "BYE"), "ERR 536871187")
    scripted = ScriptedPinentry(nursery, [Types(PIN)], answers=refused)
    pinentry = Pinentry("scripted", scripted.open, [("ttyname", "t")])
    assert await pinentry.ask(verification()) == Pins(current=PIN.encode())


async def test_a_pinentry_that_asks_back_gets_no_answer(nursery: trio.Nursery) -> None:
    answers = {"GETPIN": "INQUIRE QUALITY", "CAN": "ERR 83886179 cancelled"}
    scripted = ScriptedPinentry(nursery, answers=answers)
    assert await asking(scripted).ask(verification()) is NoPin.CANCELLED
    assert scripted.commands[-3:] == ["GETPIN", "CAN", "BYE"]


async def test_only_an_allowance_is_one(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    scripted = ScriptedPinentry(nursery, [Act.ALLOWS, Act.REFUSES, Act.WAITS])
    pinentry = asking(scripted)
    answers = [await pinentry.confirm("May it?", 60) for _again in range(3)]
    assert answers == [True, False, False]
    assert scripted.arguments("SETDESC") == ["May it?"] * 3
    declining = ScriptedPinentry(nursery, answers={"CONFIRM": "ERR 83886194 Not confirmed"})
    assert not await asking(declining).confirm("May it?", 60)
    refusing = ScriptedPinentry(nursery, answers={"CONFIRM": "ERR 536871187"})
    with capture_logs() as logs:
        assert not await asking(refusing).confirm("May it?", 60)
    assert logs[0]["reason"].startswith("it refuses CONFIRM")


# Time.


async def test_all_rounds_of_an_entry_share_its_time(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    person = [Types(PIN, 20), Types("1", 15.5), Types(OTHER_PIN, 60)]
    scripted = ScriptedPinentry(nursery, person, CURSES)
    start = trio.current_time()
    assert await asking(scripted).ask(modification()) is NoPin.TIMED_OUT
    assert trio.current_time() - start == pytest.approx(60)
    assert scripted.arguments("SETTIMEOUT") == ["60", "40", "25"]
    assert scripted.open_windows == 0


async def test_a_pinentry_may_see_the_time_out_first(nursery: trio.Nursery) -> None:
    timeout = "S ERROR tty.? 83886142 \nERR 83886142 Timeout <Pinentry>"
    scripted = ScriptedPinentry(nursery, answers={"GETPIN": timeout})
    assert await asking(scripted).ask(verification()) is NoPin.TIMED_OUT


async def test_a_pinentry_that_does_not_start_is_not_waited_for(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    scripted = ScriptedPinentry(nursery, answers={"": "# not yet"})
    start = trio.current_time()
    assert await asking(scripted).ask(verification(30)) is NoPin.TIMED_OUT
    assert trio.current_time() - start == pytest.approx(30)


async def test_a_pinentry_that_does_not_say_goodbye_does_not_lose_the_pin(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    scripted = ScriptedPinentry(nursery, [Types(PIN, 59.5)], answers={"BYE": "# not yet"})
    assert await asking(scripted).ask(verification()) == Pins(current=PIN.encode())


async def test_one_person_is_asked_one_thing_at_a_time(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    person = [Types(PIN, 20), Types(OTHER_PIN, 20)]
    scripted = ScriptedPinentry(nursery, person)
    pinentry = asking(scripted)
    entries: list[PinEntry] = []

    async def ask(request: VerificationRequest) -> None:
        entries.append(await pinentry.ask(request))
        assert scripted.open_windows <= 1

    async with trio.open_nursery() as asked:
        asked.start_soon(ask, verification(60))
        await trio.testing.wait_all_tasks_blocked()
        asked.start_soon(ask, verification(60))
        # Its time passes while others are asked.
        asked.start_soon(ask, verification(15))
    assert entries[0] is NoPin.TIMED_OUT
    assert set(entries[1:]) == {Pins(current=PIN.encode()), Pins(current=OTHER_PIN.encode())}
    assert scripted.arguments("SETTIMEOUT") == ["60", "40"]


async def test_an_aborted_entry_makes_way_for_the_next(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    scripted = ScriptedPinentry(nursery, [Act.WAITS, Types(PIN)])
    pinentry = asking(scripted)
    with trio.move_on_after(5) as scope:
        await pinentry.ask(verification())
    assert scope.cancelled_caught
    assert scripted.open_windows == 0
    assert await pinentry.ask(verification()) == Pins(current=PIN.encode())


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
