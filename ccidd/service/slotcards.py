# SPDX-License-Identifier: Apache-2.0
"""The cards in the slots of a reader, which can be changed while the reader is served."""

import contextvars
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import trio

from ccidd.errors import UserError
from ccidd.reader.slot import Slot
from ccidd.service.options import CardOptions
from ccidd.service.state import State
from ccidd.service.supply import CardSupply, Filling

OpenSupply: TypeAlias = Callable[[CardOptions, State], CardSupply]
"""Opens what a `--card` describes; what it opens for itself is closed with the state's resources.

It may block, and raises UserError.
"""

_LAST_CALL: Final = 3.0
"""Seconds that a card has to end what it is at, until what it is made of is closed."""


@dataclass(slots=True)
class _Occupation:
    """What fills one or more slots, from its opening to its closing."""

    first: int
    options: CardOptions
    state: State
    filling: Filling
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)

    def __contains__(self, index: object) -> bool:
        return index in range(self.first, self.first + len(self.filling.slots))


class SlotCards:
    """The slots of a reader, and what fills them.

    Args:
        slot_count: how many slots there are.
        open_supply: opens a card.
        state: what the cards remember.
    """

    def __init__(self, slot_count: int, open_supply: OpenSupply, state: State) -> None:
        self.slots: Final[Sequence[Slot]] = [Slot(index=index) for index in range(slot_count)]
        self._open_supply = open_supply
        self._state = state
        self._occupations: list[_Occupation] = []
        self._changing = trio.Lock()
        self._nursery: trio.Nursery | None = None
        # What the log is told of the reader, whoever has a card put in.
        self._context = contextvars.copy_context()
        self._is_over = False

    @property
    def cards(self) -> Sequence[CardOptions | None]:
        """What fills each slot."""
        occupations = [self._find(index) for index in range(len(self.slots))]
        return [None if each is None else each.options for each in occupations]

    def put(self, index: int, options: CardOptions) -> None:
        """Puts a card in before the reader is served; it may block.

        Args:
            index: the slot, the first one for what fills several.
            options: the card.

        Raises:
            UserError: It cannot be used, or there is no room for it.
        """
        self._add(self._open(index, options))

    async def insert(self, index: int, options: CardOptions) -> None:
        """Puts a card in while the reader is served.

        Args:
            index: the slot, the first one for what fills several.
            options: the card.

        Raises:
            UserError: As `put`.
        """
        async with self._changing:
            # It may log in to a token, or hash a PIN.
            occupation = await trio.to_thread.run_sync(self._open, index, options)
            if self._is_over:
                occupation.state.resources.close()
                raise UserError("the reader has gone meanwhile")
            self._add(occupation)

    async def remove(self, index: int) -> None:
        """Takes out what fills a slot, from all its slots, and closes it.

        Raises:
            UserError: Nothing fills it, or there is no such slot.
        """
        async with self._changing:
            self._check(index)
            occupation = self._find(index)
            if occupation is None:
                raise UserError(f"slot {index} is empty")
            occupation.scope.cancel()
            await occupation.ended.wait()

    async def change(self, cards: Sequence[CardOptions]) -> None:
        """Exchanges what is not as it should be, and touches nothing else.

        Args:
            cards: what is to fill the slots, in their order.

        Raises:
            UserError: A card cannot be used; its slots are then empty, and all others are changed.
        """
        wanted = dict(placed(cards))
        for index in [each.first for each in self._occupations]:
            occupation = self._find(index)
            if occupation is not None and occupation.options != wanted.get(index):
                await self.remove(index)
        problems = []
        for index, options in wanted.items():
            if self._find(index) is None:
                try:
                    await self.insert(index, options)
                except UserError as error:
                    problems.append(f"slot {index}: {error}")
        if problems:
            raise UserError("; ".join(problems))

    async def run(self) -> None:
        """Has cards come and go, until it is cancelled; then all are closed."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._context = contextvars.copy_context()
                for occupation in self._occupations:
                    nursery.start_soon(self._keep, occupation)
                await trio.sleep_forever()
        finally:
            self._is_over = True

    def close(self) -> None:
        """Closes what was put in, if it never ran."""
        for occupation in self._occupations:
            occupation.state.resources.close()

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self.slots):
            raise UserError(f"there is no slot {index}; the reader has {len(self.slots)}, from 0")

    def _find(self, index: int) -> _Occupation | None:
        return next((each for each in self._occupations if index in each), None)

    def _open(self, first: int, options: CardOptions) -> _Occupation:
        slots = range(first, first + options.slot_count)
        for index in slots:
            self._check(index)
            if self._find(index) is not None:
                raise UserError(f"slot {index} has a card; remove it first")
        state = self._state.share()
        try:
            supply = self._open_supply(options, state)
        except BaseException:
            state.resources.close()
            raise
        filling = Filling(supply, [self.slots[index] for index in slots])
        return _Occupation(first, options, state, filling)

    def _add(self, occupation: _Occupation) -> None:
        occupation.filling.prepare()
        self._occupations.append(occupation)
        if self._nursery is not None:
            self._context.run(self._nursery.start_soon, self._keep, occupation)

    async def _keep(self, occupation: _Occupation) -> None:
        """Follows a card until it is to go."""
        try:
            with occupation.scope:
                await occupation.filling.run()
        finally:
            with trio.CancelScope(shield=True):
                with trio.move_on_after(_LAST_CALL):
                    await occupation.filling.withdraw()
                await trio.to_thread.run_sync(occupation.state.resources.close)
            self._occupations.remove(occupation)
            occupation.ended.set()


def placed(cards: Sequence[CardOptions]) -> Iterator[tuple[int, CardOptions]]:
    """Gives each card with the number of its first slot."""
    first = 0
    for options in cards:
        yield first, options
        first += options.slot_count
