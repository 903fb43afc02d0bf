# SPDX-License-Identifier: Apache-2.0
"""A pinentry in the test's own process, with a person in front of it whose actions are a script.

tests/ccidd/reader/test_pinentry.py holds it against pinentry-tty and pinentry-curses.
"""

import contextlib
import enum
import math
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import trio
from trio.testing import memory_stream_pair


@dataclass(frozen=True)
class Types:
    """Enters something, so many seconds after it was asked for."""

    text: str
    after: float = 0


class Act(enum.Enum):
    """What else the person may do."""

    CANCELS = enum.auto()
    WAITS = enum.auto()
    ALLOWS = enum.auto()
    REFUSES = enum.auto()


Action = Types | Act


@dataclass(frozen=True)
class Flavour:
    """How one pinentry differs from others.

    Attributes:
        program: its name, which begins with "pinentry-".
        repeats: whether it knows what SETREPEAT is for.
        has_button: whether the person cancels with a button; else with ^C, after which the
            pinentry ends, and a time-out counts as closing its window.
    """

    program: str
    repeats: bool
    has_button: bool

    @property
    def kind(self) -> str:
        return self.program.removeprefix("pinentry-")


TTY = Flavour("pinentry-tty", repeats=True, has_button=False)
CURSES = Flavour("pinentry-curses", repeats=False, has_button=True)

_OPTIONS = {"ttyname", "ttytype", "lc-ctype", "lc-messages", "display"}
_SETTINGS = {
    *("SETTITLE", "SETDESC", "SETPROMPT", "SETERROR", "SETTIMEOUT"),
    *("SETREPEAT", "SETREPEATERROR", "SETOK", "SETNOTOK", "SETCANCEL"),
}
_CANCELLED = "ERR 83886179 Operation cancelled <Pinentry>"
_FULLY_CANCELLED = "ERR 83886278 Operation fully cancelled <Pinentry> - [closing connection]"
_TIMEOUT = "ERR 83886142 Timeout <Pinentry>"


class ScriptedPinentry:
    """Serves any number of conversations, one script for all.

    Args:
        nursery: where it runs.
        person: what the person does each time that something is asked.
        flavour: the pinentry that it behaves like.
        answers: for some commands, lines to be said instead of the right ones.

    Attributes:
        commands: what was received, all conversations in a row.
        open_windows: how many conversations there are at this moment.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        person: Iterable[Action] = (),
        flavour: Flavour = TTY,
        answers: dict[str, str] | None = None,
    ) -> None:
        self._nursery = nursery
        self._person = iter(person)
        self._flavour = flavour
        self._answers = answers or {}
        self.commands: list[str] = []
        self.open_windows = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[trio.abc.Stream]:
        client, server = memory_stream_pair()
        self._nursery.start_soon(self._serve, server)
        self.open_windows += 1
        try:
            yield client
        finally:
            self.open_windows -= 1
            await trio.aclose_forcefully(client)

    def arguments(self, name: str) -> list[str]:
        """What came with each command of that name."""
        found = (command.partition(" ") for command in self.commands)
        return [argument for command, _space, argument in found if command == name]

    async def _serve(self, stream: trio.abc.Stream) -> None:
        settings: dict[str, str] = {}
        received = b""
        async with stream:
            # The client may go at any time.
            with contextlib.suppress(trio.BrokenResourceError):
                await _say(stream, self._answers.get("", "OK Pleased to meet you"))
                while data := await stream.receive_some():
                    *lines, received = (received + data).split(b"\n")
                    for line in lines:
                        said = await self._receive(_unescaped(line), settings)
                        await _say(stream, said)
                        if "closing connection" in said:
                            return

    async def _receive(self, line: str, settings: dict[str, str]) -> str:
        self.commands.append(line)
        name, _space, argument = line.partition(" ")
        if name in self._answers:
            return self._answers[name]
        return "\n".join(await self._answer(name, argument, settings))

    async def _answer(self, name: str, argument: str, settings: dict[str, str]) -> list[str]:
        if name == "OPTION":
            known = argument.partition("=")[0] in _OPTIONS
            return ["OK" if known else "ERR 83886254 Unknown option <Pinentry>"]
        if name in _SETTINGS:
            settings[name] = argument
            return ["OK"]
        if name == "GETPIN":
            return await self._get_pin(settings)
        if name == "CONFIRM":
            return await self._confirm(settings)
        if name == "BYE":
            return ["OK closing connection"]
        return ["ERR 536871187 Unknown IPC command <User defined source 1>"]

    async def _get_pin(self, settings: dict[str, str]) -> list[str]:
        repeats = settings.pop("SETREPEAT", None) is not None and self._flavour.repeats
        while isinstance(action := next(self._person), Types):
            await trio.sleep(action.after)
            if repeats and next(self._person) != action:
                continue
            data = "D " + action.text.replace("%", "%25")
            return ["S PIN_REPEATED"] * repeats + [data] * bool(action.text) + ["OK"]
        if action is Act.WAITS:
            return await self._time_out(settings)
        if self._flavour.has_button:
            return [_CANCELLED]
        return [f"S ERROR {self._flavour.kind}.? 83886278 ", _FULLY_CANCELLED]

    async def _confirm(self, settings: dict[str, str]) -> list[str]:
        match next(self._person):
            case Act.ALLOWS:
                return ["OK"]
            case Act.REFUSES if "SETNOTOK" in settings:
                return ["ERR 83886194 Not confirmed <Pinentry>"]
            case Act.REFUSES:
                return [_CANCELLED]
            case Act.WAITS:
                closed = [] if self._flavour.has_button else ["S BUTTON_INFO close"]
                return closed + await self._time_out(settings)
            case action:
                raise AssertionError(f"a confirmation is no place for {action}")

    async def _time_out(self, settings: dict[str, str]) -> list[str]:
        await trio.sleep(int(settings.get("SETTIMEOUT", 0)) or math.inf)
        return [f"S ERROR {self._flavour.kind}.? 83886142 ", _TIMEOUT]


async def _say(stream: trio.abc.Stream, lines: str) -> None:
    await stream.send_all(lines.encode() + b"\n")


def _unescaped(line: bytes) -> str:
    return re.sub(rb"%(..)", lambda match: bytes.fromhex(match[1].decode()), line).decode()


class Tap(trio.abc.Stream):
    """Writes down what goes through a stream.

    Attributes:
        received: the lines that came, whole ones only.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._received = b""

    @property
    def received(self) -> list[str]:
        return self._received.decode().split("\n")[:-1]

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self._received += data
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()
