# SPDX-License-Identifier: Apache-2.0
"""Secrets come from files, descriptors and terminals."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ccidd.errors import UserError
from ccidd.service.parser import OneLineParser
from ccidd.service.secretinput import add_secret_options, given_secret
from programs import CCIDD, run_ccidd
from terminal import Terminal, new_terminal


def taken(*arguments: str) -> bytes | None:
    parser = OneLineParser()
    add_secret_options(parser, "new-pin", "the new PIN")
    return given_secret(parser.parse_args(arguments), "new-pin")


def test_a_secret_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "pin"
    file.write_text("123456\nsomething else\n")
    assert taken(f"--new-pin-file={file}") == b"123456"
    assert taken() is None


def test_secrets_from_one_descriptor_are_lines() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"123456\n654321\r\nlast")
    os.close(write_end)
    assert [taken(f"--new-pin-fd={read_end}") for _ in range(3)] == [b"123456", b"654321", b"last"]
    with pytest.raises(UserError, match=f"--new-pin-fd={read_end} gave no secret"):
        taken(f"--new-pin-fd={read_end}")
    os.close(read_end)


def test_a_descriptor_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--new-pin-fd=99 cannot be read: Bad file descriptor"):
        taken("--new-pin-fd=99")


def test_a_secret_without_end_is_cut() -> None:
    with Path("/dev/zero").open("rb") as endless:
        assert taken(f"--new-pin-fd={endless.fileno()}") == bytes(1024)


def test_without_a_terminal_nobody_is_asked(tmp_path: Path) -> None:
    state = f"--state-dir={tmp_path}"
    assert run_ccidd("card", "create", "a", "--empty", state).returncode == 0
    asked = run_ccidd("card", "change-pin", "a", state)
    assert asked.returncode == 1
    assert asked.stderr == "ccidd: there is no terminal to ask on; give --pin-file or --pin-fd\n"


# At a terminal.


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    async with new_terminal() as terminal:
        yield terminal


@pytest.fixture
def state(tmp_path: Path) -> str:
    (tmp_path / "pin").write_text("123456\n")
    state = f"--state-dir={tmp_path / 'state'}"
    made = run_ccidd("card", "create", "a", "--empty", f"--pin-file={tmp_path / 'pin'}", state)
    assert made.returncode == 0
    return state


@asynccontextmanager
async def at(terminal: Terminal, *arguments: str, output: Path) -> AsyncIterator[trio.Process]:
    """Runs `ccidd card` with a terminal that it can ask on."""
    with (
        Path(terminal.name).open("rb") as stdin,  # noqa: ASYNC230 (it does not block)
        output.open("wb") as stdout,
        trio.fail_after(60),
    ):
        # What a session's leader says last may be lost with its terminal, so it goes to a file.
        process = await trio.lowlevel.open_process(
            ["setsid", "--ctty", *CCIDD, "card", *arguments],
            stdin=stdin.fileno(),
            stdout=stdout.fileno(),
            stderr=stdout.fileno(),
        )
        try:
            yield process
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def test_a_pin_is_asked_for_and_not_shown(
    terminal: Terminal, state: str, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    async with at(terminal, "change-pin", "a", state, output=output) as process:
        for question, answer in (
            ("PIN of a: ", "123456"),
            ("New PIN: ", "654321"),
            ("New PIN again: ", "654321"),
        ):
            await terminal.sees(question)
            await terminal.types(f"{answer}\n")
        assert await process.wait() == 0
    assert "3 of 3 tries left" in output.read_text()
    for secret in ("123456", "654321"):
        assert secret not in terminal.text + output.read_text()


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (("123456\n", "654321\n", "654322\n"), "the two are not the same"),
        (("\n",), "nothing was entered; give --pin-file or --pin-fd"),
        (("123456\n", "\x04"), "nothing was entered; give --new-pin-file or --new-pin-fd"),
        (("111111\n", "654321\n", "654321\n"), "this is not the PIN; 2 tries are left"),
        (("123456\n", "12345\n", "12345\n"), "the PIN: a PIN has 6 to 8 digits"),
    ],
)
async def test_what_is_entered_wrongly(
    terminal: Terminal, state: str, tmp_path: Path, answers: tuple[str, ...], message: str
) -> None:
    output = tmp_path / "output"
    async with at(terminal, "change-pin", "a", state, output=output) as process:
        for answer in answers:
            await terminal.sees(": ")
            await terminal.types(answer)
        assert await process.wait() == 1
    assert output.read_text().startswith(f"ccidd: {message}")
    assert output.read_text().count("\n") == 1


@pytest.mark.parametrize(("answer", "destroyed"), [("a", True), ("yes", False), ("", False)])
async def test_a_card_is_destroyed_by_its_name(
    terminal: Terminal, state: str, tmp_path: Path, answer: str, *, destroyed: bool
) -> None:
    async with at(terminal, "destroy", "a", state, output=tmp_path / "output") as process:
        await terminal.sees(r"Destroy the card a and its keys, for ever\? Type its name")
        await terminal.types(f"{answer}\n")
        assert await process.wait() == (0 if destroyed else 1)
    assert (run_ccidd("card", "show", "a", state).returncode == 0) is not destroyed
