# SPDX-License-Identifier: Apache-2.0
import json
import math

import pytest
import structlog
import trio
import trio.testing
from structlog.testing import capture_logs

from cards import transmit
from ccid_host import Host
from ccid_protocol.apdu import CommandAPDU, Instruction, ResponseAPDU, StatusWord
from ccid_protocol.ccid import XfrBlock
from ccidd.card.guard.consent import CONSENT_TIMEOUT, Consent, ConsentRequest
from ccidd.card.guard.guard import Guard
from ccidd.card.guard.guest import Guest
from ccidd.card.guard.operations import Operation
from ccidd.errors import UserError
from ccidd.reader.pinentry.source import NoPin, PinEntry, Pins, PinSource
from ccidd.reader.profile import Level, default_profile
from ccidd.reader.slot import Slot
from ccidd.service.events import JSON, Events
from ccidd.service.guards import protector
from ccidd.service.options import parse_card, parse_reader
from ccidd.service.readers import Pinentries, pin_source
from ccidd.service.requests import AgentConsent, AgentPins, Requests
from pin_requests import OTHER_PIN, PIN, modification, verification
from recording_card import RecordingCard

GUEST = "guest win11"


class Told(Events):
    """Writes down what is told."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, dict[str, JSON]]] = []

    def emit(self, name: str, **data: JSON) -> None:
        super().emit(name, **data)
        # What is told crosses a socket.
        json.dumps(data, allow_nan=False)
        self.events.append((name, data))

    @property
    def endings(self) -> list[JSON]:
        return [data["reason"] for name, data in self.events if name == "REQUEST_ENDED"]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def requests(told: Told) -> Requests:
    return Requests(told)


@pytest.fixture
def pins(requests: Requests) -> PinSource:
    return AgentPins(requests, "alice", Guest(GUEST))


@pytest.fixture
def consent(requests: Requests) -> Consent:
    return AgentConsent(requests, "alice")


def signing(timeout: float = 30) -> ConsentRequest:
    return ConsentRequest(
        guest=GUEST,
        card="PIV card",
        operations=frozenset({Operation.SIGN}),
        reference="9C",
        key="digital signature",
        timeout=timeout,
    )


def entered(text: str) -> bytearray:
    return bytearray(text.encode())


class Asking:
    """A question that waits in the background."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.answer: PinEntry | bool | None = None

    async def pin(self, source: PinSource, request: object = None) -> None:
        with self.scope:
            self.answer = await source.ask(request or verification())  # type: ignore[arg-type]

    async def consent(self, consent: Consent) -> None:
        with self.scope:
            self.answer = await consent.ask(signing())


# What an agent is told.


async def test_an_agent_is_told_who_asks_for_which_pin(
    requests: Requests, pins: PinSource, told: Told, autojump_clock: trio.testing.MockClock
) -> None:
    with requests.agent():
        assert await pins.ask(verification(timeout=20)) is NoPin.TIMED_OUT
    assert told.events == [
        (
            "PIN_REQUESTED",
            {
                "id": 1,
                "kind": "pin",
                "reader": "alice",
                "slot": 1,
                "guest": GUEST,
                "card": "card A",
                "purpose": "verify",
                "min-digits": 4,
                "max-digits": 8,
                "text": "guest win11 asks for the PIN of card A,\n"
                "in slot 1 of the reader alice.\nIt has 4 to 8 digits.",
                "timeout": 20,
            },
        ),
        ("REQUEST_ENDED", {"id": 1, "reason": "timed-out"}),
    ]


async def test_an_agent_is_told_what_a_change_of_pin_needs(
    requests: Requests, pins: PinSource, told: Told, autojump_clock: trio.testing.MockClock
) -> None:
    with requests.agent():
        for current in (True, False):
            await pins.ask(modification(current=current, confirms=not current))
    wanted = [
        (data["purpose"], data["asks-current"], data["confirms"])
        for name, data in told.events
        if name == "PIN_REQUESTED"
    ]
    assert wanted == [("change", True, False), ("change", False, True)]


async def test_an_agent_is_told_what_a_guest_wants_to_do(
    requests: Requests, consent: Consent, told: Told, autojump_clock: trio.testing.MockClock
) -> None:
    structlog.contextvars.bind_contextvars(slot=3)
    with requests.agent():
        assert not await consent.ask(signing())
    assert told.events == [
        (
            "CONSENT_REQUESTED",
            {
                "id": 1,
                "kind": "consent",
                "reader": "alice",
                "slot": 3,
                "guest": GUEST,
                "card": "PIV card",
                "operations": ["sign"],
                "reference": "9C",
                "key": "digital signature",
                "text": "guest win11 asks to sign\nwith the digital signature key (9C)\n"
                "of the PIV card in slot 3 of the reader alice.",
                "timeout": 30,
            },
        ),
        ("REQUEST_ENDED", {"id": 1, "reason": "timed-out"}),
    ]


async def test_what_waits_is_listed_with_the_time_that_is_left(
    requests: Requests,
    pins: PinSource,
    consent: Consent,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    with requests.agent():
        nursery.start_soon(Asking().pin, pins)
        await trio.sleep(12)
        nursery.start_soon(Asking().consent, consent)
        await trio.sleep(8)
        first, second = requests.pending()
        assert (first["id"], first["kind"], first["timeout"]) == (1, "pin", 40)
        assert (second["id"], second["kind"], second["timeout"]) == (2, "consent", 22)
        await trio.sleep(30)
        assert [each["id"] for each in requests.pending()] == [1]
        nursery.cancel_scope.cancel()


# Answers.


async def asked(nursery: trio.Nursery, source: PinSource, request: object = None) -> Asking:
    asking = Asking()
    nursery.start_soon(asking.pin, source, request)
    await trio.testing.wait_all_tasks_blocked()
    return asking


async def test_a_pin_goes_to_whoever_asked_and_is_wiped(
    requests: Requests, pins: PinSource, told: Told, nursery: trio.Nursery
) -> None:
    with requests.agent(), capture_logs() as logs:
        asking = await asked(nursery, pins)
        pin = entered(PIN)
        requests.answer(1, pin=pin)
        assert requests.pending() == []
        await trio.testing.wait_all_tasks_blocked()
    assert asking.answer == Pins(current=PIN.encode())
    assert pin == bytes(len(PIN))
    assert told.endings == ["answered"]
    assert PIN not in f"{told.events}{logs}{asking.answer}"


@pytest.mark.parametrize("current", [True, False])
async def test_a_change_of_pin_has_both_or_the_new_one(
    requests: Requests, pins: PinSource, nursery: trio.Nursery, *, current: bool
) -> None:
    with requests.agent():
        asking = await asked(nursery, pins, modification(current=current))
        pin, new_pin = entered(PIN) if current else None, entered(OTHER_PIN)
        requests.answer(1, pin=pin, new_pin=new_pin)
        await trio.testing.wait_all_tasks_blocked()
    assert asking.answer == Pins(PIN.encode() if current else None, OTHER_PIN.encode())
    assert not any(new_pin)
    assert not any(pin or b"")


async def test_a_pin_may_be_refused(
    requests: Requests, pins: PinSource, told: Told, nursery: trio.Nursery
) -> None:
    with requests.agent():
        asking = await asked(nursery, pins)
        requests.answer(1, allow=False)
        await trio.testing.wait_all_tasks_blocked()
    assert asking.answer is NoPin.CANCELLED
    assert told.endings == ["refused"]


@pytest.mark.parametrize(("allow", "ending"), [(True, "answered"), (False, "refused")])
async def test_a_person_agrees_or_not(
    requests: Requests,
    consent: Consent,
    told: Told,
    nursery: trio.Nursery,
    *,
    allow: bool,
    ending: str,
) -> None:
    asking = Asking()
    with requests.agent():
        nursery.start_soon(asking.consent, consent)
        await trio.testing.wait_all_tasks_blocked()
        requests.answer(1, allow=allow)
        await trio.testing.wait_all_tasks_blocked()
    assert asking.answer is allow
    assert told.endings == [ending]


@pytest.mark.parametrize(
    ("request_", "answer", "message"),
    [
        (verification(), {}, "is for a PIN: answer it with pin, or allow=false"),
        (verification(), {"allow": True}, "answer it with pin, or allow=false"),
        (verification(), {"pin": PIN, "allow": True}, "answer it with pin, or allow=false"),
        (verification(), {"pin": PIN, "allow": False}, "answer it with pin, or allow=false"),
        (verification(), {"pin": PIN, "new_pin": PIN}, "answer it with pin, or allow=false"),
        (verification(), {"pin": "123"}, "is for a PIN of 4 to 8 digits"),
        (verification(), {"pin": "12345x"}, "is for a PIN of 4 to 8 digits"),
        (verification(), {"pin": "١٢٣٤"}, "is for a PIN of 4 to 8 digits"),
        (verification(), {"pin": ""}, "is for a PIN of 4 to 8 digits"),
        (modification(), {"pin": PIN}, "answer it with pin and new-pin, or allow=false"),
        (modification(), {"pin": PIN, "new_pin": "1"}, "is for a PIN of 4 to 8 digits"),
        (modification(current=False), {"pin": PIN, "new_pin": PIN}, "answer it with new-pin, or"),
        (None, {}, "is for consent: answer it with allow"),
        (None, {"pin": PIN}, "is for consent: answer it with allow"),
        (None, {"pin": PIN, "allow": True}, "is for consent: answer it with allow"),
    ],
)
async def test_what_is_no_answer_to_a_question_leaves_it_waiting(
    requests: Requests,
    pins: PinSource,
    consent: Consent,
    told: Told,
    nursery: trio.Nursery,
    *,
    request_: object,
    answer: dict[str, str | bool],
    message: str,
) -> None:
    given = {
        name: entered(value) if isinstance(value, str) else value for name, value in answer.items()
    }
    with requests.agent():
        if request_ is None:
            nursery.start_soon(Asking().consent, consent)
        else:
            nursery.start_soon(Asking().pin, pins, request_)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(UserError) as refused:
            requests.answer(1, **given)  # type: ignore[arg-type]
        assert message in str(refused.value)
        assert PIN not in str(refused.value)
        assert not any(any(value) for value in given.values() if isinstance(value, bytearray))
        await trio.testing.wait_all_tasks_blocked()
        assert len(requests.pending()) == 1
        assert told.endings == []
        nursery.cancel_scope.cancel()


async def test_of_two_agents_the_first_is_heard(
    requests: Requests, pins: PinSource, told: Told, nursery: trio.Nursery
) -> None:
    with requests.agent(), requests.agent():
        asking = await asked(nursery, pins)
        requests.answer(1, pin=entered(PIN))
        late = entered(OTHER_PIN)
        with pytest.raises(UserError, match="the request 1 has ended"):
            requests.answer(1, pin=late)
        await trio.testing.wait_all_tasks_blocked()
    assert asking.answer == Pins(current=PIN.encode())
    assert late == bytes(len(OTHER_PIN))
    assert told.endings == ["answered"]


@pytest.mark.parametrize("number", [-1, 0, 2])
async def test_a_question_that_never_was_cannot_be_answered(
    requests: Requests, pins: PinSource, nursery: trio.Nursery, number: int
) -> None:
    with requests.agent():
        await asked(nursery, pins)
        with pytest.raises(UserError, match=f"there is no request {number}"):
            requests.answer(number, allow=False)
        nursery.cancel_scope.cancel()


# Questions that end without an answer.


async def test_a_guest_that_gives_up_ends_its_question(
    requests: Requests, pins: PinSource, told: Told, nursery: trio.Nursery
) -> None:
    with requests.agent():
        asking = await asked(nursery, pins)
        asking.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert told.endings == ["cancelled"]
        assert requests.pending() == []
        with pytest.raises(UserError, match="the request 1 has ended"):
            requests.answer(1, pin=entered(PIN))


async def test_an_answer_that_nobody_takes_any_more_is_wiped(
    requests: Requests, pins: PinSource, nursery: trio.Nursery
) -> None:
    with requests.agent():
        asking = await asked(nursery, pins)
        pin = entered(PIN)
        requests.answer(1, pin=pin)
        asking.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
    assert asking.answer in {None, Pins(current=PIN.encode())}
    assert pin == bytes(len(PIN))


async def test_whoever_asks_may_have_less_patience(
    requests: Requests, consent: Consent, told: Told, autojump_clock: trio.testing.MockClock
) -> None:
    with requests.agent(), trio.move_on_after(5):
        await consent.ask(signing(timeout=10))
    assert [data.get("timeout") for _name, data in told.events] == [5, None]
    assert told.endings == ["timed-out"]


@pytest.mark.parametrize("seconds", [math.inf, 60.0])
async def test_without_an_agent_nobody_waits(
    requests: Requests, pins: PinSource, consent: Consent, told: Told, seconds: float
) -> None:
    with requests.agent():
        pass
    with capture_logs() as logs:
        assert await pins.ask(verification(seconds)) is NoPin.CANCELLED
        assert not await consent.ask(signing(seconds))
    assert [event["event"] for event in logs] == ["pin_not_entered", "consent_not_given"]
    for event in logs:
        assert event["log_level"] == "warning"
        assert event["reason"] == (
            "no agent is connected to the control socket; start one with `ccidctl agent`"
        )
    assert told.events == []


async def test_the_last_agent_to_go_ends_what_waits(
    requests: Requests, pins: PinSource, told: Told, nursery: trio.Nursery
) -> None:
    with requests.agent():
        with requests.agent():
            asking = await asked(nursery, pins)
        await trio.testing.wait_all_tasks_blocked()
        assert len(requests.pending()) == 1
    await trio.testing.wait_all_tasks_blocked()
    assert asking.answer is NoPin.CANCELLED
    assert told.endings == ["no-agent"]


# Where they are used.


async def test_a_reader_has_its_pins_entered_at_an_agent(pins: PinSource) -> None:
    options = parse_reader("pin-entry=agent")
    assert pin_source(options, Pinentries(), pins) is pins
    assert pins.can_modify
    with pytest.raises(UserError, match="there is no program agent"):
        pin_source(options, Pinentries())


SIGN = CommandAPDU(0, Instruction.GENERAL_AUTHENTICATE, 0x11, 0x9C, bytes(40), 256)


async def guarded(consent: Consent) -> tuple[Guard, RecordingCard]:
    options = parse_card("piv,card=a,confirm=sign,confirm-with=agent")
    card = RecordingCard()
    guard = protector(options, Guest(GUEST), Pinentries(), consent).protect(card)
    assert isinstance(guard, Guard)
    await guard.power_on()
    select = CommandAPDU(0, Instruction.SELECT, 4, 0, bytes.fromhex("A000000308"), 256)
    assert (await transmit(guard, select)).sw == StatusWord.SUCCESS
    return guard, card


@pytest.mark.parametrize("allow", [True, False])
async def test_a_guard_asks_through_an_agent(
    requests: Requests, consent: Consent, told: Told, nursery: trio.Nursery, *, allow: bool
) -> None:
    guard, _card = await guarded(consent)
    responses: list[ResponseAPDU] = []

    async def sign() -> None:
        responses.append(await transmit(guard, SIGN))

    with requests.agent():
        nursery.start_soon(sign)
        await trio.testing.wait_all_tasks_blocked()
        requests.answer(1, allow=allow)
        await trio.testing.wait_all_tasks_blocked()
    (response,) = responses
    assert (response.sw == StatusWord.CONDITIONS_NOT_SATISFIED) is not allow
    assert told.events[0][1]["guest"] == GUEST


async def test_a_guard_takes_silence_for_a_refusal(
    requests: Requests, consent: Consent, told: Told, autojump_clock: trio.testing.MockClock
) -> None:
    guard, _card = await guarded(consent)
    with requests.agent():
        began = trio.current_time()
        response = await transmit(guard, SIGN)
    assert response.sw == StatusWord.CONDITIONS_NOT_SATISFIED
    assert trio.current_time() - began == CONSENT_TIMEOUT
    assert told.endings == ["timed-out"]


async def test_the_question_names_the_slot_of_the_card(
    requests: Requests, consent: Consent, nursery: trio.Nursery
) -> None:
    guard, _card = await guarded(consent)
    slots = [Slot(index=0), Slot(guard, index=1)]
    host = Host(slots, default_profile(2, "1", Level.EXTENDED_APDU))
    nursery.start_soon(host.reader.run)
    await trio.testing.wait_all_tasks_blocked()
    select = CommandAPDU(0, Instruction.SELECT, 4, 0, bytes.fromhex("A000000308"), 256)
    await host.power_on(slot=1)
    await host.ask(XfrBlock, select.encode(), 0, 0, slot=1)
    with requests.agent():
        host.send(XfrBlock, SIGN.encode(), 0, 0, slot=1)
        await trio.testing.wait_all_tasks_blocked()
        assert [request["slot"] for request in requests.pending()] == [1]
        nursery.cancel_scope.cancel()
