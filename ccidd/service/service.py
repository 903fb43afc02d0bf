# SPDX-License-Identifier: Apache-2.0
"""All that a ccidd serves: readers that come and go, and that know nothing of each other."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

import structlog
import trio

from ccidd.errors import UserError
from ccidd.service.apdulog import ApduLog
from ccidd.service.cardevents import CardEvents
from ccidd.service.configuration import Configuration, ReaderConfiguration
from ccidd.service.events import Events
from ccidd.service.requests import Requests
from ccidd.service.sandbox.confine import NOT_CONFINED, Confinement
from ccidd.service.sandbox.sandbox import Sandbox
from ccidd.service.served import ServedReader
from ccidd.service.statistics import MetricsFile, Statistics

log: structlog.stdlib.BoundLogger = structlog.get_logger()

OpenReader: TypeAlias = Callable[[ReaderConfiguration], ServedReader]
"""Opens a reader with its cards; it may block, and raises UserError."""

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
        stays: whether to go on when no reader is left.
        sandbox: what is to be stayed within, if anything is.
        events: where to tell what happens.
        requests: where readers put their questions to people.
        metrics_file: where the statistics are written, again and again.

    Attributes:
        sandbox: what is to be stayed within, if anything is.
        events: what happens to readers and cards.
        requests: questions that wait for an agent.
        statistics: how often it happens, and how long it takes.
        changed: called when readers, or their connections, have changed; it must not wait.
        was_served: whether a guest ever spoke the right protocol.
        was_told: whether it ends because it was told to.
    """

    def __init__(  # noqa: PLR0913 (each is another side of it)
        self,
        open_reader: OpenReader | None = None,
        load: LoadConfiguration | None = None,
        *,
        stays: bool = False,
        sandbox: Sandbox | None = None,
        events: Events | None = None,
        requests: Requests | None = None,
        metrics_file: Path | None = None,
    ) -> None:
        self._open_reader = open_reader
        self._load = load
        self._stays = stays
        self._configuration = Configuration(())
        self._places: dict[str, _Place] = {}
        self._changing = trio.Lock()
        self._over = trio.Event()
        self._nursery: trio.Nursery | None = None
        self.sandbox: Final = sandbox
        self.events: Final = events or Events()
        self.requests: Final = requests or Requests(self.events)
        self.statistics: Final = Statistics()
        self._metrics = None if metrics_file is None else MetricsFile(metrics_file, self.statistics)
        self.changed: Callable[[], None] = _ignore
        self.was_served = False
        self.was_told = False

    @property
    def readers(self) -> Mapping[str, ServedReader]:
        """The readers by their names."""
        return MappingProxyType({name: place.reader for name, place in self._places.items()})

    @property
    def confinement(self) -> Confinement:
        """What keeps ccidd to what it needs."""
        return NOT_CONFINED if self.sandbox is None else self.sandbox.confinement

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
            if self._metrics is not None:
                nursery.start_soon(self._metrics.run)
            task_status.started()
            await self._over.wait()
            self.events.emit("STOPPING")
            async with trio.open_nursery() as stopping:
                for reader in self.readers.values():
                    stopping.start_soon(reader.stop)
            if self._metrics is not None:
                await self._metrics.finish()
            nursery.cancel_scope.cancel()

    def quit(self) -> None:
        """Has it end: what is in flight is answered, cards and readers go, and sockets close."""
        self.was_told = True
        self._over.set()

    @property
    def is_over(self) -> bool:
        """Whether it is to end, or has ended."""
        return self._over.is_set()

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

        Readers of which it says what it said before are left alone, and so are those that were
        added at run time and that it does not name. Where a changed one cannot be opened, the
        reader is served as before.

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
            # Readers that were added at run time are no matter of the file.
            before = {each.key for each in self._configuration.readers}
            self._configuration = configuration
            changes = await self._apply(configuration.readers, before)
        found = {
            "added": changes.added,
            "removed": changes.removed,
            "changed": changes.changed,
        }
        log.info("reloaded", **{key: ",".join(names) for key, names in found.items() if names})
        self.events.emit("RELOADED", **found)
        return changes

    async def _apply(
        self, readers: Iterable[ReaderConfiguration], before: Collection[str]
    ) -> Changes:
        wanted = {each.key: each for each in readers}
        served = {
            name: reader.configuration
            for name, reader in self.readers.items()
            if reader.configuration is not None
        }
        removed = [name for name in served if name in before and name not in wanted]
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
        if self.sandbox is not None:
            with new.where.naming():
                self.sandbox.check(new)
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
        self.changed()
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
        with configuration.where.naming():
            return self._open_reader(configuration)

    async def _keep(
        self, place: _Place, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serves a reader until it is removed, or no connection can come any more."""
        reader = place.reader
        reader.changed = self._tell_connections(reader)
        if reader.tracer is not None:
            reader.tracer.changed = self._tell_traces(reader)
        observers = [
            self.statistics.add(reader.name, len(reader.slots)),
            ApduLog(),
            CardEvents(reader.name, reader.guest, self.events),
        ]
        self.events.emit("READER_ADDED", reader=reader.name)
        for slot, observer in product(reader.slots, observers):
            slot.observe(observer)
        try:
            with place.scope:
                await reader.run(task_status=task_status)
        finally:
            reader.close()
            self.was_served = self.was_served or reader.was_served
            del self._places[reader.name]
            if place.scope.cancelled_caught:
                self.statistics.remove(reader.name)
            place.ended.set()
            self.events.emit("READER_REMOVED", reader=reader.name)
            self.changed()
        if not self._places and not self._stays and not place.scope.cancelled_caught:
            self._over.set()

    def _tell_connections(self, reader: ServedReader) -> Callable[[], None]:
        def tell() -> None:
            name = "CONNECTION_OPENED" if reader.is_connected else "CONNECTION_CLOSED"
            if reader.is_connected:
                self.statistics.connected(reader.name)
            self.events.emit(name, reader=reader.name, guest=reader.guest.name)
            self.changed()

        return tell

    def _tell_traces(self, reader: ServedReader) -> Callable[[Path, bool], None]:
        def tell(file: Path, is_running: bool) -> None:  # noqa: FBT001 (a callback)
            name = "TRACE_STARTED" if is_running else "TRACE_STOPPED"
            self.events.emit(name, reader=reader.name, file=str(file))

        return tell


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


def _ignore() -> None:
    """Nobody wants to know."""
