# SPDX-License-Identifier: Apache-2.0
"""All that a ccidd serves: readers that come and go, and that know nothing of each other."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

import structlog
import trio

from ccidd.errors import UserError
from ccidd.reader.observer import SlotObserver
from ccidd.reader.slot import Slot
from ccidd.service.configuration import Configuration, ReaderConfiguration
from ccidd.service.events import Events
from ccidd.service.served import ServedReader

log: structlog.stdlib.BoundLogger = structlog.get_logger()

OpenReader: TypeAlias = Callable[[ReaderConfiguration], ServedReader]
"""Opens a reader with its cards; it may block, and raises UserError."""

CheckReader: TypeAlias = Callable[[ReaderConfiguration], None]
"""Raises UserError for a reader that cannot be opened."""

LoadConfiguration: TypeAlias = Callable[[], Configuration]
"""Reads the configuration file; it may block, and raises UserError."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new configuration has changed.

    Attributes:
        added: the readers that are new.
        removed: those that are gone.
        changed: those that are not as before, some with other cards alone.
    """

    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    changed: Sequence[str] = ()


@dataclass(slots=True)
class _Place:
    """A reader in service."""

    reader: ServedReader
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)


class Service:
    """The readers in service.

    Args:
        open_reader: opens one; None if all are there from the start.
        load: reads the configuration again; None if there is no file.
        check: tells whether a reader could be opened, as far as that is known before.
        stays: whether to go on when no reader is left.

    Attributes:
        events: what happens to readers and cards.
        changed: called when readers, or their connections, have changed; it must not wait.
        was_served: whether a guest ever spoke the right protocol.
    """

    def __init__(
        self,
        open_reader: OpenReader | None = None,
        load: LoadConfiguration | None = None,
        check: CheckReader | None = None,
        *,
        stays: bool = False,
    ) -> None:
        self._open_reader = open_reader
        self._load = load
        self._check = check
        self._stays = stays
        self._configuration = Configuration(())
        self._places: dict[str, _Place] = {}
        self._changing = trio.Lock()
        self._over = trio.Event()
        self._nursery: trio.Nursery | None = None
        self.events: Final = Events()
        self.changed: Callable[[], None] = _ignore
        self.was_served = False

    @property
    def readers(self) -> Mapping[str, ServedReader]:
        """The readers by their names."""
        return MappingProxyType({name: place.reader for name, place in self._places.items()})

    @property
    def can_reload(self) -> bool:
        """Whether there is a configuration file."""
        return self._load is not None

    # Before it runs.

    def open(self, configuration: Configuration) -> None:
        """Opens the cards of all readers; it may block.

        Raises:
            UserError: Something cannot be used; where there are several readers, the message says
                of which.
        """
        self._configuration = configuration
        for each in configuration.readers:
            self.put(self._opened(each))

    def put(self, reader: ServedReader) -> None:
        """Adds a reader that is open already, to be served when this runs."""
        self._places[reader.name] = _Place(reader)

    def close(self) -> None:
        """Closes what was opened, if it was never served."""
        for place in self._places.values():
            place.reader.close()

    def listen(self) -> None:
        """Opens the sockets of all readers, within the event loop.

        Raises:
            UserError: One cannot be opened.
        """
        for reader in self.readers.values():
            reader.open()

    # While it runs.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until `quit`, or until no connection can come any more.

        Args:
            task_status: started as soon as guests can connect to all readers.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for place in list(self._places.values()):
                await nursery.start(self._keep, place)
            task_status.started()
            await self._over.wait()
            self.events.emit("STOPPING")
            async with trio.open_nursery() as stopping:
                for reader in self.readers.values():
                    stopping.start_soon(reader.stop)
            nursery.cancel_scope.cancel()

    def quit(self) -> None:
        """Has it end: what is in flight is answered, cards and readers go, and sockets close."""
        self._over.set()

    async def wait_until_over(self) -> None:
        """Waits until it is to end."""
        await self._over.wait()

    async def add(self, configuration: ReaderConfiguration) -> ServedReader:
        """Opens a reader and serves it.

        Raises:
            UserError: It cannot be opened, or its name is taken.
        """
        async with self._changing:
            return await self._add(configuration)

    async def remove(self, name: str) -> None:
        """Unplugs a reader: what is in flight is answered, and its guest sees its cards go.

        Raises:
            UserError: There is none of this name.
        """
        async with self._changing:
            await self._remove(name)

    async def reload(self) -> Changes:
        """Reads the configuration file again, and changes what is not as the file says.

        Readers of which it says what it said before are left alone. Where a changed one cannot be
        opened, the reader is served as before.

        Returns:
            What has changed.

        Raises:
            UserError: There is no file, or it is wrong: then nothing has changed. Or something in
                it cannot be opened: all the rest has changed.
        """
        if self._load is None:
            raise UserError("there is no configuration file to read again")
        async with self._changing:
            configuration = await trio.to_thread.run_sync(self._load)
            if _globals(configuration) != _globals(self._configuration):
                raise UserError("what is new beside the readers needs a restart of ccidd")
            changes = await self._apply(configuration.readers)
            self._configuration = configuration
        found = {
            "added": changes.added,
            "removed": changes.removed,
            "changed": changes.changed,
        }
        log.info("reloaded", **{key: ",".join(names) for key, names in found.items() if names})
        self.events.emit("RELOADED", **found)
        return changes

    async def _apply(self, readers: Iterable[ReaderConfiguration]) -> Changes:
        wanted = {each.key: each for each in readers}
        served = {
            name: reader.configuration
            for name, reader in self.readers.items()
            if reader.configuration is not None
        }
        removed = [name for name in served if name not in wanted]
        for name in removed:
            await self._remove(name)
        added: list[str] = []
        changed: list[str] = []
        problems: list[str] = []
        for name, new in wanted.items():
            old = served.get(name)
            if old == new:
                continue
            try:
                if old is None:
                    await self._add(new)
                else:
                    await self._change(old, new)
            except UserError as error:
                problems.append(f"{error}")
            else:
                (added if old is None else changed).append(name)
        if problems:
            raise UserError("; ".join(problems))
        return Changes(added, removed, changed)

    async def _change(self, old: ReaderConfiguration, new: ReaderConfiguration) -> None:
        reader = self.readers[old.key]
        if self._check is not None:
            with _named(new):
                self._check(new)
        if _differ_in_cards_alone(old, new, len(reader.slots)):
            await reader.change_cards(new)
            return
        await self._remove(old.key)
        try:
            await self._add(new)
        except UserError:
            await self._add(old)
            raise

    async def _add(self, configuration: ReaderConfiguration) -> ServedReader:
        if configuration.key in self._places:
            raise UserError(f"there is a reader {configuration.key} already")
        assert self._nursery is not None
        # Cards may log in to tokens, and hash PINs.
        reader = await trio.to_thread.run_sync(self._opened, configuration)
        try:
            reader.open()
        except UserError:
            reader.close()
            raise
        self._places[reader.name] = place = _Place(reader)
        await self._nursery.start(self._keep, place)
        return reader

    async def _remove(self, name: str) -> None:
        place = self._places.get(name)
        if place is None:
            raise UserError(f"there is no reader {name}")
        await place.reader.stop()
        place.scope.cancel()
        await place.ended.wait()

    def _opened(self, configuration: ReaderConfiguration) -> ServedReader:
        assert self._open_reader is not None
        with _named(configuration):
            return self._open_reader(configuration)

    async def _keep(
        self, place: _Place, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serves a reader until it is removed, or no connection can come any more."""
        reader = place.reader
        reader.changed = self._tell_connections(reader)
        observer = SlotEvents(reader.name, self.events)
        self.events.emit("READER_ADDED", reader=reader.name)
        for slot in reader.slots:
            slot.observe(observer)
        try:
            with place.scope:
                await reader.run(task_status=task_status)
        finally:
            reader.close()
            self.was_served = self.was_served or reader.was_served
            del self._places[reader.name]
            place.ended.set()
            self.events.emit("READER_REMOVED", reader=reader.name)
            self.changed()
        if not self._places and not self._stays and not place.scope.cancelled_caught:
            self.quit()

    def _tell_connections(self, reader: ServedReader) -> Callable[[], None]:
        def tell() -> None:
            name = "CONNECTION_OPENED" if reader.is_connected else "CONNECTION_CLOSED"
            self.events.emit(name, reader=reader.name, guest=reader.guest.name)
            self.changed()

        return tell


class SlotEvents(SlotObserver):
    """Makes events of what happens in the slots of a reader.

    Args:
        reader: the reader's name.
        events: where they go.
    """

    def __init__(self, reader: str, events: Events) -> None:
        self._reader = reader
        self._events = events

    def inserted(self, slot: Slot) -> None:
        """See `SlotObserver.inserted`."""
        self._events.emit("CARD_INSERTED", reader=self._reader, slot=slot.index)

    def removed(self, slot: Slot) -> None:
        """See `SlotObserver.removed`."""
        self._events.emit("CARD_REMOVED", reader=self._reader, slot=slot.index)


def _globals(configuration: Configuration) -> Configuration:
    """Gives what a configuration says beside its readers."""
    return replace(configuration, readers=())


def _differ_in_cards_alone(
    old: ReaderConfiguration, new: ReaderConfiguration, slot_count: int
) -> bool:
    """Whether a reader can stay as it is while its cards change; the embedded card has no name."""
    return (
        replace(old, cards=new.cards) == new
        and bool(old.cards and new.cards)
        and new.profile(Path("/")).slots == slot_count
    )


@contextlib.contextmanager
def _named(configuration: ReaderConfiguration) -> Iterator[None]:
    """Has messages name the reader, where there are several."""
    try:
        yield
    except UserError as error:
        if configuration.name is None:
            raise
        raise UserError(f"the reader {configuration.name}: {error}") from error


def _ignore() -> None:
    """Nobody wants to know."""
