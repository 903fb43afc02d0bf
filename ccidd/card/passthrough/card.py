# SPDX-License-Identifier: Apache-2.0
"""A card in one of this host's own readers, shared with whoever else uses it.

Source: PC/SC Specification 2.01.14, part 5, and pcsc-lite (what it does where the specification
leaves it open).

A turn lasts from the guest's first command until it powers the card off, or leaves it alone for a
while. It is a PC/SC transaction: all others wait. It begins and ends with a reset of the card, so
that none finds what another's PIN has opened.

Once a turn has ended, nobody can tell whether others have used the card: PC/SC tells of resets
alone, and of connections as long as they last. So what the guest had set up is taken for lost. What
was selected is selected again when the guest goes on (`setup`). Where that is not all, the guest
is to see a card that was taken out and put in again; unless it resets the card itself, or selects
an application by name and so begins anew: then the card itself tells it that its PIN is due.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
import trio

from ccid_protocol.apdu import StatusWord
from ccid_protocol.atr import ATR
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.card import Card, CardGoneError
from ccidd.card.passthrough.blocking import BlockingCalls
from ccidd.card.passthrough.setup import Setup, begins_anew
from ccidd.card.passthrough.t0_interface import transmit_over_t0
from ccidd.card.passthrough.winscard import CardConnection, Code, PcscError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_CHAINING: Final = 0x10
_NOT_INTERINDUSTRY: Final = 0xE0
_BYTES_AVAILABLE: Final = 0x61
_SHORT_HEADER: Final = 5
_SW_SIZE: Final = 2

_CHAIN_POLL: Final = 0.1
"""Seconds between two looks whether a chain of commands has ended."""

PAUSE: Final = 0.5
"""Seconds between two turns in which others get theirs, if they wait."""

END_TIMEOUT: Final = 2.0
"""Seconds that the reset at the end of a turn may take."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """How the card is shared; all times are in seconds.

    Attributes:
        exclusive: whether it is not shared, but the guest's alone for as long as a turn lasts.
        idle_release: how long the guest may leave the card alone before its turn ends.
        max_hold: how long a turn may last, if the guest never leaves the card alone.
        patience: how long a command waits for others to end their turn.
        longest_command: how long a command may take.
    """

    exclusive: bool = False
    idle_release: float = 15
    max_hold: float = 60
    patience: float = 90
    longest_command: float = 300


class PassthroughCard(Card):
    """A card in a reader of this host's PC/SC service.

    Args:
        reader: the reader's name.
        atr: the card's ATR.
        sharing: how it is shared.
        limiter: how many threads there may be for it.
    """

    def __init__(
        self, reader: str, atr: ATR, sharing: Sharing, limiter: trio.CapacityLimiter
    ) -> None:
        self._reader = reader
        self._atr = atr
        self._sharing = sharing
        self._limiter = limiter
        self._free = trio.Lock()
        self._turn: _Turn | None = None
        self._turn_began = trio.Event()
        self._setup = Setup()
        self._rhythm = _Rhythm(sharing)
        self._work = trio.CancelScope()
        self.lost: Final = trio.Event()
        """Set when the card is to be put in anew: it is not what the guest left it as."""

    # What the guest does.

    async def power_on(self) -> ATR:
        """See `Card.power_on`; the card is reset when its first command comes."""
        async with self._free:
            self._check()
            self._setup.forget()
            if self._turn is not None:
                self._turn.needs_reset = True
        return self._atr

    async def power_off(self) -> None:
        """See `Card.power_off`; the turn ends."""
        async with self._free:
            self._setup.forget()
            await self._end_turn("power_off")

    async def transmit(self, command: bytes) -> bytes:
        """See `Card.transmit`."""
        async with self._free:
            self._check()
            with trio.CancelScope() as self._work:
                if self._turn is None:
                    await self._go_on(command)
                response = await self._transmit(command)
                self._setup.note(command, response)
                return response
            raise CardGoneError("the card has gone")

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None]:
        """See `Card.held`: the turn goes on, however long that takes."""
        async with self._free:
            began = trio.current_time()
            try:
                yield
            finally:
                self._rhythm.leave_out(trio.current_time() - began)

    def _check(self) -> None:
        if self.lost.is_set():
            raise CardGoneError("the card is being put in anew")

    async def _go_on(self, command: bytes) -> None:
        """Takes a turn, and sets up what the guest had set up in its last one."""
        if begins_anew(command):
            self._setup.forget()
        commands = self._setup.commands
        if commands is None:
            raise self._lose("others may have used the card meanwhile")
        await self._rhythm.pause()
        await self._take_turn()
        for before, expected in commands:
            if await self._transmit(before) != expected:
                raise self._lose("the card is not what it was")

    def _lose(self, reason: str) -> CardGoneError:
        self.lost.set()
        log.info("card_state_lost", reader=self._reader, reason=reason)
        return CardGoneError(reason)

    async def _take_turn(self) -> None:
        turn = _Turn(self._reader, self._atr, self._limiter, exclusive=self._sharing.exclusive)
        try:
            with trio.fail_after(self._sharing.patience):
                await turn.begin()
        except trio.TooSlowError as error:
            log.warning("card_busy", reader=self._reader, waited=self._sharing.patience)
            raise CardGoneError("others have the card") from error
        except PcscError as error:
            with trio.CancelScope(shield=True):
                await turn.end(reset=False)
            raise self._failure(error) from error
        self._turn = turn
        self._rhythm.begin()
        self._turn_began.set()

    async def _transmit(self, command: bytes) -> bytes:
        assert self._turn is not None
        try:
            with trio.fail_after(self._sharing.longest_command):
                response = await self._turn.transmit(command)
            self._rhythm.note(command, response)
        except BaseException as error:
            # What the card is like now, nobody knows.
            self.lost.set()
            with trio.CancelScope(shield=True):
                await self._end_turn("failed", reset=False)
            if isinstance(error, PcscError | RemoteProtocolError | trio.TooSlowError):
                raise self._failure(error) from error
            raise
        return response

    def _failure(self, error: Exception) -> CardGoneError:
        self.lost.set()
        log.warning("card_failed", reader=self._reader, reason=str(error) or "no answer")
        return CardGoneError(str(error))

    # What ends turns.

    async def run(self) -> None:
        """Ends turns that last too long; once this is cancelled, the card is of no more use."""
        try:
            while True:
                await self._turn_began.wait()
                if self._sharing.exclusive:
                    await trio.sleep_forever()
                await self._watch_turn()
        finally:
            self.lost.set()
            self._work.cancel()
            with trio.CancelScope(shield=True):
                async with self._free:
                    await self._end_turn("removed")

    async def _watch_turn(self) -> None:
        while (turn := self._turn) is not None:
            await self._rhythm.wait_for_end()
            async with self._free:
                # A command may have come, and more than one.
                if self._turn is turn and (reason := self._rhythm.reason_to_end()):
                    await self._end_turn(reason)

    async def _end_turn(self, reason: str, *, reset: bool = True) -> None:
        turn, self._turn = self._turn, None
        self._turn_began = trio.Event()
        if turn is not None:
            log.debug("card_released", reader=self._reader, reason=reason)
            await turn.end(reset=reset)
            self._rhythm.end()


class _Rhythm:
    """When turns end, and when the next may begin.

    Args:
        sharing: how the card is shared.
    """

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._last_use = self._row_began = 0.0
        self._last_end = -math.inf
        self._is_amid_chain = False

    async def pause(self) -> None:
        """Lets others have a turn, if the guest has had one after another for too long.

        Those who wait look every tenth of a second whether the card is free.
        """
        if trio.current_time() < self._row_began + self._sharing.max_hold:
            return
        await trio.sleep_until(self._last_end + PAUSE)

    def begin(self) -> None:
        """A turn has begun."""
        now = self._last_use = trio.current_time()
        if now >= self._last_end + PAUSE:
            self._row_began = now
        self._is_amid_chain = False

    def note(self, command: bytes, response: bytes) -> None:
        """A command was answered."""
        self._last_use = trio.current_time()
        self._is_amid_chain = _leaves_more(command, response)

    def leave_out(self, seconds: float) -> None:
        """Time has gone by in which the guest could not go on."""
        self._last_use = trio.current_time()
        self._row_began += seconds

    def end(self) -> None:
        """The turn has ended."""
        self._last_end = trio.current_time()

    async def wait_for_end(self) -> None:
        """Waits until the turn should end, or perhaps a little less."""
        end = min(self._idle_end, self._longest_end)
        if self._is_amid_chain:
            # The end of the chain may move it nearer.
            end = min(end, trio.current_time() + _CHAIN_POLL)
        await trio.sleep_until(end)

    def reason_to_end(self) -> str:
        """Tells why the turn should end; nothing if it should not yet."""
        now = trio.current_time()
        if now >= self._idle_end:
            return "idle"
        return "max_hold" if now >= self._longest_end else ""

    @property
    def _idle_end(self) -> float:
        return self._last_use + self._sharing.idle_release

    @property
    def _longest_end(self) -> float:
        return self._row_began + self._sharing.max_hold * (2 if self._is_amid_chain else 1)


class _Turn:
    """A guest's turn with the card."""

    def __init__(
        self, reader: str, atr: ATR, limiter: trio.CapacityLimiter, *, exclusive: bool
    ) -> None:
        self._atr = atr
        self._card = CardConnection(reader, exclusive)
        self._calls = BlockingCalls(self._card, limiter)
        self._is_used = False
        self.needs_reset = True
        """Whether the card is to be reset before its next command."""

    async def begin(self) -> None:
        """Waits until it is this one's turn."""
        await self._calls.run(partial(self._card.wait_for_turn, self._calls.abandoned))

    async def transmit(self, command: bytes) -> bytes:
        """Has the card carry a command out."""
        if self.needs_reset:
            atr = await self._calls.run(self._card.reset)
            if atr != self._atr.encode():
                raise RemoteProtocolError("another ATR than before")
            self.needs_reset = False
        self._is_used = True
        response = await self._calls.run(partial(_transmit, self._card, command))
        if len(response) < _SW_SIZE:
            raise RemoteProtocolError("a response without a status word")
        return response

    async def end(self, *, reset: bool) -> None:
        """Gives the card up, whoever is cancelled meanwhile: nobody else would reset it."""
        with trio.CancelScope(shield=True):
            # A card that was not used needs no reset; nor do others need to hear of one.
            if reset and self._is_used:
                await self._reset()
            await self._calls.close()

    async def _reset(self) -> None:
        with trio.move_on_after(END_TIMEOUT):
            try:
                await self._calls.run(self._card.reset)
            except PcscError as error:
                log.debug("card_not_reset", reason=str(error))


def _transmit(card: CardConnection, command: bytes) -> bytes:
    if card.is_t0:
        return transmit_over_t0(command, card.transmit)
    try:
        return card.transmit(command)
    except PcscError as error:
        if error.code != Code.NOT_TRANSACTED or not _is_extended(command):
            raise
        # The reader is one for short APDUs; the card has seen nothing of it.
        return StatusWord.WRONG_LENGTH.to_bytes(2)


def _is_extended(command: bytes) -> bool:
    return len(command) > _SHORT_HEADER and not command[_SHORT_HEADER - 1]


def _leaves_more(command: bytes, response: bytes) -> bool:
    """Whether a chain of commands goes on, or more of a response waits."""
    cla = command[0] if command else 0
    is_chained = not cla & _NOT_INTERINDUSTRY and bool(cla & _CHAINING)
    return is_chained or response[-2:-1] == bytes([_BYTES_AVAILABLE])
