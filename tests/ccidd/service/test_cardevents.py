# SPDX-License-Identifier: Apache-2.0
"""What guests do with cards, as those hear of it who watch the service."""

from collections.abc import Iterator

import pytest
import trio.testing
from structlog.testing import capture_logs

import piv
from ccid_protocol.apdu import ResponseAPDU
from ccidd.card.card import Card
from ccidd.card.guard.guard import Guard, Rules
from ccidd.card.guard.guest import Guest
from ccidd.card.guard.operations import MANAGE, NOTHING, USE
from ccidd.card.piv.card import piv_card
from ccidd.reader.slot import Slot
from ccidd.service.cardevents import CardEvents
from ccidd.service.events import JSON, Events, Subscription
from ccidd.service.exchanges import Exchanges
from recording_card import OPENPGP, PIV, RecordingCard, select

WRONG = "0020008008303030303030FFFF"
RIGHT = "0020008008313233343536FFFF"
PUK_WRONG = "002C008010" + "39" * 8 + "313233343536FFFF"
ON_CARD = {"reader": "alice", "slot": 2, "guest": "vm"}
OF_PIN = {**ON_CARD, "card": "PIV card", "pin": "80"}


class Watched:
    """A card in a slot, and what is heard of it."""

    def __init__(self, card: Card, subscription: Subscription, events: Events) -> None:
        self.slot = Slot(card, 2)
        self.slot.observe(Exchanges(CardEvents("alice", Guest("vm"), events)))
        self._subscription = subscription

    async def send(self, *commands: str) -> list[int]:
        insertion = self.slot.insertion
        assert insertion is not None
        raw = [await insertion.transmit(bytes.fromhex(command)) for command in commands]
        return [ResponseAPDU.decode(each).sw for each in raw]

    async def power_on(self) -> None:
        assert self.slot.insertion is not None
        await self.slot.insertion.power_on()

    async def heard(self) -> list[tuple[str, dict[str, JSON]]]:
        """Gives what has not been heard yet."""
        heard = []
        with trio.move_on_after(0):
            while True:
                event = await self._subscription.next()
                heard.append((event.name, dict(event.data)))
        return heard


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def subscription(events: Events) -> Iterator[Subscription]:
    with events.subscribe() as subscription:
        yield subscription


async def watched(card: Card, subscription: Subscription, events: Events, aid: str) -> Watched:
    watched = Watched(card, subscription, events)
    await watched.power_on()
    await watched.send(select(aid))
    assert await watched.heard() == [("CARD_INSERTED", {"reader": "alice", "slot": 2})]
    return watched


async def test_wrong_pins_are_told_with_the_tries_that_are_left(
    subscription: Subscription, events: Events
) -> None:
    alice = await watched(piv_card({}, piv.new_memory()), subscription, events, PIV)
    with capture_logs() as logs:
        assert await alice.send(WRONG, RIGHT, "00200080") == [0x63C2, 0x9000, 0x9000]
    assert await alice.heard() == [("PIN_FAILED", {**OF_PIN, "tries-left": 2})]
    assert [(entry["event"], entry["tries_left"]) for entry in logs] == [("pin_failed", 2)]
    assert "303030" not in f"{logs}"


async def test_a_blocked_pin_is_told_once(subscription: Subscription, events: Events) -> None:
    alice = await watched(piv_card({}, piv.new_memory()), subscription, events, PIV)
    await alice.send(*[WRONG] * 5)
    failed = [("PIN_FAILED", {**OF_PIN, "tries-left": left}) for left in (2, 1, 0)]
    assert await alice.heard() == [*failed, ("PIN_BLOCKED", OF_PIN)]
    # The card of before, and so what is known of it, may not be the next one.
    card = alice.slot.insertion
    assert card is not None
    alice.slot.insert(card.card)
    await alice.power_on()
    await alice.send(select(PIV), WRONG)
    assert (await alice.heard())[-1] == ("PIN_BLOCKED", OF_PIN)


async def test_other_codes_are_told_by_their_own_references(
    subscription: Subscription, events: Events
) -> None:
    alice = await watched(piv_card({}, piv.new_memory()), subscription, events, PIV)
    assert await alice.send(PUK_WRONG) == [0x63C2]
    assert await alice.heard() == [("PIN_FAILED", {**OF_PIN, "pin": "81", "tries-left": 2})]


async def test_a_card_that_does_not_count_in_its_status_words_is_understood(
    subscription: Subscription, events: Events
) -> None:
    wrong = ResponseAPDU(sw=0x6982)
    card = RecordingCard(answers={"00200081": lambda: wrong})
    alice = await watched(card, subscription, events, OPENPGP)
    await alice.send("0020008106303030303030", "00200081", "00240081083030303031313131")
    told = {**ON_CARD, "card": "OpenPGP card", "pin": "81"}
    assert await alice.heard() == [("PIN_FAILED", told)]


async def test_what_a_guard_refuses_is_told_and_is_no_blocked_pin(
    subscription: Subscription, events: Events
) -> None:
    guarded = Guard(piv_card({}, piv.new_memory()), Rules(USE, 1, NOTHING))
    alice = await watched(guarded, subscription, events, PIV)
    assert await alice.send("00DB3FFF055C035FC105", WRONG, WRONG) == [0x6985, 0x63C1, 0x63C0]
    assert await alice.send(WRONG, "00CB3FFF035C017E00") == [0x6983, 0x9000]
    assert await alice.heard() == [
        ("GUARD_REFUSED", {**ON_CARD, "instruction": "PUT DATA", "reason": "policy"}),
        ("PIN_FAILED", {**OF_PIN, "tries-left": 1}),
        ("PIN_FAILED", {**OF_PIN, "tries-left": 0}),
        ("PIN_BLOCKED", OF_PIN),
        (
            "GUARD_REFUSED",
            {**ON_CARD, "instruction": "VERIFY", "reason": "retry-floor", "key": "80"},
        ),
    ]


async def test_what_a_guard_lets_through_is_told_as_of_any_card(
    subscription: Subscription, events: Events
) -> None:
    guarded = Guard(piv_card({}, piv.new_memory()), Rules(MANAGE, 0, NOTHING))
    alice = await watched(guarded, subscription, events, PIV)
    await alice.send(WRONG)
    assert await alice.heard() == [("PIN_FAILED", {**OF_PIN, "tries-left": 2})]


async def test_cards_that_go_are_told(subscription: Subscription, events: Events) -> None:
    alice = await watched(piv_card({}, piv.new_memory()), subscription, events, PIV)
    alice.slot.remove()
    assert await alice.heard() == [("CARD_REMOVED", {"reader": "alice", "slot": 2})]
