# SPDX-License-Identifier: Apache-2.0
"""What is said to a pinentry, and how long is waited for its answers."""

import os
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from ccid_protocol.assuan import MAX_LINE
from ccidd.reader.pinentry.dialogue import MAX_ATTEMPTS
from ccidd.reader.pinentry.program import Pinentry, PinentryProgram
from ccidd.reader.pinentry.source import NoPin, PinEntry, Pins, VerificationRequest
from pin_requests import OTHER_PIN, PIN, modification, verification
from scripted_pinentry import CURSES, TTY, Act, Action, Flavour, ScriptedPinentry, Types


def asking(scripted: ScriptedPinentry) -> Pinentry:
    return Pinentry("scripted", scripted.open)


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
