# SPDX-License-Identifier: Apache-2.0
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
import trio.testing
from structlog.testing import capture_logs

from cards import ScriptedCard
from ccid_protocol.apdu import ResponseAPDU
from ccid_protocol.ccid import (
    Abort,
    CommandStatus,
    DataBlock,
    GetSlotStatus,
    IccPowerOn,
    Response,
    SlotError,
    XfrBlock,
)
from ccidd.card.guard.consent import CONSENT_TIMEOUT, Consent, ConsentRequest
from ccidd.card.guard.guard import Guard, Rules
from ccidd.card.guard.guest import Guest
from ccidd.card.guard.operations import CONFIRMABLE, MANAGE, USE, Operation
from ccidd.reader.ccid_reader import CcidReader
from ccidd.reader.profile import default_profile
from ccidd.reader.slot import Slot
from recording_card import CAC_ENCRYPTION, CAC_IDENTITY, OPENPGP, OTHER, PIV, RecordingCard, select

SIGN, DECRYPT = frozenset({Operation.SIGN}), frozenset({Operation.DECRYPT})
PIV_SIGNATURE = "0087119C087C06810411223344"
GUEST = "guest win11"


class Person(Consent):
    """Answers after a while.

    Attributes:
        requests: what was asked.
        is_asked: whether a question is open.
    """

    def __init__(self, *, agrees: bool = True, after: float = 0) -> None:
        self.requests: list[ConsentRequest] = []
        self.is_asked = False
        self._agrees = agrees
        self._after = after

    async def ask(self, request: ConsentRequest) -> bool:
        self.requests.append(request)
        self.is_asked = True
        try:
            await trio.sleep(self._after)
        finally:
            self.is_asked = False
        return self._agrees


async def send(card: Guard, command: str) -> int:
    return ResponseAPDU.decode(await card.transmit(bytes.fromhex(command))).sw


async def selected(
    person: Person,
    aid: str = PIV,
    confirm: frozenset[Operation] = CONFIRMABLE,
    policy: frozenset[Operation] = USE,
) -> tuple[Guard, RecordingCard]:
    card = RecordingCard()
    guarded = Guard(card, Rules(policy, 1, confirm), Guest(GUEST), person)
    await guarded.power_on()
    await send(guarded, select(aid))
    card.received.clear()
    return guarded, card


def about(operations: frozenset[Operation], card: str, reference: str, key: str) -> ConsentRequest:
    return ConsentRequest(
        guest=GUEST, card=card, operations=operations, reference=reference, key=key
    )


KEYS = [
    (PIV, PIV_SIGNATURE, about(SIGN, "PIV card", "9C", "digital signature")),
    (PIV, "0087119D087C06850411223344", about(DECRYPT, "PIV card", "9D", "key management")),
    (
        PIV,
        "00870784087C06810411223344",
        about(DECRYPT, "PIV card", "84", "retired key management 3"),
    ),
    (CAC_IDENTITY, "80420000020102", about(SIGN, "CAC", "0100", "identity")),
    (CAC_ENCRYPTION, "80420000020102", about(DECRYPT, "CAC", "0102", "encryption 1")),
    (OPENPGP, "002A9E9A020102", about(SIGN, "OpenPGP card", "1", "signature")),
    (OPENPGP, "002A8086020102", about(DECRYPT, "OpenPGP card", "2", "decryption")),
    (OPENPGP, "00880000020102", about(SIGN, "OpenPGP card", "3", "authentication")),
]


@pytest.mark.parametrize(("aid", "command", "question"), KEYS)
async def test_a_person_is_told_which_guest_wants_to_use_which_key(
    aid: str, command: str, question: ConsentRequest
) -> None:
    person = Person()
    guarded, recording = await selected(person, aid)
    assert await send(guarded, command) == 0x9000
    assert recording.commands == [command]
    assert person.requests == [question]


async def test_a_refusal_is_one_event_and_each_use_is_asked_about() -> None:
    person = Person(agrees=False)
    guarded, card = await selected(person)
    with capture_logs() as logs:
        for _ in range(2):
            assert await send(guarded, PIV_SIGNATURE) == 0x6985
    assert not card.received
    assert len(person.requests) == 2
    event = {"event": "guard_refused", "log_level": "warning", "guest": GUEST}
    how = {"instruction": "GENERAL AUTHENTICATE", "key": "9C", "reason": "consent"}
    assert logs == [event | how] * 2


async def test_no_answer_in_time_is_a_refusal(autojump_clock: trio.testing.MockClock) -> None:
    person = Person(after=math.inf)
    guarded, card = await selected(person)
    assert await send(guarded, PIV_SIGNATURE) == 0x6985
    assert trio.current_time() == pytest.approx(CONSENT_TIMEOUT)
    assert not card.received
    assert not person.is_asked


async def test_a_card_that_is_shared_does_not_pass_to_others_meanwhile() -> None:
    events: list[str] = []

    class Shared(RecordingCard):
        @asynccontextmanager
        async def held(self) -> AsyncIterator[None]:
            events.append("held")
            yield
            events.append("let go")

        async def transmit(self, command: bytes) -> bytes:
            events.append(f"INS {command[1]:02X}")
            return await super().transmit(command)

    class Asking(Person):
        async def ask(self, request: ConsentRequest) -> bool:
            events.append("asked")
            return await super().ask(request)

    guarded = Guard(Shared(), Rules(USE, 1, CONFIRMABLE), Guest(GUEST), Asking())
    await guarded.power_on()
    await send(guarded, select(PIV))
    assert await send(guarded, PIV_SIGNATURE) == 0x9000
    assert events == ["INS A4", "held", "asked", "let go", "INS 87"]


async def test_only_what_is_to_be_confirmed_is_asked_about() -> None:
    person = Person()
    guarded, card = await selected(person, confirm=DECRYPT)
    assert await send(guarded, PIV_SIGNATURE) == 0x9000
    assert await send(guarded, "00CB3FFF055C035FC105") == 0x9000
    assert not person.requests
    assert await send(guarded, "0087119D087C06850411223344") == 0x9000
    assert len(person.requests) == 1
    # What the policy forbids is not asked about.
    guarded, card = await selected(person, policy=USE - SIGN)
    assert await send(guarded, PIV_SIGNATURE) == 0x6985
    assert len(person.requests) == 1
    assert not card.received


async def test_a_chain_is_asked_about_once() -> None:
    person = Person()
    guarded, card = await selected(person)
    chain = ["1087079C047C068104", "1087079C021122", "0087079C023344"]
    for part in chain:
        assert await send(guarded, part) == 0x9000
    assert len(person.requests) == 1
    assert card.commands == chain


async def test_a_block_in_pieces_is_asked_about_once() -> None:
    person = Person()
    guarded, card = await selected(person, CAC_IDENTITY)
    for part in ("80428000021122", "80428000023344", "80420000025566"):
        assert not person.requests
        assert await send(guarded, part) == 0x9000
    assert len(person.requests) == 1
    assert len(card.received) == 3


@pytest.mark.parametrize(
    "command",
    [
        # In another class, on another channel, under secure messaging, of an unknown application.
        *("8087119C087C06810411223344", "0187119C087C06810411223344", "0C87119C021122"),
        *("002A9E9A020102", "00880000020102", "80420000020102"),
    ],
)
@pytest.mark.parametrize("aid", [PIV, OTHER])
async def test_whoever_may_manage_does_not_go_round_the_question(aid: str, command: str) -> None:
    person = Person(agrees=False)
    guarded, card = await selected(person, aid, policy=MANAGE)
    assert await send(guarded, command) == 0x6985
    assert not card.received
    assert len(person.requests) == 1


async def test_what_is_selected_on_a_channel_ends_with_the_channel() -> None:
    person = Person()
    guarded, _card = await selected(person, OPENPGP, policy=MANAGE)
    signature = "01" + PIV_SIGNATURE[2:]
    for command in ("0070000001", "01" + select(PIV)[2:], signature, "00708001", signature):
        assert await send(guarded, command) == 0x9000
    assert [request.key for request in person.requests] == ["digital signature", None]
    # The basic one is not concerned.
    assert await send(guarded, "002A9E9A020102") == 0x9000
    assert person.requests[-1].key == "signature"


# In a reader.


class Bench:
    """A reader with a guarded card in slot 0, and another card in slot 1."""

    def __init__(self, nursery: trio.Nursery, person: Person) -> None:
        self.card = RecordingCard()
        rules = Rules(USE, 1, CONFIRMABLE)
        self.slots = [Slot(Guard(self.card, rules, Guest(GUEST), person)), Slot(RecordingCard(), 1)]
        self._answers_in, self.answers = trio.open_memory_channel[Response](1000)
        profile = default_profile(2, "1")
        self.reader = CcidReader(
            self.slots, profile, self._answers_in.send_nowait, announce=lambda: None
        )
        nursery.start_soon(self.reader.run)

    async def answer(self) -> Response:
        return await self.answers.receive()

    async def transfer(self, slot: int, seq: int, command: str) -> Response:
        self.reader.submit(XfrBlock(slot, seq, bytes.fromhex(command), 0, 0))
        return await self.answer()

    async def start(self) -> None:
        """Powers the cards on, and has the guest sign."""
        for slot in (0, 1):
            self.reader.submit(IccPowerOn(slot, 1))
            await self.answer()
        await self.transfer(0, 2, select(PIV))
        self.card.received.clear()
        self.reader.submit(XfrBlock(0, 3, bytes.fromhex(PIV_SIGNATURE), 0, 0))
        await trio.testing.wait_all_tasks_blocked()


async def test_while_a_person_is_asked_time_is_extended_and_other_slots_go_on(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    person = Person(after=3.5)
    bench = Bench(nursery, person)
    await bench.start()
    for seq in range(3):
        extension = await bench.answer()
        assert (extension.slot, extension.command_status) == (0, CommandStatus.TIME_EXTENSION)
        answer = await bench.transfer(1, seq, select(PIV))
        assert isinstance(answer, DataBlock)
        assert answer.data == b"\x90\x00"
        assert person.is_asked
    final = await bench.answer()
    assert isinstance(final, DataBlock)
    assert (final.seq, final.data) == (3, b"\x90\x00")
    assert bench.card.commands == [PIV_SIGNATURE]


@pytest.mark.parametrize("how", ["abort", "removal", "reset"])
async def test_the_question_ends_with_its_command(
    how: str, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    person = Person(after=20)
    bench = Bench(nursery, person)
    await bench.start()
    is_asked = person.is_asked
    assert is_asked
    if how == "abort":
        bench.reader.abort(0, 4)
        bench.reader.submit(Abort(0, 4))
        assert (await bench.answer()).error == SlotError.CMD_ABORTED
    elif how == "removal":
        bench.slots[0].remove()
        assert (await bench.answer()).error == SlotError.ICC_MUTE
    else:
        bench.reader.reset()
    await trio.testing.wait_all_tasks_blocked()
    assert not person.is_asked
    await trio.sleep(60)
    assert not bench.card.received


async def test_the_log_tells_the_slot(nursery: trio.Nursery) -> None:
    slots: list[object] = []

    async def note(_command: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        slots.append(structlog.contextvars.get_contextvars().get("slot"))
        return b"\x90\x00"

    bench = Bench(nursery, Person())
    bench.slots[1].insert(ScriptedCard(note))
    await trio.testing.wait_all_tasks_blocked()
    bench.reader.submit(IccPowerOn(1, 1))
    await bench.answer()
    await bench.transfer(1, 2, "00A40400")
    bench.reader.submit(GetSlotStatus(0, 3))
    assert slots == [1]
    assert "slot" not in structlog.contextvars.get_contextvars()
