# SPDX-License-Identifier: Apache-2.0
"""A card in one of this host's own readers, shared with whoever else uses it.

Source: PC/SC Specification 2.01.14, part 5, and pcsc-lite (what it does where the specification
leaves it open).

A turn lasts from the guest's first command until it powers the card off, or leaves it alone for a
while. It is a PC/SC transaction: all others wait. It begins and ends with a reset of the card, so
that none finds what another's PIN has opened.

Once a turn has ended, nobody can tell whether the card was used by others: PC/SC tells of resets
alone. So what the guest had set up is taken for lost, and the guest is to see a card that was taken
out and put in again, unless it has powered the card off by itself.
"""

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
from ccidd.card.blocking import BlockingCalls
from ccidd.card.card import Card, CardGoneError
from ccidd.card.t0_interface import transmit_over_t0
from ccidd.card.winscard import CardConnection, Code, PcscError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_CHAINING: Final = 0x10
_NOT_INTERINDUSTRY: Final = 0xE0
_BYTES_AVAILABLE: Final = 0x61
_SHORT_HEADER: Final = 5
_SW_SIZE: Final = 2

_CHAIN_POLL: Final = 0.1
"""Seconds between two looks whether a chain of commands has ended."""

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
        self._has_state = False
        self._work = trio.CancelScope()
        self.lost: Final = trio.Event()
        """Set when the card is to be put in anew: it is not what the guest left it as."""

    # What the guest does.

    async def power_on(self) -> ATR:
        """See `Card.power_on`; the card is reset when its first command comes."""
        async with self._free:
            self._has_state = False
            self._check()
            if self._turn is not None:
                self._turn.needs_reset = True
        return self._atr

    async def power_off(self) -> None:
        """See `Card.power_off`; the turn ends."""
        async with self._free:
            await self._end_turn("power_off")
            self._has_state = False

    async def transmit(self, command: bytes) -> bytes:
        """See `Card.transmit`."""
        async with self._free:
            self._check()
            with trio.CancelScope() as self._work:
                if self._turn is None:
                    await self._take_turn()
                return await self._transmit(command)
            raise CardGoneError("the card has gone")

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None]:
        """See `Card.held`: the turn goes on, however long that takes."""
        async with self._free:
            try:
                yield
            finally:
                if self._turn is not None:
                    self._turn.last_use = trio.current_time()

    def _check(self) -> None:
        if self.lost.is_set():
            raise CardGoneError("the card is being put in anew")
        if self._turn is None and self._has_state:
            self.lost.set()
            raise CardGoneError("others may have used the card meanwhile")

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
        self._turn_began.set()

    async def _transmit(self, command: bytes) -> bytes:
        assert self._turn is not None
        self._has_state = True
        try:
            with trio.fail_after(self._sharing.longest_command):
                return await self._turn.transmit(command)
        except BaseException as error:
            # What the card is like now, nobody knows.
            self.lost.set()
            with trio.CancelScope(shield=True):
                await self._end_turn("failed", reset=False)
            if isinstance(error, PcscError | RemoteProtocolError | trio.TooSlowError):
                raise self._failure(error) from error
            raise

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
            end = self._end_of(turn)
            now = trio.current_time()
            if now < end:
                # The end of a chain may move it nearer.
                await trio.sleep_until(min(end, now + _CHAIN_POLL) if turn.is_amid_chain else end)
                continue
            async with self._free:
                # A command may have come, and more than one.
                if self._turn is turn and trio.current_time() >= self._end_of(turn):
                    is_idle = trio.current_time() >= turn.last_use + self._sharing.idle_release
                    await self._end_turn("idle" if is_idle else "max_hold")

    def _end_of(self, turn: "_Turn") -> float:
        longest = self._sharing.max_hold * (2 if turn.is_amid_chain else 1)
        return min(turn.last_use + self._sharing.idle_release, turn.began + longest)

    async def _end_turn(self, reason: str, *, reset: bool = True) -> None:
        turn, self._turn = self._turn, None
        self._turn_began = trio.Event()
        if turn is not None:
            log.debug("card_released", reader=self._reader, reason=reason)
            await turn.end(reset=reset)


class _Turn:
    """A guest's turn with the card."""

    def __init__(
        self, reader: str, atr: ATR, limiter: trio.CapacityLimiter, *, exclusive: bool
    ) -> None:
        self._atr = atr
        self._card = CardConnection(reader, exclusive)
        self._calls = BlockingCalls(self._card, limiter)
        self.began = self.last_use = trio.current_time()
        self.needs_reset = True
        self.is_amid_chain = False

    async def begin(self) -> None:
        """Waits until it is this one's turn."""
        await self._calls.run(partial(self._card.wait_for_turn, self._calls.abandoned))
        self.began = self.last_use = trio.current_time()

    async def transmit(self, command: bytes) -> bytes:
        """Has the card carry a command out."""
        if self.needs_reset:
            atr = await self._calls.run(self._card.reset)
            if atr != self._atr.encode():
                raise RemoteProtocolError("another ATR than before")
            self.needs_reset = False
        response = await self._calls.run(partial(_transmit, self._card, command))
        if len(response) < _SW_SIZE:
            raise RemoteProtocolError("a response without a status word")
        self.last_use = trio.current_time()
        self.is_amid_chain = _leaves_more(command, response)
        return response

    async def end(self, *, reset: bool) -> None:
        """Gives the card up."""
        # A card that was not used needs no reset; nor do others need to hear of one.
        if reset and not self.needs_reset:
            with trio.move_on_after(END_TIMEOUT):
                try:
                    await self._calls.run(self._card.reset)
                except PcscError as error:
                    log.debug("card_not_reset", reason=str(error))
        await self._calls.close()


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
