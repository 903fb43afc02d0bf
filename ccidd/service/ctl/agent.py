# SPDX-License-Identifier: Apache-2.0
"""`ccidctl agent`: asks a person what a ccidd wants to know, and gives it the answers.

The questions are `ccidd.service.requests`'. One that ends elsewhere (answered by another agent,
given up by the guest, out of time) is closed here, and nothing is left of what was typed.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, NoReturn, Protocol

import trio

from ccid_protocol.qmp import JSON, Error, Event
from ccidd.errors import UserError
from ccidd.reader.pinentry.dialogue import MAX_ATTEMPTS
from ccidd.reader.pinentry.source import (
    EntryRequest,
    ModificationRequest,
    NoPin,
    PinEntry,
    Pins,
    VerificationRequest,
)
from ccidd.service.ctl.client import Client, DisconnectedError

_GRACE: Final = 1.0
"""Seconds more than ccidd gives: it is ccidd that says when a request is out of time."""

_ASKING: Final = frozenset({"PIN_REQUESTED", "CONSENT_REQUESTED"})


class Person(Protocol):
    """Whom a pinentry, or the terminal, asks."""

    async def ask(self, request: EntryRequest) -> PinEntry:
        """Has PINs entered, as `PinSource.ask`."""

    async def confirm(self, text: str, seconds: float) -> bool:
        """Has something allowed or refused, as `Pinentry.confirm`."""


class Agent:
    """Answers the requests of one connection.

    Args:
        client: the connection, opened as an agent's.
        person: who is asked.
        tell: tells the person what else happens.
    """

    def __init__(self, client: Client, person: Person, tell: Callable[[str], None]) -> None:
        self._client = client
        self._person = person
        self._tell = tell
        self._asked: dict[int, trio.CancelScope] = {}

    async def run(self) -> NoReturn:
        """Answers requests until the connection ends.

        Raises:
            UserError: It has ended, or ccidd says what cannot be understood.
        """
        waiting = await self._client.execute("query-requests")
        async with trio.open_nursery() as nursery:
            try:
                for request in waiting if isinstance(waiting, list) else []:
                    self._begin(request, nursery)
                await self._follow(nursery)
            except UserError as error:
                ended = error
            nursery.cancel_scope.cancel()
        raise ended

    async def _follow(self, nursery: trio.Nursery) -> NoReturn:
        while True:
            match await self._client.receive():
                case Event(name="REQUEST_ENDED", data=data):
                    self._end(data)
                case Event(name=name, data=data) if name in _ASKING:
                    self._begin(data, nursery)
                case Error(description=description):
                    self._tell(f"ccidd did not take the answer: {description}")

    def _begin(self, request: JSON, nursery: trio.Nursery) -> None:
        if not isinstance(request, Mapping):
            raise UserError("ccidd asks what this ccidctl does not understand; use its own version")
        # It may be listed and told of as well.
        number = int(_number(request, "id"))
        if number not in self._asked:
            scope = self._asked[number] = trio.CancelScope()
            nursery.start_soon(self._answer, number, request, scope)

    def _end(self, ended: Mapping[str, JSON]) -> None:
        scope = self._asked.pop(int(_number(ended, "id")), None)
        if scope is not None:
            scope.cancel()
            self._tell(f"the request has ended: {_text(ended, 'reason')}")

    async def _answer(
        self, number: int, request: Mapping[str, JSON], scope: trio.CancelScope
    ) -> None:
        with scope:
            answer = await self._ask(request)
            if self._asked.pop(number, None) is None:
                # It ended in this very moment.
                return
            # Its end is news no more. Whoever receives tells of a connection that has ended.
            with contextlib.suppress(DisconnectedError):
                await self._client.send("answer-request", {"id": number, **answer})

    async def _ask(self, request: Mapping[str, JSON]) -> dict[str, JSON]:
        deadline = trio.current_time() + _number(request, "timeout") + _GRACE
        if request.get("kind") == "consent":
            seconds = deadline - trio.current_time()
            return {"allow": await self._person.confirm(_text(request, "text"), seconds)}
        entry = _entry_request(request)
        answer = await self._person.ask(entry)
        for _attempt in range(1, MAX_ATTEMPTS):
            if answer is not NoPin.MISMATCH or not isinstance(entry, ModificationRequest):
                break
            left = deadline - trio.current_time()
            entry = replace(entry, timeout=left, after_mismatch=True)
            answer = await self._person.ask(entry)
        if not isinstance(answer, Pins):
            return {"allow": False}
        pins = {"pin": answer.current, "new-pin": answer.new}
        return {name: pin.decode() for name, pin in pins.items() if pin is not None}


def _entry_request(request: Mapping[str, JSON]) -> EntryRequest:
    verification = VerificationRequest(
        guest=_text(request, "guest"),
        reader=f"the reader {_text(request, 'reader')}",
        slot=int(_number(request, "slot")),
        card=_text(request, "card"),
        min_digits=int(_number(request, "min-digits")),
        max_digits=int(_number(request, "max-digits")),
        timeout=_number(request, "timeout") + _GRACE,
    )
    if request.get("purpose") == "verify":
        return verification
    return ModificationRequest(
        guest=verification.guest,
        reader=verification.reader,
        slot=verification.slot,
        card=verification.card,
        min_digits=verification.min_digits,
        max_digits=verification.max_digits,
        timeout=verification.timeout,
        asks_current=request.get("asks-current") is not False,
        confirms=request.get("confirms") is not False,
    )


def _text(request: Mapping[str, JSON], name: str) -> str:
    return f"{request.get(name, '?')}"


def _number(request: Mapping[str, JSON], name: str) -> float:
    value = request.get(name)
    return value if isinstance(value, int | float) else 0
