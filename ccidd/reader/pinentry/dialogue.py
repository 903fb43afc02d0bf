# SPDX-License-Identifier: Apache-2.0
"""One conversation with a pinentry: what it is told to show, and what the person answers.

Source: the manual of pinentry 1.2, "Assuan protocol" (the commands), and what pinentry-tty and
pinentry-curses do: SETERROR and SETREPEAT hold for one GETPIN, the other settings until they are
changed, and only the status PIN_REPEATED tells that SETREPEAT was understood.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import trio

from ccid_protocol.assuan import (
    MAX_LINE,
    Cancel,
    Command,
    Connection,
    Data,
    Err,
    ErrorCode,
    Inquire,
    Ok,
    Request,
    Response,
    Status,
)
from ccid_protocol.errors import RemoteProtocolError
from ccid_protocol.events import ConnectionClosed, NeedData
from ccidd.reader.pinentry.source import EntryRequest, ModificationRequest, NoPin, PinEntry, Pins

MAX_ATTEMPTS: Final = 3
"""How often a PIN of a wrong length, or with other characters than digits, is asked for again."""

_MAX_TEXT: Final = 230
"""Characters of a text for people: of four bytes each, they still fit a line."""

_MAX_NAME: Final = 50
"""Characters of a name within such a text."""

_RECEIVE_SIZE: Final = 4096
_FAREWELL_TIME: Final = 1.0

_TITLE: Final = "Smart-card reader"
_PIN: Final = "PIN:"
_CURRENT_PIN: Final = "Current PIN:"
_NEW_PIN: Final = "New PIN:"
_NEW_PIN_AGAIN: Final = "New PIN again:"
_MISMATCH: Final = "The two new PINs were different."
# The underscores mark the letters that choose a button.
_ALLOW: Final = "_Allow"
_REFUSE: Final = "_Refuse"

_CANCELLED: Final = (ErrorCode.CANCELED, ErrorCode.FULLY_CANCELED)


class PinentryError(Exception):
    """The pinentry cannot be used. The text says why, in one line and without a PIN."""


class _Ended(Exception):  # noqa: N818 (an outcome, not an error)
    """The entry is over, without a PIN."""

    def __init__(self, outcome: NoPin) -> None:
        super().__init__(outcome.name)
        self.outcome: Final = outcome


@dataclass(frozen=True, slots=True)
class _Answer:
    """All that a pinentry says to one command."""

    result: Ok | Err
    data: bytes = field(repr=False)
    keywords: frozenset[str]


class Dialogue:
    """A conversation with one pinentry process.

    SETTIMEOUT follows the deadline under which the caller runs; the caller's deadline is what
    ends an entry, SETTIMEOUT what closes the window where ccidd no longer can.

    Args:
        stream: to and from the pinentry.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._connection = Connection()

    async def open(self, options: Iterable[tuple[str, str]]) -> None:
        """Waits for the pinentry and tells it where it runs.

        Args:
            options: names and values for OPTION; those that a pinentry does not know are nothing
                to it.

        Raises:
            PinentryError: It is not ready.
            RemoteProtocolError: It does not speak Assuan.
        """
        greeting = await self._answer()
        if isinstance(greeting.result, Err):
            raise _refusal("to start", greeting.result)
        for name, value in options:
            await self._request("OPTION", f"{name}={value}")
        await self._request("SETTITLE", _TITLE)

    async def ask(self, request: EntryRequest) -> PinEntry:
        """Lets the person enter the PINs of a request.

        Raises:
            PinentryError: The pinentry fails.
            RemoteProtocolError: It does not keep to the protocol.
        """
        await self._demand("SETDESC", describe(request))
        try:
            if isinstance(request, ModificationRequest):
                return await self._modify(request)
            pin, _repeated = await self._enter(request, _PIN)
        except _Ended as ended:
            return ended.outcome
        return Pins(current=pin)

    async def confirm(self, text: str) -> bool:
        """Lets the person allow or refuse something.

        Args:
            text: what; only its first 230 characters are shown.

        Returns:
            Whether it was allowed; no answer in time is a refusal.

        Raises:
            PinentryError: The pinentry fails.
            RemoteProtocolError: It does not keep to the protocol.
        """
        await self._demand("SETDESC", _shown(text))
        await self._demand("SETOK", _ALLOW)
        await self._demand("SETCANCEL", _REFUSE)
        await self._set_timeout()
        answer = await self._request("CONFIRM")
        if isinstance(answer.result, Ok):
            return True
        if answer.result.error in (*_CANCELLED, ErrorCode.NOT_CONFIRMED, ErrorCode.TIMEOUT):
            return False
        raise _refusal("CONFIRM", answer.result)

    async def close(self) -> None:
        """Says goodbye; whether that is heard does not matter any more."""
        with trio.move_on_after(_FAREWELL_TIME):
            try:
                await self._request("BYE")
            except (PinentryError, RemoteProtocolError):
                return

    async def _modify(self, request: ModificationRequest) -> PinEntry:
        error = _MISMATCH if request.after_mismatch else ""
        current = None
        if request.asks_current:
            current, _repeated = await self._enter(request, _CURRENT_PIN, error)
            error = ""
        new, repeated = await self._enter(request, _NEW_PIN, error, repeats=request.confirms)
        if request.confirms and not repeated:
            await self._demand("SETPROMPT", _NEW_PIN_AGAIN)
            again, _repeated = await self._get_pin()
            if again != new:
                return NoPin.MISMATCH
        return Pins(current=current, new=new)

    async def _enter(
        self, request: EntryRequest, prompt: str, error: str = "", *, repeats: bool = False
    ) -> tuple[bytes, bool]:
        """Asks for one PIN until it is one that the request accepts.

        Returns:
            The PIN, and whether the pinentry has had it entered twice.

        Raises:
            _Ended: There is none.
        """
        await self._demand("SETPROMPT", prompt)
        for _attempt in range(MAX_ATTEMPTS):
            if error:
                await self._demand("SETERROR", error)
            if repeats:
                await self._request("SETREPEAT", _NEW_PIN_AGAIN)
                await self._request("SETREPEATERROR", _MISMATCH)
            pin, repeated = await self._get_pin()
            if request.accepts(pin):
                return pin, repeated
            error = f"A PIN of {digits(request)} is needed."
        raise _Ended(NoPin.CANCELLED)

    async def _get_pin(self) -> tuple[bytes, bool]:
        await self._set_timeout()
        answer = await self._request("GETPIN")
        if isinstance(answer.result, Ok):
            return answer.data, "PIN_REPEATED" in answer.keywords
        if answer.result.error == ErrorCode.TIMEOUT:
            raise _Ended(NoPin.TIMED_OUT)
        if answer.result.error in _CANCELLED:
            raise _Ended(NoPin.CANCELLED)
        raise _refusal("GETPIN", answer.result)

    async def _set_timeout(self) -> None:
        remaining = trio.current_effective_deadline() - trio.current_time()
        if math.isfinite(remaining):
            # To a pinentry, 0 is no limit.
            await self._request("SETTIMEOUT", str(max(1, math.ceil(remaining))))

    async def _demand(self, name: str, argument: str) -> None:
        """Sends a command whose failure would leave the person without a word of it."""
        answer = await self._request(name, argument)
        if isinstance(answer.result, Err):
            raise _refusal(name, answer.result)

    async def _request(self, name: str, argument: str = "") -> _Answer:
        await self._send(Command(name, argument))
        return await self._answer()

    async def _answer(self) -> _Answer:
        data = bytearray()
        keywords = set[str]()
        while True:
            match await self._next_response():
                case Ok() | Err() as result:
                    return _Answer(result, bytes(data), frozenset(keywords))
                case Status(keyword):
                    keywords.add(keyword)
                case Data(piece):
                    data += piece
                    if len(data) > MAX_LINE:
                        raise RemoteProtocolError(f"more than {MAX_LINE} bytes of data")
                case Inquire():
                    # Nothing that we send makes a pinentry ask back.
                    await self._send(Cancel())

    async def _next_response(self) -> Response:
        while isinstance(event := self._connection.next_event(), NeedData):
            try:
                data = await self._stream.receive_some(_RECEIVE_SIZE)
            except trio.BrokenResourceError as error:
                raise PinentryError("it does not answer") from error
            self._connection.receive_data(bytes(data))
        if isinstance(event, ConnectionClosed):
            raise PinentryError("it has ended")
        return event

    async def _send(self, request: Request) -> None:
        try:
            await self._stream.send_all(self._connection.send(request))
        except trio.BrokenResourceError as error:
            raise PinentryError("it has ended") from error


def _refusal(what: str, result: Err) -> PinentryError:
    return PinentryError(f"it refuses {what}: error {result.code} {_one_line(result.text)}")


def describe(request: EntryRequest) -> str:
    """Says in some lines, for people, who asks for what."""
    names = (request.guest, request.reader, request.card)
    guest, reader, card = (_one_line(name)[:_MAX_NAME] for name in names)
    what = "a new PIN" if isinstance(request, ModificationRequest) else "the PIN"
    return (
        f"{guest} asks for {what} of {card},\nin slot {request.slot} of {reader}.\n"
        f"It has {digits(request)}."
    )


def digits(request: EntryRequest) -> str:
    """Says how long the PINs of a request are."""
    fewest, most = max(1, request.min_digits), request.max_digits
    if fewest == most:
        return f"{most} digit{'s' if most > 1 else ''}"
    return f"{fewest} to {most} digits"


def _shown(text: str) -> str:
    """Leaves out of a text what does not fit, or could make it look like another."""
    return "\n".join(map(_one_line, text.split("\n")))[:_MAX_TEXT]


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
