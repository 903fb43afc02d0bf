# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping

import pytest
import trio
import trio.testing

from ccid_protocol.qmp import JSON
from ccidd.card.guard.consent import ConsentRequest
from ccidd.card.guard.guest import Guest
from ccidd.card.guard.operations import CONFIRMABLE
from ccidd.reader.pinentry.source import EntryRequest, NoPin, PinEntry, Pins
from ccidd.service.control.roles import NAMES
from ccidd.service.requests import AgentConsent, AgentPins, Requests
from ccidd.service.service import Service
from ccidd.service.state import State
from control_client import CommandFailedError, ControlClient, controlled
from pin_requests import OTHER_PIN, PIN, modification, verification

CONSENT = ConsentRequest(
    guest="guest win11", card="PIV card", operations=CONFIRMABLE, reference=None, key=None
)


class Asking:
    """Something that asks in the background."""

    def __init__(self, requests: Requests) -> None:
        self._pins = AgentPins(requests, "alice", Guest("guest win11"))
        self._consent = AgentConsent(requests, "alice")
        self.answers: list[PinEntry | bool] = []

    async def pin(self, request: EntryRequest) -> None:
        self.answers.append(await self._pins.ask(request))

    async def consent(self) -> None:
        self.answers.append(await self._consent.ask(CONSENT))


@pytest.fixture
def asking(service: Service) -> Asking:
    return Asking(service.requests)


async def ended(agent: ControlClient) -> str:
    reason = (await agent.event("REQUEST_ENDED"))["reason"]
    await trio.testing.wait_all_tasks_blocked()
    return f"{reason}"


@pytest.mark.parametrize(
    ("request_", "arguments", "answer"),
    [
        (verification(), {"pin": PIN}, Pins(PIN.encode())),
        (verification(), {"allow": False}, NoPin.CANCELLED),
        (
            modification(),
            {"pin": PIN, "new-pin": OTHER_PIN},
            Pins(PIN.encode(), OTHER_PIN.encode()),
        ),
        (None, {"allow": True}, True),
        (None, {"allow": False}, False),
    ],
)
async def test_an_agent_answers_what_is_asked(
    service: Service,
    state: State,
    asking: Asking,
    nursery: trio.Nursery,
    *,
    request_: EntryRequest | None,
    arguments: Mapping[str, JSON],
    answer: PinEntry | bool,
) -> None:
    async with controlled(service, state, NAMES["agent"]) as clients:
        agent = clients.new()
        await agent.begin("agent")
        if request_ is None:
            nursery.start_soon(asking.consent)
            name = "CONSENT_REQUESTED"
        else:
            nursery.start_soon(asking.pin, request_)
            name = "PIN_REQUESTED"
        told = await agent.event(name)
        (listed,) = await agent.query("query-requests")
        assert {**listed, "timeout": told["timeout"]} == told
        assert await agent.execute_with("answer-request", {"id": told["id"], **arguments}) == {}
        assert await ended(agent) == ("refused" if arguments.get("allow") is False else "answered")
        assert asking.answers == [answer]
        assert await agent.query("query-requests") == []


async def test_an_answer_that_is_none_is_refused_without_its_pin(
    service: Service, state: State, asking: Asking, nursery: trio.Nursery
) -> None:
    async with controlled(service, state) as clients:
        agent = clients.new()
        await agent.begin("agent")
        nursery.start_soon(asking.pin, verification(most=5))
        told = await agent.event("PIN_REQUESTED")
        for number in (told["id"], 99):
            with pytest.raises(CommandFailedError) as failed:
                await agent.execute("answer-request", id=number, pin=PIN)
            assert PIN not in str(failed.value)
        assert len(await agent.query("query-requests")) == 1
        nursery.cancel_scope.cancel()


async def test_who_has_not_said_to_be_an_agent_is_none(
    service: Service, state: State, asking: Asking
) -> None:
    async with controlled(service, state) as clients:
        await clients.begun()
        await asking.pin(verification())
    assert asking.answers == [NoPin.CANCELLED]


async def test_an_agent_that_goes_ends_what_is_asked(
    service: Service, state: State, asking: Asking, nursery: trio.Nursery
) -> None:
    async with controlled(service, state) as clients:
        watcher = await clients.begun()
        agent = clients.new()
        await agent.begin("agent")
        nursery.start_soon(asking.pin, verification())
        await agent.event("PIN_REQUESTED")
        await agent.stream.aclose()
        assert await ended(watcher) == "no-agent"
    assert asking.answers == [NoPin.CANCELLED]


async def test_who_observes_sees_what_is_asked_and_answers_nothing(
    service: Service, state: State, asking: Asking, nursery: trio.Nursery
) -> None:
    async with controlled(service, state, NAMES["operate"]) as clients:
        observer = await clients.begun()
        with service.requests.agent():
            nursery.start_soon(asking.pin, verification())
            told = await observer.event("PIN_REQUESTED")
            assert len(await observer.query("query-requests")) == 1
            with pytest.raises(CommandFailedError, match="answer-request is not for this socket"):
                await observer.execute("answer-request", id=told["id"], allow=False)
            nursery.cancel_scope.cancel()
