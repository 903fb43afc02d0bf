# SPDX-License-Identifier: Apache-2.0
"""What of a guest's doings can be done again after a reset."""

import pytest

from ccidd.card.passthrough.setup import Setup, begins_anew

OK = b"\x90\0"
SELECT = bytes.fromhex("00A4040009A00000030800001000")
OTHER = bytes.fromhex("00A4040005A000000151")


def setup_of(*commands: tuple[bytes, bytes]) -> Setup:
    setup = Setup()
    for command, response in commands:
        setup.note(command, response)
    return setup


def test_nothing_is_set_up_again_after_a_reset() -> None:
    assert Setup().commands == ()
    setup = setup_of((SELECT, OK), (bytes.fromhex("00200080020102"), OK))
    setup.forget()
    assert setup.commands == ()


@pytest.mark.parametrize(
    "command",
    [
        "00CB3FFF035C017E00",
        "00CA006E00",
        "80CA9F7F00",
        "00C0000010",
        "00B0000000",
        "00B2010400",
        "00200080",
        "0020008000",
    ],
)
def test_reading_leaves_all_as_it_is(command: str) -> None:
    setup = setup_of((SELECT, OK), (bytes.fromhex(command), b"\x6a\x82"))
    assert setup.commands == ((SELECT, OK),)


@pytest.mark.parametrize(
    "command",
    [
        "0020008008313233343536FFFF",
        "0020FF80",
        "00870000",
        "002241A403840101",
        "1087000000",
        "0087119A047C028200",
        "00B2000200",
        "01A4040000",
        "0CA4040000",
        "80E20000",
        "00A4",
        "0084000008",
    ],
)
def test_all_else_is_beyond_repeat(command: str) -> None:
    setup = setup_of((SELECT, OK), (bytes.fromhex(command), OK))
    assert setup.commands is None
    # Whatever the guest selects after it.
    setup.note(SELECT, OK)
    assert setup.commands is None


@pytest.mark.parametrize("selection", ["00A40400023F01", "00A40000023F00", "00A408000450155031"])
def test_an_absolute_selection_takes_the_place_of_all_before(selection: str) -> None:
    command = bytes.fromhex(selection)
    relative = (bytes.fromhex("00A40000025015"), OK)
    setup = setup_of((SELECT, OK), relative, (command, b"\x61\x10"), (b"\0\xc0\0\0\x10", OK))
    assert setup.commands == ((command, b"\x61\x10"),)


@pytest.mark.parametrize(
    "command",
    ["00A40000025015", "00A4010C025015", "00B0810000", "00B1000100", "00B2011400", "00A4040201A0"],
)
def test_a_relative_selection_comes_after_the_others(command: str) -> None:
    relative = (bytes.fromhex(command), OK)
    assert setup_of((SELECT, OK), relative).commands == ((SELECT, OK), relative)


def test_a_selection_that_failed_may_have_done_something() -> None:
    failed = (OTHER, b"\x6a\x82")
    assert setup_of((SELECT, OK), failed).commands == ((SELECT, OK), failed)


def test_what_waits_for_get_response_is_lost() -> None:
    assert setup_of((SELECT, b"\x61\x10")).commands is None


def test_a_host_that_selects_for_ever_is_not_followed() -> None:
    relative = (bytes.fromhex("00A40000025015"), OK)
    assert setup_of(*[relative] * 32).commands is not None
    assert setup_of(*[relative] * 33).commands is None


def test_a_selection_by_name_begins_anew() -> None:
    assert begins_anew(SELECT)
    for other in ("00A4040200", "00A40000023F00", "01A4040000", "00CB3FFF", "00"):
        assert not begins_anew(bytes.fromhex(other))
