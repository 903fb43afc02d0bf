# SPDX-License-Identifier: Apache-2.0
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from ccidd.errors import UserError
from ccidd.reader.pinentry.source import EntryRequest, NoPin, PinEntry, Pins
from ccidd.service.ctl.terminal import Terminal
from pin_requests import OTHER_PIN, PIN, modification, verification
from terminal import Terminal as Screen
from terminal import new_terminal

PROMPT = r"(: |\[y/N\] )$"


@pytest.fixture
async def screen() -> AsyncIterator[Screen]:
    async with new_terminal() as screen:
        yield screen


async def answered(screen: Screen, request: EntryRequest, *lines: str) -> PinEntry:
    """Answers each prompt with a line."""

    async def person() -> None:
        for line in lines:
            await screen.sees(PROMPT)
            await screen.types(line)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(person)
            return await Terminal(Path(screen.name)).ask(request)
    raise AssertionError


async def test_a_pin_is_entered_and_not_shown(screen: Screen) -> None:
    assert await answered(screen, verification(), f"{PIN}\r") == Pins(current=PIN.encode())
    assert "A guest asks for the PIN of card A," in screen.text
    assert "in slot 1 of Reader of a guest." in screen.text
    assert PIN not in screen.text
    assert screen.is_as_before


async def test_a_typing_error_can_be_mended(screen: Screen) -> None:
    entry = await answered(screen, verification(), f"99\x7f\x7f{PIN}\r")
    assert entry == Pins(current=PIN.encode())


@pytest.mark.parametrize("line", ["\r", "\x04"], ids=["nothing", "^D"])
async def test_nothing_refuses(screen: Screen, line: str) -> None:
    assert await answered(screen, verification(), line) is NoPin.CANCELLED
    assert screen.is_as_before


async def test_a_pin_of_a_wrong_form_is_asked_for_again(screen: Screen) -> None:
    entry = await answered(screen, verification(), "123\r", "abcdef\r", f"{PIN}\r")
    assert entry == Pins(current=PIN.encode())
    assert screen.text.count("A PIN of 4 to 8 digits is needed.") == 2


async def test_it_is_not_asked_for_again_for_ever(screen: Screen) -> None:
    assert await answered(screen, verification(), *["1\r"] * 3) is NoPin.CANCELLED


@pytest.mark.parametrize(
    ("request_", "lines", "entry"),
    [
        (modification(), [PIN, OTHER_PIN, OTHER_PIN], Pins(PIN.encode(), OTHER_PIN.encode())),
        (modification(confirms=False), [PIN, OTHER_PIN], Pins(PIN.encode(), OTHER_PIN.encode())),
        (modification(current=False), [OTHER_PIN] * 2, Pins(None, OTHER_PIN.encode())),
        (modification(), [PIN, OTHER_PIN, PIN], NoPin.MISMATCH),
        (modification(), [PIN, OTHER_PIN, ""], NoPin.MISMATCH),
        (modification(), [PIN, ""], NoPin.CANCELLED),
        (modification(), [""], NoPin.CANCELLED),
    ],
)
async def test_a_new_pin_is_entered(
    screen: Screen, request_: EntryRequest, lines: Sequence[str], entry: PinEntry
) -> None:
    assert await answered(screen, request_, *(f"{line}\r" for line in lines)) == entry
    assert "A guest asks for a new PIN of card A," in screen.text
    assert PIN not in screen.text
    assert OTHER_PIN not in screen.text
    assert screen.is_as_before


async def test_a_person_hears_why_it_is_asked_again(screen: Screen) -> None:
    request = modification(after_mismatch=True)
    await answered(screen, request, "\r")
    assert "The two new PINs were different." in screen.text


@pytest.mark.parametrize(
    ("line", "allowed"),
    [("y", True), ("YES", True), ("", False), ("n", False), ("yes, but", False), ("\x04", False)],
)
async def test_a_person_allows_or_refuses(screen: Screen, line: str, *, allowed: bool) -> None:
    async def person() -> None:
        await screen.sees(PROMPT)
        await screen.types(f"{line}\r")

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(person)
            answer = await Terminal(Path(screen.name)).confirm("guest asks\nto sign\x1b[2J", 30)
    assert answer is allowed
    assert "guest asks\r\nto sign [2J\r\n" in screen.text
    assert screen.is_as_before


async def test_what_was_typed_before_the_question_is_no_answer(screen: Screen) -> None:
    await screen.types("y\r")
    await trio.testing.wait_all_tasks_blocked()
    assert not await Terminal(Path(screen.name)).confirm("guest asks to sign", 0.5)


async def test_nobody_answers(screen: Screen) -> None:
    terminal = Terminal(Path(screen.name))
    assert await terminal.ask(verification(timeout=0.2)) is NoPin.TIMED_OUT
    assert not await terminal.confirm("guest asks to sign", 0.2)
    assert screen.is_as_before


async def test_a_question_that_is_cancelled_leaves_nothing_behind(screen: Screen) -> None:
    terminal = Terminal(Path(screen.name))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminal.ask, verification())
            await screen.sees(PROMPT)
            await screen.types(PIN)
            nursery.cancel_scope.cancel()
        assert screen.is_as_before
        await screen.sees("\n$")
        assert PIN not in screen.text
        # Half a PIN is no part of the next answer.
        assert await answered(screen, verification(), f"{OTHER_PIN}\r") == Pins(OTHER_PIN.encode())


async def test_one_question_is_asked_at_a_time(screen: Screen) -> None:
    terminal = Terminal(Path(screen.name))
    entries: list[PinEntry] = []

    async def ask() -> None:
        entries.append(await terminal.ask(verification()))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(ask)
            for pin in (PIN, OTHER_PIN):
                await screen.sees(PROMPT)
                assert len(re.findall("asks for the PIN", screen.text)) == len(entries) + 1
                await screen.types(f"{pin}\r")
    assert entries == [Pins(PIN.encode()), Pins(OTHER_PIN.encode())]


async def test_a_terminal_that_goes_refuses() -> None:
    async with new_terminal() as screen:
        path = Path(screen.name)
        entries: list[PinEntry] = []
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    entries.append(await Terminal(path).ask(verification()))

                nursery.start_soon(ask)
                await screen.sees(PROMPT)
                await screen._stream.aclose()
    assert entries == [NoPin.CANCELLED]


def test_without_a_terminal_there_is_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no terminal to ask at .*; use --pinentry"):
        Terminal(tmp_path / "none")
