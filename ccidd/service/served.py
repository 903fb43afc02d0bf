# SPDX-License-Identifier: Apache-2.0
"""One reader at its front door, from the opening of its socket to its end."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import structlog
import trio

from ccidd.card.guard.guest import Guest
from ccidd.errors import UserError
from ccidd.reader.slot import Slot
from ccidd.service.configuration import ONLY_READER, ReaderConfiguration
from ccidd.service.options import CardOptions
from ccidd.service.slotcards import SlotCards
from ccidd.service.trace import Tracer
from ccidd.transport.endpoint import Endpoint, Handler
from ccidd.transport.serial import PseudoTerminal
from ccidd.transport.tls import peer_of

log: structlog.stdlib.BoundLogger = structlog.get_logger()

OpenEndpoint: TypeAlias = Callable[[], Endpoint]

Background: TypeAlias = Callable[[], Awaitable[None]]

STOP_TIMEOUT: Final = 3.0
"""Seconds that a connection has to end when its reader is to."""


class ServedReader(ABC):
    """A reader that guests can connect to.

    Args:
        slots: its slots.
        background: what is to run meanwhile, such as what puts cards into the slots.
        configuration: what it was made from, if it was.
        cards: what is in its slots, if that can be changed.
        guest: is told who is connected.
        tracer: looks on at what crosses the front door, if it can be traced.

    Attributes:
        is_connected: whether a guest is connected.
        was_served: whether a guest ever spoke the right protocol.
        changed: called when `is_connected` has changed; it must not wait.
    """

    def __init__(  # noqa: PLR0913 (each is another side of it)
        self,
        slots: Sequence[Slot],
        background: Sequence[Background] = (),
        *,
        configuration: ReaderConfiguration | None = None,
        cards: SlotCards | None = None,
        guest: Guest | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.slots: Final = slots
        self.configuration = configuration
        self.guest: Final = guest or Guest()
        self.resources: Final = contextlib.ExitStack()
        """What is closed when it is served no more, in the event loop."""
        self.tracer: Final = tracer
        self._cards = cards
        self._background = background
        if cards is not None:
            self._background = [cards.run, *background]
            self.resources.callback(cards.close)
        if tracer is not None:
            self.resources.callback(tracer.close)
        self.is_connected = False
        self.was_served = False
        self.changed: Callable[[], None] = _ignore

    @property
    def name(self) -> str:
        """Its name; the only one needs none, and is called `reader`."""
        return ONLY_READER if self.configuration is None else self.configuration.key

    @abstractmethod
    def open(self) -> None:
        """Opens what guests connect to.

        Raises:
            UserError: It cannot be opened.
        """

    def close(self) -> None:
        """Closes all that it has open; it is served no more."""
        self.resources.close()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until `stop` has ended, or until no connection can come any more.

        Args:
            task_status: started as soon as guests can connect.
        """
        structlog.contextvars.clear_contextvars()
        if self.configuration is not None and self.configuration.name is not None:
            structlog.contextvars.bind_contextvars(reader=self.name)
        if self.tracer is not None:
            self.tracer.begin()
        try:
            async with trio.open_nursery() as nursery:
                for task in self._background:
                    nursery.start_soon(task)
                await self._serve(task_status)
                nursery.cancel_scope.cancel()
        finally:
            if self.tracer is not None:
                with trio.CancelScope(shield=True), contextlib.suppress(UserError):
                    await self.tracer.stop()

    @abstractmethod
    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        """Serves while cards come and go."""

    @abstractmethod
    async def stop(self) -> None:
        """Unplugs the reader: what is in flight is answered, and the guest sees its cards go."""

    # Cards come and go.

    @property
    def cards(self) -> Sequence[CardOptions | None]:
        """What fills each slot, as far as that is known."""
        return [None] * len(self.slots) if self._cards is None else self._cards.cards

    async def insert_card(self, index: int, card: CardOptions) -> None:
        """Puts a card into a slot; see `SlotCards.insert`.

        Raises:
            UserError: It cannot be used, or the slot is taken.
        """
        await self._changeable_cards().insert(index, card)

    async def remove_card(self, index: int) -> None:
        """Takes the card out of a slot; see `SlotCards.remove`.

        Raises:
            UserError: There is none.
        """
        await self._changeable_cards().remove(index)

    async def change_cards(self, configuration: ReaderConfiguration) -> None:
        """Exchanges the cards that are not as a configuration says, and no others.

        Args:
            configuration: the same as before, but for its cards.

        Raises:
            UserError: A card cannot be used; its slots are empty then.
        """
        self.configuration = configuration
        await self._changeable_cards().change(configuration.cards)

    # Traces.

    async def start_trace(self, file: Path, *, with_secrets: bool = False) -> None:
        """Begins to write what crosses the front door; see `Tracer.start`.

        Args:
            file: where; an older trace that is there is replaced.
            with_secrets: whether PINs and keys are written as well.

        Raises:
            UserError: There is a trace already, or the file cannot be used.
        """
        await self._able_tracer().start(file, with_secrets=with_secrets)

    async def stop_trace(self) -> None:
        """Ends the trace.

        Raises:
            UserError: There is none.
        """
        await self._able_tracer().stop()

    def _able_tracer(self) -> Tracer:
        if self.tracer is None:
            raise UserError(f"the reader {self.name} cannot be traced")
        return self.tracer

    def _changeable_cards(self) -> SlotCards:
        if self._cards is None:
            raise UserError(f"the cards of the reader {self.name} cannot be changed")
        return self._cards

    def _set_connected(self, *, connected: bool) -> None:
        self.is_connected = connected
        self.changed()


class SocketReader(ServedReader):
    """A reader that QEMU connects to, over one connection at a time.

    Args:
        slots: its slots.
        open_endpoint: opens what connections come from.
        handler: serves a connection.
        background: what is to run meanwhile.
        configuration: what it was made from, if it was.
        cards: what is in its slots, if that can be changed.
        guest: is told who is connected.
        tracer: looks on at what crosses the front door, if it can be traced.
    """

    def __init__(  # noqa: PLR0913 (each is another side of it)
        self,
        slots: Sequence[Slot],
        open_endpoint: OpenEndpoint,
        handler: Handler,
        background: Sequence[Background] = (),
        *,
        configuration: ReaderConfiguration | None = None,
        cards: SlotCards | None = None,
        guest: Guest | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        super().__init__(
            slots,
            background,
            configuration=configuration,
            cards=cards,
            guest=guest,
            tracer=tracer,
        )
        self._open_endpoint = open_endpoint
        self._handler = handler
        self._connection = trio.Lock()
        self._stopping = False
        self._endpoint: Endpoint | None = None

    def open(self) -> None:
        """See `ServedReader.open`."""
        self._endpoint = self._open_endpoint()
        self.resources.callback(self._endpoint.close)

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        assert self._endpoint is not None
        await self._endpoint.run(self._handle, task_status=task_status)

    async def _handle(self, stream: trio.abc.Stream) -> bool:
        async with self._connection:
            if self._stopping:
                return False
            if (name := peer_of(stream)) is not None:
                self.guest.name = name
            log.info("connection_opened", guest=self.guest.name)
            self._set_connected(connected=True)
            try:
                served = await self._handler(stream)
            except Exception:
                # A fault of ours ends this connection; the next one may fare better.
                log.exception("connection_fault")
                return False
            finally:
                self._set_connected(connected=False)
            self.was_served = self.was_served or served
            return served

    async def stop(self) -> None:
        """See `ServedReader.stop`."""
        self._stopping = True
        for slot in self.slots:
            slot.unplug()
        with trio.move_on_after(STOP_TIMEOUT):
            await self._connection.acquire()


class LineReader(ServedReader):
    """A reader on a pseudo-terminal, for a program of this host.

    Args:
        slots: its slots.
        line: the pseudo-terminal; it is closed in the end.
        serve_on_line: serves the reader on the line until the slots are unplugged.
        configuration: what it was made from.
        cards: what is in its slots.
        guest: who is connected.
        tracer: looks on at what crosses the line.
    """

    def __init__(  # noqa: PLR0913 (each is another side of it)
        self,
        slots: Sequence[Slot],
        line: PseudoTerminal,
        serve_on_line: Background,
        *,
        configuration: ReaderConfiguration,
        cards: SlotCards,
        guest: Guest,
        tracer: Tracer,
    ) -> None:
        super().__init__(
            slots, configuration=configuration, cards=cards, guest=guest, tracer=tracer
        )
        self._serve_on_line = serve_on_line
        self._ended = trio.Event()
        self.was_served = True
        self.resources.callback(line.close)

    def open(self) -> None:
        """See `ServedReader.open`: the line is open already."""

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await self._serve_on_line()
        self._ended.set()

    async def stop(self) -> None:
        """See `ServedReader.stop`."""
        for slot in self.slots:
            slot.unplug()
        with trio.move_on_after(STOP_TIMEOUT):
            await self._ended.wait()


def _ignore() -> None:
    """Nobody wants to know."""
