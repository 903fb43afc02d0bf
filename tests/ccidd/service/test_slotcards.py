# SPDX-License-Identifier: Apache-2.0
"""Cards that are changed while their reader is served."""

import threading
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from cards import ScriptedCard, echo_card
from ccidd.card.card import Card
from ccidd.errors import UserError
from ccidd.reader.slot import Slot
from ccidd.service import slotcards
from ccidd.service.options import CardOptions, parse_card
from ccidd.service.slotcards import SlotCards
from ccidd.service.state import State
from ccidd.service.supply import CardSupply, FixedCard

FIRST, SECOND = parse_card("piv,card=first"), parse_card("piv,card=second")
TOKENS = parse_card("piv,token=any,slots=2")


class Tokens(CardSupply):
    """Two slots, the second of which has a card."""

    @property
    def slot_count(self) -> int:
        return 2

    async def run(self, slots: Sequence[Slot]) -> None:
        slots[1].insert(echo_card())
        await trio.sleep_forever()


class Cards:
    """Opens cards, and notes what becomes of what they are made of."""

    def __init__(self) -> None:
        self.cards: dict[str, Card] = {}
        self.history: list[str] = []

    def open(self, options: CardOptions, state: State) -> CardSupply:
        if options == TOKENS:
            return Tokens()
        name = options.one("card") or ""
        state.resources.callback(self.history.append, f"{name} closed")
        if name == "damaged":
            raise UserError("it is damaged")
        self.history.append(f"{name} opened")
        return FixedCard(self.cards.setdefault(name, echo_card()))


@pytest.fixture
def opened() -> Cards:
    return Cards()


@pytest.fixture
def cards(opened: Cards, state: State) -> SlotCards:
    return SlotCards(3, opened.open, state)


def content(cards: SlotCards) -> list[Card | None]:
    return [None if each.insertion is None else each.insertion.card for each in cards.slots]


async def test_cards_are_changed_one_by_one(
    opened: Cards, cards: SlotCards, nursery: trio.Nursery
) -> None:
    cards.put(0, FIRST)
    nursery.start_soon(cards.run)
    await trio.testing.wait_all_tasks_blocked()
    await cards.insert(2, SECOND)
    assert content(cards) == [opened.cards["first"], None, opened.cards["second"]]
    assert cards.cards == [FIRST, None, SECOND]
    await cards.remove(0)
    assert content(cards) == [None, None, opened.cards["second"]]
    assert opened.history == ["first opened", "second opened", "first closed"]
    nursery.cancel_scope.cancel()


async def test_a_card_is_closed_when_it_has_done_what_it_was_at(
    opened: Cards, cards: SlotCards, nursery: trio.Nursery
) -> None:
    signed = trio.Event()

    async def sign(command: bytes) -> bytes:
        with trio.CancelScope(shield=True):
            await signed.wait()
        return command

    opened.cards["first"] = ScriptedCard(sign)
    cards.put(0, FIRST)
    nursery.start_soon(cards.run)
    await trio.testing.wait_all_tasks_blocked()
    insertion = cards.slots[0].insertion
    assert insertion is not None
    nursery.start_soon(insertion.transmit, b"sign")
    await trio.testing.wait_all_tasks_blocked()
    async with trio.open_nursery() as removal:
        removal.start_soon(cards.remove, 0)
        await trio.testing.wait_all_tasks_blocked()
        assert content(cards) == [None, None, None]
        assert "first closed" not in opened.history
        signed.set()
    assert opened.history[-1] == "first closed"
    nursery.cancel_scope.cancel()


async def test_a_card_that_never_ends_is_closed_after_a_while(
    opened: Cards, cards: SlotCards, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slotcards, "_LAST_CALL", 0.01)

    async def hang(command: bytes) -> bytes:
        with trio.CancelScope(shield=True):
            await released.wait()
        return command

    released = trio.Event()
    opened.cards["first"] = ScriptedCard(hang)
    cards.put(0, FIRST)
    nursery.start_soon(cards.run)
    await trio.testing.wait_all_tasks_blocked()
    insertion = cards.slots[0].insertion
    assert insertion is not None
    nursery.start_soon(insertion.transmit, b"hang")
    await trio.testing.wait_all_tasks_blocked()
    await cards.remove(0)
    assert opened.history[-1] == "first closed"
    released.set()
    nursery.cancel_scope.cancel()


async def test_all_are_closed_in_the_end(opened: Cards, cards: SlotCards) -> None:
    cards.put(0, FIRST)
    cards.put(1, SECOND)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cards.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sorted(opened.history[2:]) == ["first closed", "second closed"]
    cards.close()
    assert len(opened.history) == 4


def test_what_never_ran_is_closed_too(opened: Cards, cards: SlotCards) -> None:
    cards.put(0, FIRST)
    cards.close()
    assert opened.history == ["first opened", "first closed"]


async def test_what_fills_several_slots_goes_from_all_of_them(
    cards: SlotCards, nursery: trio.Nursery
) -> None:
    nursery.start_soon(cards.run)
    await trio.testing.wait_all_tasks_blocked()
    await cards.insert(1, TOKENS)
    await trio.testing.wait_all_tasks_blocked()
    assert [each is not None for each in content(cards)] == [False, False, True]
    assert cards.cards == [None, TOKENS, TOKENS]
    await cards.remove(2)
    assert content(cards) == [None, None, None]
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("index", "card", "message"),
    [
        (0, SECOND, "slot 0 has a card; remove it first"),
        (3, SECOND, "there is no slot 3; the reader has 3, from 0"),
        (-1, SECOND, "there is no slot -1"),
        (2, TOKENS, "there is no slot 3"),
        (1, parse_card("piv,card=damaged"), "it is damaged"),
    ],
)
async def test_a_card_that_cannot_be_put_in_changes_nothing(
    opened: Cards,
    cards: SlotCards,
    nursery: trio.Nursery,
    *,
    index: int,
    card: CardOptions,
    message: str,
) -> None:
    cards.put(0, FIRST)
    nursery.start_soon(cards.run)
    with pytest.raises(UserError, match=message):
        await cards.insert(index, card)
    assert cards.cards == [FIRST, None, None]
    assert opened.history in (["first opened"], ["first opened", "damaged closed"])
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("index", "message"), [(1, "slot 1 is empty"), (3, "there is no slot 3")])
async def test_there_must_be_something_to_remove(
    cards: SlotCards, index: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        await cards.remove(index)


async def test_a_change_touches_no_card_that_stays(
    opened: Cards, cards: SlotCards, nursery: trio.Nursery
) -> None:
    cards.put(0, FIRST)
    cards.put(1, TOKENS)
    nursery.start_soon(cards.run)
    await trio.testing.wait_all_tasks_blocked()
    stays = cards.slots[0].insertion
    await cards.change([FIRST, SECOND])
    assert cards.cards == [FIRST, SECOND, None]
    assert cards.slots[0].insertion is stays
    with pytest.raises(UserError, match=r"slot 0: it is damaged"):
        await cards.change([parse_card("piv,card=damaged"), FIRST])
    assert cards.cards == [None, FIRST, None]
    nursery.cancel_scope.cancel()


async def test_a_card_that_comes_too_late_is_closed_again(opened: Cards, state: State) -> None:
    may_open = threading.Event()

    def open_slowly(options: CardOptions, state: State) -> CardSupply:
        may_open.wait(30)
        return opened.open(options, state)

    cards = SlotCards(1, open_slowly, state)
    outcome = []

    async def insert() -> None:
        with pytest.raises(UserError, match="the reader has gone meanwhile"):
            await cards.insert(0, FIRST)
        outcome.append("refused")

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as running:
            running.start_soon(cards.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(insert)
            await trio.testing.wait_all_tasks_blocked()
            running.cancel_scope.cancel()
        may_open.set()
    assert outcome == ["refused"]
    assert opened.history == ["first opened", "first closed"]
