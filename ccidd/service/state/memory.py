# SPDX-License-Identifier: Apache-2.0
"""A card's memory and PINs, kept in the database."""

import errno
import os
import sqlite3
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import TypeVar

import structlog
import trio

from ccidd.card.memory import CardMemory
from ccidd.card.pin import PinMemory
from ccidd.service.state import schema
from ccidd.service.state.database import CardRecord, State
from ccidd.service.state.lock import CardLock
from ccidd.service.state.pinhash import hash_pin, is_pin

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_T = TypeVar("_T")


@cache
def _processors() -> trio.CapacityLimiter:
    return trio.CapacityLimiter(os.cpu_count() or 1)


class StoredMemory(CardMemory):
    """The memory of a card that this process serves, and no other meanwhile.

    A card whose keys are all on a token, which several processes may use at once, can be shared: of
    PINs and tries each process reads and writes what is in the database. As soon as there are
    contents, which each would know only as they were at its start, the card is not shared.

    Args:
        state: the database.
        card: the card.
        pins: PINs that are remembered elsewhere: a token's.
        shared: whether others may serve the card too, if they share it and it has no contents;
            then nothing can be stored on it.

    Raises:
        UserError: Another process serves the card, it is gone, or what is stored is damaged.
    """

    def __init__(
        self,
        state: State,
        card: CardRecord,
        pins: Mapping[int, PinMemory] | None = None,
        *,
        shared: bool = False,
    ) -> None:
        self._state = state
        self._guid = card.guid
        self._pins = pins or {}
        name = f"the card {card.name or card.guid}"
        self._lock = CardLock(state.directory, card.guid, name, shared=shared)
        state.resources.callback(self._lock.close)
        # It may have been destroyed while nobody had the lock.
        self._contents = state.contents(state.card(card.guid).guid)
        self._shared = shared and not self._contents
        if shared and self._contents:
            self._lock.stop_sharing()

    def close(self) -> None:
        """Lets others serve the card."""
        self._lock.close()

    @property
    def contents(self) -> Mapping[str, bytes]:
        """See `CardMemory.contents`."""
        return MappingProxyType(self._contents)

    async def store(self, changes: Mapping[str, bytes | None]) -> None:
        """See `CardMemory.store`."""
        if self._shared:
            raise OSError(errno.EROFS, "nothing is stored on a card that is shared")
        # A thread that has begun is waited for, whoever cancels.
        await self._state.in_thread(partial(self._store, dict(changes)))
        for name, value in changes.items():
            if value is None:
                self._contents.pop(name, None)
            else:
                self._contents[name] = value

    def _store(self, changes: Mapping[str, bytes | None]) -> None:
        try:
            self._state.store(self._guid, changes)
        except sqlite3.Error as error:
            # What Python itself objects to has no such code.
            code = getattr(error, "sqlite_errorcode", 0)
            number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else errno.EIO
            raise OSError(number, f"a card's contents cannot be stored: {error}") from error

    def pin(self, reference: int) -> PinMemory:
        """See `CardMemory.pin`; a PIN that was never set is blocked."""
        return self._pins.get(reference) or StoredPin(self._state, self._guid, reference)


class StoredPin(PinMemory):
    """A PIN whose hash and tries are in the database.

    Args:
        state: the database.
        guid: the card's GUID.
        reference: the PIN's key reference.
    """

    def __init__(self, state: State, guid: str, reference: int) -> None:
        self._state = state
        self._place = guid, reference

    async def tries_left(self) -> int:
        """See `PinMemory.tries_left`."""
        record = await self._call(self._state.pin)
        return 0 if record is None else record.tries_left

    async def max_tries(self) -> int:
        """See `PinMemory.max_tries`."""
        record = await self._call(self._state.pin)
        return schema.MAX_TRIES if record is None else record.max_tries

    async def compare(self, candidate: bytes) -> bool:
        """See `PinMemory.compare`."""
        record = await self._call(self._state.spend_try)
        if record is None or record.hash is None:
            return False
        # Beside the database, which other cards need meanwhile.
        if not await _hashing(partial(is_pin, candidate, record.hash)):
            return False
        await self._call(self._state.restore_tries)
        return True

    async def change(self, new: bytes) -> None:
        """See `PinMemory.change`."""
        hashed = await _hashing(partial(hash_pin, new, self._state.cost))
        await self._call(partial(self._state.set_pin, hashed=hashed))

    async def set_max_tries(self, count: int) -> None:
        """See `PinMemory.set_max_tries`."""
        await self._call(partial(self._state.set_max_tries, count=count))

    async def _call(self, operation: Callable[[str, int], _T]) -> _T:
        return await self._state.in_thread(partial(operation, *self._place))


async def _hashing(operation: Callable[[], _T]) -> _T:
    return await trio.to_thread.run_sync(operation, limiter=_processors())


def apply_pin_file(state: State, guid: str, reference: int, pin: bytes) -> None:
    """Sets a card's PIN to what is in a file, if the file says something new.

    A PIN that the card's holder has changed since stands, as long as the file says what it said;
    and no try is given back by starting ccidd again. Who writes another PIN into the file means it:
    then it is the card's PIN, with all tries.

    Args:
        state: the database.
        guid: the card's GUID.
        reference: the PIN's key reference.
        pin: the PIN in the file, as it is on the wire.
    """
    record = state.pin(guid, reference)
    if record is not None and record.from_file is not None and is_pin(pin, record.from_file):
        return
    # The tries of a card that an older ccidd counted, which did not keep what the PIN was.
    keep_tries = record is not None and record.hash is None
    state.set_pin_from_file(guid, reference, hash_pin(pin, state.cost), keep_tries=keep_tries)
    if record is not None and not keep_tries:
        log.info("pin_set_from_file", guid=guid)


def destroy(state: State, card: CardRecord) -> None:
    """Removes a card and all that was remembered of it.

    Raises:
        UserError: A process serves it.
    """
    lock = CardLock(state.directory, card.guid, f"the card {card.name or card.guid}")
    try:
        state.forget_card(card.guid)
        lock.remove()
    finally:
        lock.close()
