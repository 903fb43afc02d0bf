# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from ccidd.errors import UserError
from ccidd.reader.pinentry.credential import CredentialPin
from ccidd.reader.pinentry.program import PinentryProgram
from ccidd.reader.pinentry.source import (
    EntryRequest,
    ModificationRequest,
    NoPin,
    Pins,
    VerificationRequest,
)

PIN = "135792"


def verification(timeout: float = 60, *, least: int = 4, most: int = 8) -> VerificationRequest:
    return VerificationRequest(
        reader="reader", slot=3, card="card", min_digits=least, max_digits=most, timeout=timeout
    )


MODIFICATION = ModificationRequest(
    reader="reader", slot=3, card="card", min_digits=4, max_digits=8, timeout=60
)


@pytest.fixture
def pin_file(tmp_path: Path) -> Path:
    path = tmp_path / "pin"
    path.write_text(f"{PIN}\n")
    return path


def test_pins_are_in_no_repr() -> None:
    assert repr(Pins(PIN.encode(), PIN.encode())) == "Pins()"


@pytest.mark.parametrize(
    ("pin", "accepted"),
    [(b"1234", True), (b"12345678", True), (b"123", False), (b"1" * 9, False), (b"12a4", False)],
)
def test_a_request_accepts_digits_of_its_number(pin: bytes, *, accepted: bool) -> None:
    assert EntryRequest.accepts(verification(), pin) is accepted
    assert not verification(least=0).accepts(b"")


def test_a_source_tells_whether_it_can_modify(pin_file: Path) -> None:
    assert not CredentialPin(str(pin_file)).can_modify
    assert PinentryProgram("pinentry-tty").can_modify


async def test_the_file_is_read_at_each_use(pin_file: Path) -> None:
    source = CredentialPin(str(pin_file))
    assert await source.ask(verification()) == Pins(current=PIN.encode())
    pin_file.write_text("2468\r\nof another card\n")
    assert await source.ask(verification()) == Pins(current=b"2468")


async def test_a_name_is_one_of_the_credentials_if_there_are_any(
    pin_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(pin_file.parent)}
    assert await CredentialPin("pin", environ).ask(verification()) == Pins(current=PIN.encode())
    with pytest.raises(UserError, match="cannot read pin: No such file"):
        CredentialPin("./pin", environ)
    with pytest.raises(UserError, match="cannot read pin: No such file"):
        CredentialPin("pin", {})
    monkeypatch.chdir(pin_file.parent)
    for name in ("pin", "./pin", str(pin_file)):
        assert await CredentialPin(name, {}).ask(verification()) == Pins(current=PIN.encode())


@pytest.mark.parametrize("content", [f"{PIN}x\n", f" {PIN}\n", f"{PIN} \n", "\n", "١٢٣٤\n"])
def test_a_file_without_a_pin_is_refused_at_once(content: str, pin_file: Path) -> None:
    pin_file.write_text(content)
    with pytest.raises(UserError, match=str(pin_file)) as refused:
        CredentialPin(str(pin_file))
    assert PIN not in str(refused.value)


async def test_a_file_that_changed_for_the_worse_cancels_the_entry(pin_file: Path) -> None:
    source = CredentialPin(str(pin_file))
    with capture_logs() as logs:
        assert await source.ask(verification(most=5)) is NoPin.CANCELLED
        assert await source.ask(verification(least=7)) is NoPin.CANCELLED
        pin_file.write_text(f"{PIN}x")
        assert await source.ask(verification()) is NoPin.CANCELLED
        pin_file.unlink()
        assert await source.ask(verification()) is NoPin.CANCELLED
    reasons = [entry["reason"] for entry in logs]
    assert [entry["slot"] for entry in logs] == [3] * 4
    assert reasons[0] == f"4 to 5 digits are asked for, and {pin_file} has others"
    assert "7 to 8 digits" in reasons[1]
    assert "it has not only digits" in reasons[2]
    assert "No such file" in reasons[3]
    assert PIN not in str(logs)


async def test_a_modification_is_declined(pin_file: Path) -> None:
    with capture_logs() as logs:
        assert await CredentialPin(str(pin_file)).ask(MODIFICATION) is NoPin.CANCELLED
    assert logs[0]["reason"] == "a file cannot change the PIN of a card"


async def test_a_file_that_cannot_be_read_in_time_holds_up_nobody(pin_file: Path) -> None:
    source, other = CredentialPin(str(pin_file)), CredentialPin(str(pin_file))
    pin_file.rename(pin_file.with_name("kept"))
    os.mkfifo(pin_file)
    with trio.fail_after(30):
        assert await source.ask(verification(0.01)) is NoPin.TIMED_OUT
        assert await source.ask(verification(0.01)) is NoPin.TIMED_OUT
        with trio.move_on_after(0.01) as scope:
            await other.ask(verification())
        assert scope.cancelled_caught
    # The threads that read are waiting for somebody to write.
    os.close(os.open(pin_file, os.O_RDWR))
