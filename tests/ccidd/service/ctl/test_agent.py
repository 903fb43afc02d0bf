# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from ccid_protocol.qmp import JSON, Error
from ccidd.card.guard.consent import ConsentRequest
from ccidd.card.guard.guest import Guest
from ccidd.card.guard.operations import Operation
from ccidd.errors import UserError
from ccidd.reader.pinentry.program import Pinentry
from ccidd.reader.pinentry.source import EntryRequest, ModificationRequest, NoPin, PinEntry, Pins
from ccidd.service.ctl.agent import Agent
from ccidd.service.ctl.client import DisconnectedError
from ccidd.service.events import Events
from ccidd.service.requests import AgentConsent, AgentPins, Requests
from pin_requests import OTHER_PIN, PIN, modification, verification
from scripted_control import ScriptedControl, connected_to
from scripted_pinentry import Act, ScriptedPinentry, Types

ENTERED = Pins(current=PIN.encode())
CHANGED = Pins(PIN.encode(), OTHER_PIN.encode())


class Person:
    """Answers what comes; without an answer it waits.

    Attributes:
        asked: what was asked.
        open: how many questions are open at this moment.
    """

    def __init__(self, *answers: PinEntry | bool) -> None:
        self._answers = list(answers)
        self.asked: list[EntryRequest | str] = []
        self.seconds: list[float] = []
        self.open = 0

    async def ask(self, request: EntryRequest) -> PinEntry:
        self.seconds.append(request.timeout)
        answer = await self._answer(request)
        assert not isinstance(answer, bool)
        return answer

    async def confirm(self, text: str, seconds: float) -> bool:
        self.seconds.append(seconds)
        answer = await self._answer(text)
        assert isinstance(answer, bool)
        return answer

    async def _answer(self, asked: EntryRequest | str) -> PinEntry | bool:
        self.asked.append(asked)
        self.open += 1
        try:
            if not self._answers:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
            return self._answers.pop(0)
        finally:
            self.open -= 1


class Asking:
    """A ccidd whose readers ask: its questions, behind a server whose answers are a script."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.events = Events()
        self.requests = Requests(self.events)
        self.control = ScriptedControl()
        self.control.functions["query-requests"] = lambda _arguments: self.requests.pending()
        self.control.functions["answer-request"] = self._answer
        self.answers: list[PinEntry | bool] = []
        self.told: list[str] = []
        self.failure: UserError | None = None

    def _answer(self, arguments: Mapping[str, JSON]) -> JSON | Error:
        number, allow = arguments["id"], arguments.get("allow")
        assert isinstance(number, int)
        assert allow is None or isinstance(allow, bool)
        pin, new_pin = (
            bytearray(f"{arguments[name]}".encode()) if name in arguments else None
            for name in ("pin", "new-pin")
        )
        try:
            self.requests.answer(number, pin=pin, new_pin=new_pin, allow=allow)
        except UserError as error:
            return Error("GenericError", f"{error}")
        return {}

    async def tell(self) -> None:
        with self.events.subscribe() as subscription:
            while True:
                event = await subscription.next()
                await self.control.emit(event.name, **event.data)

    async def serve(self, person: Person | Pinentry) -> None:
        """Has an agent answer."""
        with self.requests.agent():
            async with connected_to(self.control, as_agent=True) as client:
                try:
                    await Agent(client, person, self.told.append).run()
                except UserError as error:
                    self.failure = error

    async def pin(self, request: EntryRequest) -> None:
        source = AgentPins(self.requests, "alice", Guest("guest win11"))
        self.answers.append(await source.ask(request))

    async def consent(self) -> None:
        request = ConsentRequest(
            guest="guest win11",
            card="PIV card",
            operations=frozenset({Operation.SIGN}),
            reference="9C",
            key=None,
        )
        self.answers.append(await AgentConsent(self.requests, "alice").ask(request))


@pytest.fixture
async def asking(nursery: trio.Nursery) -> Asking:
    asking = Asking(nursery)
    nursery.start_soon(asking.tell)
    return asking


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize(
    ("request_", "person", "answer"),
    [
        (verification(), [ENTERED], ENTERED),
        (verification(), [NoPin.CANCELLED], NoPin.CANCELLED),
        (modification(), [CHANGED], CHANGED),
        (modification(current=False), [Pins(new=PIN.encode())], Pins(new=PIN.encode())),
        (modification(), [NoPin.MISMATCH, CHANGED], CHANGED),
        (modification(), [NoPin.MISMATCH] * 3, NoPin.CANCELLED),
        (None, [True], True),
        (None, [False], False),
    ],
)
@pytest.mark.parametrize("waits", [True, False])
async def test_a_persons_answer_reaches_whoever_asked(
    asking: Asking,
    nursery: trio.Nursery,
    *,
    request_: EntryRequest | None,
    person: list[PinEntry | bool],
    answer: PinEntry | bool,
    waits: bool,
) -> None:
    """The question was there before the agent, or comes later."""
    with ExitStack() as stack:
        if waits:
            stack.enter_context(asking.requests.agent())
        else:
            nursery.start_soon(asking.serve, Person(*person))
            await settled()
        if request_ is None:
            nursery.start_soon(asking.consent)
        else:
            nursery.start_soon(asking.pin, request_)
        await settled()
        if waits:
            nursery.start_soon(asking.serve, Person(*person))
            await settled()
        assert asking.answers == [answer]
        assert asking.told == []
        nursery.cancel_scope.cancel()


async def test_a_person_is_told_who_asks_for_what(asking: Asking, nursery: trio.Nursery) -> None:
    person = Person()
    nursery.start_soon(asking.serve, person)
    await settled()
    nursery.start_soon(asking.pin, modification(confirms=False))
    await settled()
    nursery.start_soon(asking.consent)
    await settled()
    entry, text = person.asked
    assert isinstance(entry, ModificationRequest)
    assert (entry.guest, entry.reader, entry.slot) == ("guest win11", "the reader alice", 1)
    assert (entry.card, entry.min_digits, entry.max_digits) == ("card A", 4, 8)
    assert entry.asks_current
    assert not entry.confirms
    assert text == (
        "guest win11 asks to sign\nwith the key 9C\nof the PIV card in slot 0 of the reader alice."
    )
    # It is ccidd whose time counts.
    assert all(60 <= second <= 61 for second in person.seconds[:1])
    assert all(30 <= second <= 31 for second in person.seconds[1:])
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("allow", [None, False])
async def test_a_question_that_ends_elsewhere_is_closed(
    asking: Asking, nursery: trio.Nursery, *, allow: bool | None
) -> None:
    person = Person()
    nursery.start_soon(asking.serve, person)
    await settled()
    guest = trio.CancelScope()

    async def ask() -> None:
        with guest:
            await asking.pin(verification())

    nursery.start_soon(ask)
    await settled()
    assert person.open == 1
    if allow is None:
        guest.cancel()
    else:
        asking.requests.answer(1, allow=allow)
    await settled()
    assert person.open == 0
    reason = "cancelled" if allow is None else "refused"
    assert asking.told == [f"the request has ended: {reason}"]
    nursery.cancel_scope.cancel()


async def test_a_question_that_is_out_of_time_is_closed_by_ccidd(
    asking: Asking, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    person = Person()
    nursery.start_soon(asking.serve, person)
    await settled()
    await asking.pin(verification(timeout=10))
    await trio.sleep(0.1)
    assert asking.answers == [NoPin.TIMED_OUT]
    assert person.open == 0
    assert asking.told == ["the request has ended: timed-out"]
    nursery.cancel_scope.cancel()


async def test_of_two_agents_the_second_hears_that_it_is_over(
    asking: Asking, nursery: trio.Nursery
) -> None:
    slow = Person()
    nursery.start_soon(asking.serve, slow)
    await settled()
    nursery.start_soon(asking.serve, Person(ENTERED))
    await settled()
    nursery.start_soon(asking.pin, verification())
    await settled()
    assert asking.answers == [ENTERED]
    assert slow.open == 0
    assert asking.told == ["the request has ended: answered"]
    nursery.cancel_scope.cancel()


async def test_a_connection_that_ends_closes_what_is_open(
    asking: Asking, nursery: trio.Nursery
) -> None:
    person = Person()
    nursery.start_soon(asking.serve, person)
    await settled()
    nursery.start_soon(asking.pin, verification())
    await settled()
    assert person.open == 1
    await asking.control.hang_up()
    await settled()
    assert person.open == 0
    assert isinstance(asking.failure, DisconnectedError)
    assert asking.answers == [NoPin.CANCELLED]
    nursery.cancel_scope.cancel()


# Through a pinentry.


async def test_a_pinentry_shows_who_asks_and_closes_when_that_ends(
    asking: Asking, nursery: trio.Nursery
) -> None:
    scripted = ScriptedPinentry(nursery, [Types(PIN), Act.ALLOWS, Act.WAITS])
    nursery.start_soon(asking.serve, Pinentry("scripted", scripted.open))
    await settled()
    await asking.pin(verification())
    await asking.consent()
    nursery.start_soon(asking.pin, verification())
    await settled()
    assert asking.answers == [ENTERED, True]
    assert [text.split("\n")[0] for text in scripted.arguments("SETDESC")] == [
        "guest win11 asks for the PIN of card A,",
        "guest win11 asks to sign",
        "guest win11 asks for the PIN of card A,",
    ]
    assert scripted.open_windows == 1
    asking.requests.answer(3, allow=False)
    await settled()
    assert scripted.open_windows == 0
    nursery.cancel_scope.cancel()


async def test_an_answer_that_ccidd_does_not_take_is_told(nursery: trio.Nursery) -> None:
    asking = Asking(nursery)
    nursery.start_soon(asking.tell)
    asking.control.functions["answer-request"] = lambda _: Error("GenericError", "not now")
    nursery.start_soon(asking.serve, Person(ENTERED))
    await settled()
    nursery.start_soon(asking.pin, verification())
    await settled()
    assert asking.told == ["ccidd did not take the answer: not now"]
    nursery.cancel_scope.cancel()


async def test_a_ccidd_that_is_not_understood_ends_it(
    asking: Asking, nursery: trio.Nursery
) -> None:
    asking.control.functions["query-requests"] = lambda _: ["what is this"]
    await asking.serve(Person())
    assert "use its own version" in str(asking.failure)
    nursery.cancel_scope.cancel()
