# SPDX-License-Identifier: Apache-2.0
"""Follows a reader of this host's, and the card in it, into a slot.

Source: PC/SC Specification 2.01.14, part 5 (SCardGetStatusChange).

The service may be missing, stop, hang and come back; readers and cards come and go. The guest sees
a slot with a card or without.
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

import structlog
import trio

from ccid_protocol.atr import ATR
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.passthrough.blocking import BlockingCalls
from ccidd.card.passthrough.card import PassthroughCard, Sharing
from ccidd.card.passthrough.winscard import PNP_NOTIFICATION, Context, PcscError, ReaderState
from ccidd.reader.slot import Slot
from ccidd.service.options import CardOptions
from ccidd.service.supply import CardSupply, Protect, Protection

_Result = TypeVar("_Result")

log: structlog.stdlib.BoundLogger = structlog.get_logger()

RETRY_DELAY: Final = 1.0
"""Seconds after which a service that is not there is looked for again; later, up to the next."""

LONGEST_RETRY_DELAY: Final = 5.0

POLL: Final = 2.0
"""Seconds after which the service is asked anew, so that none of its calls lasts for long."""

HANG_TIMEOUT: Final = 5.0
"""Seconds, more than it was asked for, after which the service is taken to hang."""

ABSENCE: Final = 0.5
"""Seconds that a card is out which has lost what the guest had set up."""

_THREADS: Final = 8
"""Threads for the card, those included that were left alone with a service that hangs."""

_WATCHING_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class _Insertion:
    """A card's stay in a reader."""

    reader: str
    number: int
    atr: bytes


def pcsc_supply(options: CardOptions, protection: Protection) -> "PcscSupply":
    """Makes what fills the slot of a `--card=pcsc`."""
    sharing = Sharing(exclusive="exclusive" in options.switches)
    if (seconds := options.one("idle-release")) is not None:
        sharing = replace(sharing, idle_release=float(seconds))
    if (seconds := options.one("max-hold")) is not None:
        sharing = replace(sharing, max_hold=float(seconds))
    pattern = options.one("reader")
    assert pattern is not None
    return PcscSupply(pattern, sharing, protection.protect)


class PcscSupply(CardSupply):
    """Fills a slot with the card that is in a reader.

    Args:
        pattern: the reader's name, or one with wildcards; of several readers, the first with a
            card in it.
        sharing: how the card is shared.
        protect: what stands between the guest and the card.
    """

    def __init__(self, pattern: str, sharing: Sharing, protect: Protect) -> None:
        self._pattern = pattern
        self._sharing = sharing
        self._protect = protect
        self._is_available = True
        self._delay = RETRY_DELAY

    async def run(self, slots: Sequence[Slot]) -> None:
        """See `CardSupply.run`."""
        (slot,) = slots
        watchers = trio.CapacityLimiter(_WATCHING_THREADS)
        threads = trio.CapacityLimiter(_THREADS)
        while True:
            watch = _Watch(watchers)
            try:
                async with trio.open_nursery() as nursery:
                    stay = _Stay(slot, self._sharing, self._protect, threads, nursery)
                    reason = await self._follow(watch, stay)
                    stay.update(None)
                    self._tell(reason)
            finally:
                with trio.CancelScope(shield=True):
                    await watch.close()
            await trio.sleep(self._delay)
            self._delay = min(self._delay + 0.5, LONGEST_RETRY_DELAY)

    async def _follow(self, watch: "_Watch", stay: "_Stay") -> str:
        """Follows readers and cards until the service fails, and gives the reason."""
        known: Mapping[str, ReaderState] = {}
        try:
            await watch.begin()
            while True:
                known = await watch.next(known)
                self._is_available, self._delay = True, RETRY_DELAY
                readers = {
                    name: state for name, state in known.items() if is_named(name, self._pattern)
                }
                stay.update(_choose(readers, stay.insertion))
        except PcscError as error:
            return str(error)
        except trio.TooSlowError:
            return "the service does not answer"

    def _tell(self, reason: str) -> None:
        if self._is_available:
            self._is_available = False
            log.warning("pcsc_unavailable", reader=self._pattern, reason=reason)


def is_named(name: str, pattern: str) -> bool:
    """Tells whether a reader is one that a name or a pattern stands for."""
    # Names have brackets in them, which are wildcards.
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def _choose(readers: Mapping[str, ReaderState], current: _Insertion | None) -> _Insertion | None:
    """Gives the card to have in the slot: the one that is, or else the first."""
    present = [
        _Insertion(name, state.insertion, state.atr)
        for name, state in readers.items()
        if state.is_present and state.atr
    ]
    return current if current in present else next(iter(present), None)


class _Stay:
    """The card in the slot, if there is one."""

    def __init__(
        self,
        slot: Slot,
        sharing: Sharing,
        protect: Protect,
        threads: trio.CapacityLimiter,
        nursery: trio.Nursery,
    ) -> None:
        self._slot = slot
        self._sharing = sharing
        self._protect = protect
        self._threads = threads
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self.insertion: _Insertion | None = None

    def update(self, insertion: _Insertion | None) -> None:
        """Has another card in the slot, or none."""
        if insertion == self.insertion:
            return
        if self.insertion is not None:
            log.info("card_removed", reader=self.insertion.reader)
            self._slot.remove()
            self._scope.cancel()
        self.insertion = insertion
        if insertion is None:
            return
        try:
            atr = ATR.decode(insertion.atr)
        except RemoteProtocolError as error:
            log.warning("card_refused", reader=insertion.reader, reason=str(error))
            return
        log.info("card_found", reader=insertion.reader, atr=insertion.atr.hex())
        self._scope = trio.CancelScope()
        self._nursery.start_soon(self._serve, insertion.reader, atr, self._scope)

    async def _serve(self, reader: str, atr: ATR, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                card = PassthroughCard(reader, atr, self._sharing, self._threads)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(card.run)
                    self._slot.insert(self._protect(card))
                    await card.lost.wait()
                    log.info("card_reset", reader=reader)
                    self._slot.remove()
                    nursery.cancel_scope.cancel()
                # If it has really gone, that is to be heard of first.
                await trio.sleep(ABSENCE)


class _Watch:
    """What the service says of its readers.

    Args:
        limiter: how many threads there may be for it.
    """

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self._context = Context()
        self._calls = BlockingCalls(self._context, limiter)

    async def begin(self) -> None:
        """Finds the service."""
        await self._call(self._context.establish, 0)

    async def next(self, known: Mapping[str, ReaderState]) -> Mapping[str, ReaderState]:
        """Gives how all readers are, once that is other than known, or some time is over."""
        names = [*await self._call(self._context.readers, 0), PNP_NOTIFICATION]
        states = {name: known[name].event_state if name in known else 0 for name in names}
        # Of readers that came or went before the call, it would not tell.
        seconds = POLL if states.keys() == known.keys() else 0
        wait = partial(self._context.wait_for_change, states, seconds)
        return await self._call(wait, seconds) or {}

    async def _call(self, call: Callable[[], _Result], seconds: float) -> _Result:
        with trio.fail_after(seconds + HANG_TIMEOUT):
            return await self._calls.run(call)

    async def close(self) -> None:
        """Asks no more."""
        await self._calls.close()
