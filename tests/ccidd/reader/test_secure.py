# SPDX-License-Identifier: Apache-2.0
"""PIN entry at the reader: the host asks for it, and never sees the PIN."""

from collections.abc import Callable
from functools import reduce
from operator import xor

import pytest
import trio
import trio.testing

from cards import ScriptedCard
from ccid_protocol import ccid
from ccid_protocol.atr import ATR, InterfaceBytes
from ccid_protocol.ccid import (
    Abort,
    CommandStatus,
    DataBlock,
    IccPowerOn,
    IccStatus,
    OtherPinOperation,
    PinFormat,
    PinModification,
    PinOperation,
    PinTemplate,
    PinVerification,
    Response,
    Secure,
    SetParameters,
    SlotError,
    T1Parameters,
)
from ccidd.reader.ccid_reader import CcidReader
from ccidd.reader.pinentry.source import (
    EntryRequest,
    ModificationRequest,
    NoPin,
    PinEntry,
    Pins,
    PinSource,
    VerificationRequest,
)
from ccidd.reader.profile import Level, default_profile
from ccidd.reader.slot import Slot

OK = b"\x90\x00"
# PIV: VERIFY with 8 bytes, ASCII digits from the left, filled up with FF.
VERIFY = bytes.fromhex("0020008008") + b"\xff" * 8
CHANGE = bytes.fromhex("0024008010") + b"\xff" * 16
PIV_FORMAT = PinFormat.decode(0x82, 0x08, 0x00)


class ScriptedSource(PinSource):
    """Answers as the test says, and remembers what was asked."""

    def __init__(self, answer: Callable[[], PinEntry], *, seconds: float = 0) -> None:
        self._answer = answer
        self._seconds = seconds
        self.asked: list[EntryRequest] = []
        self.ended_early = False

    @property
    def can_modify(self) -> bool:
        return True

    async def ask(self, request: EntryRequest) -> PinEntry:
        self.asked.append(request)
        try:
            await trio.sleep(self._seconds)
        except trio.Cancelled:
            self.ended_early = True
            raise
        return self._answer()


class Bench:
    """A reader with one card, a source of PINs, and what came out of both."""

    def __init__(self, source: PinSource | None, level: Level, atr: ATR) -> None:
        self.commands: list[bytes] = []
        card = ScriptedCard(self._answer)
        card._atr = atr
        self.slot = Slot(card)
        self.answers_in, self.answers = trio.open_memory_channel[Response](100)
        profile = default_profile(1, "1", level)
        respond = self.answers_in.send_nowait
        self.reader = CcidReader([self.slot], profile, respond, lambda: None, source)

    async def _answer(self, command: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self.commands.append(command)
        return OK

    async def ask(self, command: ccid.Command) -> Response:
        self.reader.submit(command)
        while True:
            answer = await self.answers.receive()
            if answer.command_status is not CommandStatus.TIME_EXTENSION:
                return answer

    async def enter(
        self, request: PinVerification | PinModification | OtherPinOperation
    ) -> Response:
        return await self.ask(Secure(0, 2, request.encode()))


def verification(timeout: int = 0) -> PinVerification:
    return PinVerification(PinTemplate.decode(VERIFY, 0), PIV_FORMAT, 6, 8, timeout=timeout)


def modification() -> PinModification:
    template = PinTemplate.decode(CHANGE, 0)
    return PinModification(template, PIV_FORMAT, 6, 8, insertion_offset_new=8)


async def started(
    nursery: trio.Nursery,
    source: PinSource | None,
    level: Level = Level.EXTENDED_APDU,
    atr: ATR = ATR(b""),  # noqa: B008 (it is frozen)
) -> Bench:
    bench = Bench(source, level, atr)
    nursery.start_soon(bench.reader.run)
    assert (await bench.ask(IccPowerOn(0, 1))).error == 0
    return bench


def failure_of(answer: Response) -> int:
    assert answer.command_status is CommandStatus.FAILED
    return answer.error


@pytest.mark.parametrize("level", Level)
async def test_the_pin_goes_to_the_card_and_its_status_to_the_host(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, level: Level
) -> None:
    source = ScriptedSource(lambda: Pins(current=b"123456"))
    bench = await started(nursery, source, level)
    answer = await bench.enter(verification())
    assert isinstance(answer, DataBlock)
    assert (answer.data, answer.error) == (OK, 0)
    assert bench.commands == [bytes.fromhex("0020008008") + b"123456\xff\xff"]
    (request,) = source.asked
    assert isinstance(request, VerificationRequest)
    assert (request.slot, request.min_digits, request.max_digits) == (0, 6, 8)
    assert request.timeout == 30


async def test_over_t1_the_command_is_a_block_with_the_host_s_prologue(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    source = ScriptedSource(lambda: Pins(current=b"123456"))
    atr = ATR(b"", (InterfaceBytes(protocol=1),))
    bench = await started(nursery, source, Level.TPDU, atr)
    await bench.ask(SetParameters(0, 5, T1Parameters()))
    answer = await bench.enter(verification())
    assert isinstance(answer, DataBlock)
    block = bytes([0, 0, 2]) + OK
    assert answer.data == block + bytes([reduce(xor, block)])
    assert bench.commands == [bytes.fromhex("0020008008") + b"123456\xff\xff"]


async def test_a_new_pin_stands_behind_the_current_one(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    source = ScriptedSource(lambda: Pins(current=b"123456", new=b"87654321"))
    bench = await started(nursery, source)
    answer = await bench.enter(modification())
    assert answer.error == 0
    assert bench.commands == [bytes.fromhex("0024008010") + b"123456\xff\xff87654321"]
    (request,) = source.asked
    assert isinstance(request, ModificationRequest)
    assert request.asks_current
    assert request.confirms


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (NoPin.CANCELLED, SlotError.PIN_CANCELLED),
        (NoPin.TIMED_OUT, SlotError.PIN_TIMEOUT),
        (Pins(current=b"12345"), SlotError.PIN_CANCELLED),
        (Pins(), SlotError.PIN_CANCELLED),
    ],
)
async def test_without_a_pin_nothing_reaches_the_card(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    outcome: PinEntry,
    error: SlotError,
) -> None:
    bench = await started(nursery, ScriptedSource(lambda: outcome))
    assert failure_of(await bench.enter(verification())) == error
    assert bench.commands == []


async def test_new_pins_that_differ_are_told_as_hosts_expect_it(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    bench = await started(nursery, ScriptedSource(lambda: NoPin.MISMATCH))
    answer = await bench.enter(modification())
    assert isinstance(answer, DataBlock)
    assert (answer.data, answer.error) == (b"\x64\x02", 0)
    assert bench.commands == []


async def test_a_person_who_thinks_has_the_host_wait_and_has_the_host_s_time(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    source = ScriptedSource(lambda: Pins(current=b"123456"), seconds=10)
    bench = await started(nursery, source)
    bench.reader.submit(Secure(0, 2, verification(timeout=20).encode()))
    extensions = 0
    while (answer := await bench.answers.receive()).command_status is CommandStatus.TIME_EXTENSION:
        assert answer.icc_status is IccStatus.ACTIVE
        extensions += 1
    assert extensions >= 10
    assert answer.error == 0
    assert source.asked[0].timeout == 20


async def test_an_abort_and_a_removal_end_the_entry(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    source = ScriptedSource(lambda: Pins(current=b"123456"), seconds=100)
    bench = await started(nursery, source)
    bench.reader.submit(Secure(0, 2, verification().encode()))
    await trio.testing.wait_all_tasks_blocked()
    bench.reader.abort(0, 9)
    assert failure_of(await bench.answers.receive()) == SlotError.CMD_ABORTED
    bench.reader.submit(Abort(0, 9))
    assert (await bench.answers.receive()).error == 0
    await trio.testing.wait_all_tasks_blocked()
    assert source.ended_early

    source.ended_early = False
    bench.reader.submit(Secure(0, 3, verification().encode()))
    await trio.testing.wait_all_tasks_blocked()
    bench.slot.remove()
    assert failure_of(await bench.answers.receive()) == SlotError.ICC_MUTE
    await trio.testing.wait_all_tasks_blocked()
    assert source.ended_early
    assert bench.commands == []


async def test_what_is_not_there_is_not_supported(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    bench = await started(nursery, None)
    assert failure_of(await bench.enter(verification())) == SlotError.CMD_NOT_SUPPORTED
    bench = await started(nursery, ScriptedSource(lambda: NoPin.CANCELLED))
    for operation in (PinOperation.TRANSFER, PinOperation.SEND_NEXT_PART):
        answer = await bench.enter(OtherPinOperation(operation))
        assert failure_of(answer) == SlotError.CMD_NOT_SUPPORTED


async def test_bad_fields_are_named_by_their_offset(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    bench = await started(nursery, ScriptedSource(lambda: NoPin.CANCELLED))
    assert failure_of(await bench.ask(Secure(0, 2, b"\x09"))) == 10
    assert failure_of(await bench.ask(Secure(0, 2, verification().encode(), 0, 1))) == 8
