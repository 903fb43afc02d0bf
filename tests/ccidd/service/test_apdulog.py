# SPDX-License-Identifier: Apache-2.0
"""The log of APDUs, as an operator reads it."""

from collections.abc import Iterator

import pytest
import trio.testing
from structlog.testing import capture_logs

from cards import ScriptedCard
from ccidd.reader.slot import Slot
from ccidd.service import log as log_module
from ccidd.service.apdulog import ApduLog
from ccidd.service.exchanges import Exchanges
from ccidd.service.log import set_log_level

VERIFY = bytes.fromhex("0020008008313233343536FFFF")


@pytest.fixture(autouse=True)
def level_is_as_before() -> Iterator[None]:
    level = log_module._threshold.level
    yield
    log_module._threshold.level = level


async def answer(command: bytes) -> bytes:
    await trio.sleep(0.0125)
    if command == VERIFY:
        return bytes.fromhex("63C2")
    if len(command) < 4:
        raise ZeroDivisionError
    return bytes(32) + b"\x90\0"


async def test_each_apdu_is_a_line_without_secrets(
    autojump_clock: trio.testing.MockClock,
) -> None:
    set_log_level("debug")
    slot = Slot(ScriptedCard(answer), 1)
    with capture_logs() as logs:
        slot.observe(Exchanges(ApduLog()))
        card = slot.insertion
        assert card is not None
        await card.power_on()
        await card.transmit(VERIFY)
        await card.transmit(bytes.fromhex("00CB3FFF055C035FC10500"))
        with pytest.raises(ZeroDivisionError):
            await card.transmit(b"\0")
        await card.power_off()
        slot.remove()
    assert {entry.pop("slot") for entry in logs} == {1}
    assert {entry.pop("log_level") for entry in logs} == {"debug"}
    certificate = "GET DATA 5FC105 (X.509 certificate for PIV authentication) Le=00"
    assert logs == [
        {"event": "card_came"},
        {"event": "card_powered_on", "atr": "3B0474657374"},
        {
            "event": "apdu",
            "text": "VERIFY 80 (application PIN) → 63C2 (2 tries left)",
            "ms": 12.5,
        },
        {"event": "apdu", "text": f"{certificate} → 9000, 32 bytes", "ms": 12.5},
        {"event": "card_did_not_answer", "error": "ZeroDivisionError"},
        {"event": "card_powered_off"},
        {"event": "card_went"},
    ]


async def test_nothing_is_worked_out_that_is_not_logged() -> None:
    set_log_level("info")
    slot = Slot(ScriptedCard(answer))
    slot.observe(Exchanges(ApduLog()))
    assert slot.insertion is not None
    with capture_logs() as logs:
        await slot.insertion.transmit(VERIFY)
    assert logs == []
