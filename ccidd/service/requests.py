# SPDX-License-Identifier: Apache-2.0
"""Questions that wait for an agent: a program in a person's session, at the control socket.

A reader whose PINs are entered at an agent (`--reader=pin-entry=agent`), and a guard that asks
through one (`confirm-with=agent`), put their questions here. The control socket tells of them
(PIN_REQUESTED, CONSENT_REQUESTED, REQUEST_ENDED), lists them (query-requests), and brings the
answers (answer-request). The first answer counts. A question whose guest has given up is no more,
and while no agent is connected none is put: it is answered at once as if the person had refused.

A PIN is here in bytearrays alone, and only from its answer until whoever asked has taken it.
"""

import contextlib
import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, final

import structlog
import trio

from ccidd.card.guard.consent import Consent, ConsentRequest
from ccidd.card.guard.guest import Guest
from ccidd.errors import UserError
from ccidd.reader.pinentry import consent, dialogue
from ccidd.reader.pinentry.source import (
    EntryRequest,
    ModificationRequest,
    NoPin,
    PinEntry,
    Pins,
    PinSource,
)
from ccidd.service.events import JSON, Events

log: structlog.stdlib.BoundLogger = structlog.get_logger()

AGENT: Final = "agent"
"""What stands for an agent where the name of a pinentry may stand."""

_NO_AGENT: Final = "no agent is connected to the control socket; start one with `ccidctl agent`"


class Reason(enum.StrEnum):
    """Why a question has ended."""

    ANSWERED = "answered"
    REFUSED = "refused"
    TIMED_OUT = "timed-out"
    CANCELLED = "cancelled"
    """By the guest, or because the card or the connection went."""
    NO_AGENT = "no-agent"
    """The last agent has gone."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an agent answers; one of its parts, or both PINs."""

    pin: bytearray | None = field(default=None, repr=False)
    new_pin: bytearray | None = field(default=None, repr=False)
    allow: bool | None = None

    @property
    def pins(self) -> dict[str, bytearray]:
        """The PINs, by their names in answer-request."""
        named = {"pin": self.pin, "new-pin": self.new_pin}
        return {name: pin for name, pin in named.items() if pin is not None}

    def wipe(self) -> None:
        """Overwrites the PINs."""
        for pin in self.pins.values():
            pin[:] = bytes(len(pin))


class _Question(ABC):
    """A question that waits.

    Args:
        number: names it.
        timeout: seconds that the person has.

    Attributes:
        reason: why it has ended.
    """

    event: str

    def __init__(self, number: int, timeout: float) -> None:
        self.number: Final = number
        # Whoever asks may have less patience than the question says.
        ours = trio.current_time() + timeout
        self.deadline: Final = min(ours, trio.current_effective_deadline())
        self.reason: Reason | None = None
        self.ended: Final = trio.Event()

    @abstractmethod
    def content(self) -> dict[str, JSON]:
        """Gives what is asked."""

    @abstractmethod
    def take(self, answer: _Answer) -> Reason:
        """Takes an answer.

        Raises:
            UserError: It is none to this question, which goes on.
        """

    @final
    def description(self) -> dict[str, JSON]:
        """Gives all that an agent needs to know; `timeout` is what is left of it."""
        left = max(0.0, self.deadline - trio.current_time())
        return {"id": self.number, **self.content(), "timeout": round(left, 3)}


class _ConsentQuestion(_Question):
    """May a guest use a key?"""

    event = "CONSENT_REQUESTED"

    def __init__(self, number: int, reader: str, request: ConsentRequest) -> None:
        super().__init__(number, request.timeout)
        self._reader = reader
        self._request = request
        # Bound by the slot for the log. QEMU's own reader has one slot.
        self._slot: int = structlog.contextvars.get_contextvars().get("slot", 0)

    def content(self) -> dict[str, JSON]:
        request = self._request
        key = {"reference": request.reference, "key": request.key}
        return {
            "kind": "consent",
            "reader": self._reader,
            "slot": self._slot,
            "guest": request.guest,
            "card": request.card,
            "operations": sorted(request.operations),
            **{name: value for name, value in key.items() if value is not None},
            "text": f"{consent.describe(request).removesuffix('.')}"
            f" in slot {self._slot} of the reader {self._reader}.",
        }

    def take(self, answer: _Answer) -> Reason:
        if answer.pins or answer.allow is None:
            raise UserError(f"the request {self.number} is for consent: answer it with allow")
        return Reason.ANSWERED if answer.allow else Reason.REFUSED


class _PinQuestion(_Question):
    """What is the PIN?"""

    event = "PIN_REQUESTED"

    def __init__(self, number: int, reader: str, request: EntryRequest) -> None:
        super().__init__(number, request.timeout)
        self._reader = reader
        self._request = request
        self._answer = _Answer()

    def content(self) -> dict[str, JSON]:
        request = self._request
        content: dict[str, JSON] = {
            "kind": "pin",
            "reader": self._reader,
            "slot": request.slot,
            "guest": request.guest,
            "card": request.card,
            "purpose": "verify",
            "min-digits": request.min_digits,
            "max-digits": request.max_digits,
            "text": dialogue.describe(request),
        }
        if isinstance(request, ModificationRequest):
            content["purpose"] = "change"
            content["asks-current"] = request.asks_current
            content["confirms"] = request.confirms
        return content

    def take(self, answer: _Answer) -> Reason:
        if answer.allow is False and not answer.pins:
            return Reason.REFUSED
        asked = self._asked()
        if answer.allow is not None or answer.pins.keys() != asked:
            raise UserError(
                f"the request {self.number} is for a PIN: answer it with"
                f" {' and '.join(sorted(asked, reverse=True))}, or allow=false"
            )
        if not all(map(self._request.accepts, answer.pins.values())):
            raise UserError(
                f"the request {self.number} is for a PIN of {dialogue.digits(self._request)}"
            )
        self._answer = answer
        return Reason.ANSWERED

    def _asked(self) -> set[str]:
        if not isinstance(self._request, ModificationRequest):
            return {"pin"}
        return {"pin", "new-pin"} if self._request.asks_current else {"new-pin"}

    def take_pins(self) -> Pins:
        """Gives what was entered, once."""
        answer, self._answer = self._answer, _Answer()
        current, new = (None if pin is None else bytes(pin) for pin in (answer.pin, answer.new_pin))
        answer.wipe()
        return Pins(current, new)

    def forget(self) -> None:
        """Forgets what was entered."""
        self._answer.wipe()


class Requests:
    """The questions of all readers that wait for an agent.

    Args:
        events: tell of those that come and end.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._agents = 0
        self._last_number = 0
        self._pending: dict[int, _Question] = {}

    @contextlib.contextmanager
    def agent(self) -> Iterator[None]:
        """Counts an agent for as long as it is connected."""
        self._agents += 1
        try:
            yield
        finally:
            self._agents -= 1
            if not self._agents:
                for question in list(self._pending.values()):
                    self._end(question, Reason.NO_AGENT)

    @property
    def has_agent(self) -> bool:
        """Whether an agent is connected."""
        return self._agents > 0

    def pending(self) -> list[Mapping[str, JSON]]:
        """Gives the questions that wait, the oldest first, as query-requests does."""
        return [question.description() for question in self._pending.values()]

    def answer(
        self,
        number: int,
        *,
        pin: bytearray | None = None,
        new_pin: bytearray | None = None,
        allow: bool | None = None,
    ) -> None:
        """Answers a question.

        Args:
            number: which.
            pin: the PIN of the card, in ASCII. It is wiped as soon as it was used, and else when
                this raises an error.
            new_pin: the PIN that it is to get, likewise.
            allow: whether the person agrees. False refuses a PIN as well.

        Raises:
            UserError: The question has ended, or never was, or this is no answer to it. Then it
                goes on.
        """
        answer = _Answer(pin, new_pin, allow)
        try:
            question = self._find(number)
            self._end(question, question.take(answer))
        except UserError:
            answer.wipe()
            raise

    async def ask_pin(self, reader: str, request: EntryRequest) -> PinEntry:
        """Has a person enter a PIN.

        Args:
            reader: the reader's name.
            request: what is asked.
        """
        if not self.has_agent:
            log.warning("pin_not_entered", slot=request.slot, reason=_NO_AGENT)
            await trio.lowlevel.checkpoint()
            return NoPin.CANCELLED
        question = _PinQuestion(self._next_number(), reader, request)
        try:
            match await self._put(question):
                case Reason.ANSWERED:
                    return question.take_pins()
                case Reason.TIMED_OUT:
                    return NoPin.TIMED_OUT
                case _:
                    return NoPin.CANCELLED
        finally:
            question.forget()

    async def ask_consent(self, reader: str, request: ConsentRequest) -> bool:
        """Has a person agree or not.

        Args:
            reader: the reader's name.
            request: what is asked.
        """
        if not self.has_agent:
            log.warning("consent_not_given", guest=request.guest, reason=_NO_AGENT)
            await trio.lowlevel.checkpoint()
            return False
        question = _ConsentQuestion(self._next_number(), reader, request)
        return await self._put(question) is Reason.ANSWERED

    def _find(self, number: int) -> _Question:
        if number in self._pending:
            return self._pending[number]
        if 0 < number <= self._last_number:
            raise UserError(f"the request {number} has ended")
        raise UserError(f"there is no request {number}")

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    async def _put(self, question: _Question) -> Reason:
        self._pending[question.number] = question
        log.info(question.event.lower(), id=question.number)
        try:
            self._events.emit(question.event, **question.description())
            with trio.move_on_at(question.deadline):
                await question.ended.wait()
        finally:
            is_late = trio.current_time() >= question.deadline
            self._end(question, Reason.TIMED_OUT if is_late else Reason.CANCELLED)
        assert question.reason is not None
        return question.reason

    def _end(self, question: _Question, reason: Reason) -> None:
        """Ends a question, once."""
        if self._pending.pop(question.number, None) is None:
            return
        question.reason = reason
        question.ended.set()
        log.info("request_ended", id=question.number, reason=reason.value)
        self._events.emit("REQUEST_ENDED", id=question.number, reason=reason.value)


class AgentPins(PinSource):
    """Has the PINs of a reader entered at an agent.

    Args:
        requests: where the questions go.
        reader: the reader's name.
        guest: the guest that is connected.
    """

    def __init__(self, requests: Requests, reader: str, guest: Guest) -> None:
        self._requests = requests
        self._reader = reader
        self._guest = guest

    @property
    def can_modify(self) -> bool:
        """See `PinSource.can_modify`: always."""
        return True

    async def ask(self, request: EntryRequest) -> PinEntry:
        """See `PinSource.ask`."""
        named = replace(request, guest=self._guest.name, reader=f"the reader {self._reader}")
        return await self._requests.ask_pin(self._reader, named)


class AgentConsent(Consent):
    """Asks through an agent whether a guest may use a key.

    Args:
        requests: where the questions go.
        reader: the reader's name.
    """

    def __init__(self, requests: Requests, reader: str) -> None:
        self._requests = requests
        self._reader = reader

    async def ask(self, request: ConsentRequest) -> bool:
        """See `Consent.ask`."""
        return await self._requests.ask_consent(self._reader, request)
