# SPDX-License-Identifier: Apache-2.0
import enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.errors import LocalProtocolError
from ccid_protocol.t1 import (
    CARD_WORKS,
    DEFAULT_IFS,
    MAX_INF,
    MAX_RESPONSE,
    Block,
    CardEnd,
    CardWorks,
    CommandReady,
    IBlock,
    RBlock,
    SBlock,
    Supervisory,
    decode,
    encode,
)
from t1_blocks import (
    ABORT,
    ABORT_RESPONSE,
    EDC_ERROR,
    GARBAGE,
    IFS_RESPONSE,
    OTHER_ERROR,
    RESYNCH,
    RESYNCH_RESPONSE,
    WTX,
    WTX_RESPONSE,
    any_blocks,
)


class Card:
    """A card's end that is asked in blocks, with a card that answers when it is told to."""

    def __init__(self, end: CardEnd | None = None) -> None:
        self.end = end or CardEnd()

    def ask(self, block: Block | bytes) -> Block | CommandReady | CardWorks:
        answer = self.end.receive_block(block if isinstance(block, bytes) else encode(block))
        return decode(answer) if isinstance(answer, bytes) else answer

    def respond(self, apdu: bytes) -> Block:
        return decode(self.end.send_response(apdu))

    def extend(self, multiplier: int) -> Block:
        return decode(self.end.request_extension(multiplier))


@pytest.fixture(name="card")
def fixture_card() -> Card:
    return Card()


@pytest.fixture(name="answered")
def fixture_answered(card: Card) -> Card:
    """A card that has just answered one command."""
    assert card.ask(IBlock(0, inf=b"one")) == CommandReady(b"one")
    assert card.respond(b"\x90\x00") == IBlock(0, inf=b"\x90\x00")
    return card


def test_a_card_counts_the_commands_and_its_responses_modulo_2(answered: Card) -> None:
    assert answered.ask(IBlock(1, inf=b"two")) == CommandReady(b"two")
    assert answered.respond(b"\x90\x00") == IBlock(1, inf=b"\x90\x00")
    assert answered.ask(IBlock(0, inf=b"three")) == CommandReady(b"three")


def test_a_card_joins_the_blocks_of_a_command(card: Card) -> None:
    assert card.ask(IBlock(0, more=True, inf=b"a")) == RBlock(1)
    assert card.ask(IBlock(1, more=True, inf=b"b")) == RBlock(0)
    assert card.ask(IBlock(0, inf=b"c")) == CommandReady(b"abc")
    assert not card.end._incoming


def test_a_card_splits_its_response_at_the_ifsd(card: Card) -> None:
    assert card.ask(SBlock(Supervisory.IFS, value=2)) == SBlock(
        Supervisory.IFS, response=True, value=2
    )
    card.ask(IBlock(0))
    assert card.respond(b"abcde") == IBlock(0, more=True, inf=b"ab")
    assert card.ask(RBlock(1)) == IBlock(1, more=True, inf=b"cd")
    assert card.ask(RBlock(0)) == IBlock(0, inf=b"e")
    assert card.ask(IBlock(1)) == CommandReady(b"")


def test_a_response_of_exactly_the_ifsd_is_one_block(card: Card) -> None:
    card.ask(IBlock(0))
    assert card.respond(bytes(DEFAULT_IFS)) == IBlock(0, inf=bytes(DEFAULT_IFS))


def test_a_reader_may_have_told_the_ifsd_before() -> None:
    card = Card(CardEnd(ifsd=MAX_INF))
    card.ask(IBlock(0))
    assert card.respond(bytes(MAX_INF)) == IBlock(0, inf=bytes(MAX_INF))


def test_the_first_block_of_a_card_asks_for_block_0_if_the_one_before_was_damaged(
    card: Card,
) -> None:
    assert card.ask(GARBAGE) == RBlock(0, EDC_ERROR)
    assert card.ask(IBlock(0)) == CommandReady(b"")


def test_a_card_repeats_its_r_block_whatever_is_wrong_the_second_time(card: Card) -> None:
    assert card.ask(GARBAGE) == RBlock(0, EDC_ERROR)
    assert card.ask(b"") == RBlock(0, EDC_ERROR)
    assert card.ask(IBlock(0, more=True)) == RBlock(1)
    assert card.ask(GARBAGE) == RBlock(1)


def test_a_damaged_block_after_a_response_is_answered_by_an_r_block(answered: Card) -> None:
    assert answered.ask(b"\0") == RBlock(1, OTHER_ERROR)
    assert answered.ask(RBlock(0)) == IBlock(0, inf=b"\x90\x00")


def test_a_card_sends_its_response_again_when_asked(answered: Card) -> None:
    for _ in range(5):
        assert answered.ask(RBlock(0, EDC_ERROR)) == IBlock(0, inf=b"\x90\x00")


def test_a_card_does_not_go_back_to_a_response_that_was_followed_by_a_command(
    answered: Card,
) -> None:
    assert answered.ask(IBlock(1, more=True)) == RBlock(0)
    assert answered.ask(RBlock(0)) == RBlock(0)


def test_a_card_asks_for_a_command_of_which_it_only_hears_that_it_was_lost(answered: Card) -> None:
    assert answered.ask(RBlock(1)) == RBlock(1)
    assert answered.ask(IBlock(1)) == CommandReady(b"")


def test_a_card_acknowledges_a_block_again_when_asked(card: Card) -> None:
    assert card.ask(IBlock(0, more=True)) == RBlock(1)
    assert card.ask(RBlock(0)) == RBlock(1)
    assert card.ask(IBlock(1)) == CommandReady(b"")


def test_a_command_that_comes_twice_is_executed_once(answered: Card) -> None:
    assert answered.ask(IBlock(0, inf=b"one")) == RBlock(1, OTHER_ERROR)
    assert answered.ask(RBlock(0)) == IBlock(0, inf=b"\x90\x00")


def test_a_block_of_a_chain_that_comes_twice_counts_once(card: Card) -> None:
    assert card.ask(IBlock(0, more=True, inf=b"a")) == RBlock(1)
    assert card.ask(IBlock(0, more=True, inf=b"a")) == RBlock(1)
    assert card.ask(IBlock(1, inf=b"b")) == CommandReady(b"ab")


def test_a_block_above_the_ifsc_is_invalid() -> None:
    card = Card(CardEnd(ifsc=3))
    assert card.ask(IBlock(0, inf=b"abcd")) == RBlock(0, OTHER_ERROR)
    assert card.ask(IBlock(0, inf=b"abc")) == CommandReady(b"abc")


def test_only_an_r_block_goes_on_with_a_response(card: Card) -> None:
    card.ask(IBlock(0))
    assert card.respond(b"a" * 40) == IBlock(0, more=True, inf=b"a" * 32)
    assert card.ask(IBlock(1)) == RBlock(1, OTHER_ERROR)
    assert card.ask(RBlock(1)) == IBlock(1, inf=b"a" * 8)


def test_a_card_uses_the_nad_of_its_reader_with_the_nodes_exchanged() -> None:
    card = CardEnd(nad=0x12)
    assert card.receive_block(encode(RBlock(0), 0x12)) == encode(RBlock(0), 0x21)
    assert card.receive_block(encode(IBlock(0), 0x00)) == encode(RBlock(0), 0x21)
    assert card.receive_block(encode(IBlock(0), 0x12)) == CommandReady(b"")


def test_a_card_may_take_its_time(card: Card) -> None:
    card.ask(IBlock(0))
    for _ in range(3):
        assert card.extend(3) == WTX
        assert card.ask(WTX_RESPONSE) is CARD_WORKS
    assert card.respond(b"\x90\x00") == IBlock(0, inf=b"\x90\x00")


@pytest.mark.parametrize(
    "block",
    [
        GARBAGE,
        RBlock(0),
        RBlock(1),
        IBlock(1),
        WTX,
        SBlock(Supervisory.WTX, response=True, value=4),
    ],
)
def test_a_card_repeats_its_request_until_it_is_answered(card: Card, block: Block | bytes) -> None:
    card.ask(IBlock(0))
    card.extend(3)
    assert card.ask(block) == WTX
    assert card.ask(WTX_RESPONSE) is CARD_WORKS


@pytest.mark.parametrize("block", [GARBAGE, RBlock(0), IBlock(0), IBlock(1), WTX_RESPONSE, ABORT])
def test_a_block_while_the_card_works_waits_for_the_response(
    card: Card, block: Block | bytes
) -> None:
    card.ask(IBlock(0))
    assert card.ask(block) is CARD_WORKS
    assert card.respond(b"\x90\x00") == IBlock(0, inf=b"\x90\x00")


def test_a_resynchronised_card_starts_anew(card: Card) -> None:
    card.ask(SBlock(Supervisory.IFS, value=2))
    card.ask(IBlock(0))
    card.respond(b"abc")
    assert card.ask(RESYNCH) == RESYNCH_RESPONSE
    assert card.ask(IBlock(0, more=True, inf=b"lost")) == RBlock(1)
    assert card.ask(RESYNCH) == RESYNCH_RESPONSE
    assert card.ask(RBlock(0)) == RBlock(0)
    assert card.ask(IBlock(0, inf=b"new")) == CommandReady(b"new")
    assert card.respond(b"abc") == IBlock(0, inf=b"abc")


@pytest.mark.parametrize("extensions", [0, 1])
def test_resynchronisation_ends_a_command(card: Card, extensions: int) -> None:
    card.ask(IBlock(0))
    for _ in range(extensions):
        card.extend(1)
    assert card.ask(RESYNCH) == RESYNCH_RESPONSE
    assert not card.end.works
    with pytest.raises(LocalProtocolError):
        card.end.send_response(b"\x90\x00")


def test_the_host_may_abort_its_command(card: Card) -> None:
    assert card.ask(IBlock(0, more=True, inf=b"lost")) == RBlock(1)
    assert card.ask(ABORT) == ABORT_RESPONSE
    assert card.ask(IBlock(1, inf=b"new")) == CommandReady(b"new")


def test_the_host_may_abort_a_response(card: Card) -> None:
    card.ask(IBlock(0))
    card.respond(bytes(40))
    assert card.ask(ABORT) == ABORT_RESPONSE
    assert card.ask(IBlock(1, inf=b"new")) == CommandReady(b"new")
    assert card.respond(b"\x90\x00") == IBlock(1, inf=b"\x90\x00")


def test_a_card_aborts_a_command_that_is_too_long() -> None:
    card = Card(CardEnd(max_command=3))
    assert card.ask(IBlock(0, more=True, inf=b"abc")) == RBlock(1)
    assert card.ask(IBlock(1, more=True, inf=b"d")) == ABORT
    assert not card.end._incoming
    assert card.ask(GARBAGE) == ABORT
    assert card.ask(ABORT_RESPONSE) == RBlock(0)
    assert card.ask(IBlock(0, inf=b"abc")) == CommandReady(b"abc")


@pytest.mark.parametrize(
    "block",
    [WTX, WTX_RESPONSE, IFS_RESPONSE, ABORT_RESPONSE, RESYNCH_RESPONSE],
)
def test_an_s_block_that_a_host_must_not_send_now_is_refused(card: Card, block: Block) -> None:
    assert card.ask(block) == RBlock(0, OTHER_ERROR)


@pytest.mark.parametrize("size", [0, 1, MAX_RESPONSE + 1])
def test_a_response_of_a_wrong_size_is_not_sent(card: Card, size: int) -> None:
    card.ask(IBlock(0))
    with pytest.raises(LocalProtocolError):
        card.end.send_response(bytes(size))
    assert card.respond(b"\x90\x00") == IBlock(0, inf=b"\x90\x00")


def test_a_card_speaks_when_it_has_a_command_and_only_once(card: Card) -> None:
    for ns in (0, 1):
        with pytest.raises(LocalProtocolError):
            card.end.send_response(b"\x90\x00")
        with pytest.raises(LocalProtocolError):
            card.end.request_extension()
        card.ask(IBlock(ns))
        card.respond(b"\x90\x00")


def test_a_card_that_asks_for_time_waits_for_the_answer(card: Card) -> None:
    card.ask(IBlock(0))
    card.extend(3)
    with pytest.raises(LocalProtocolError):
        card.end.send_response(b"\x90\x00")
    with pytest.raises(LocalProtocolError):
        card.end.request_extension(3)


@pytest.mark.parametrize("multiplier", [0, 256])
def test_there_is_no_such_extension(card: Card, multiplier: int) -> None:
    card.ask(IBlock(0))
    with pytest.raises(LocalProtocolError):
        card.end.request_extension(multiplier)
    assert card.extend(255) == SBlock(Supervisory.WTX, value=255)


@pytest.mark.parametrize("bad", [{"ifsc": 0}, {"ifsc": 255}, {"ifsd": 0}, {"nad": 0x11}])
def test_an_end_is_not_made_with_a_reserved_value(bad: dict[str, int]) -> None:
    with pytest.raises(LocalProtocolError):
        CardEnd(**bad)


class Turn(enum.Enum):
    RESPOND = enum.auto()
    EXTEND = enum.auto()


@given(st.lists(any_blocks | st.sampled_from(Turn)))
def test_a_card_answers_anything_with_one_block_or_works(script: list[bytes | Turn]) -> None:
    card = CardEnd(max_command=100)
    waits_for_response = False
    for step in script:
        if isinstance(step, bytes):
            answer = card.receive_block(step)
            waits_for_response = isinstance(answer, CommandReady) or answer is CARD_WORKS
            if waits_for_response:
                assert card.works
        elif waits_for_response:
            response = bytes(90)
            answer = (
                card.send_response(response) if step is Turn.RESPOND else card.request_extension(3)
            )
            waits_for_response = False
        else:
            continue
        if isinstance(answer, bytes):
            decode(answer)
        if isinstance(answer, CommandReady):
            assert len(answer.apdu) <= 100
        assert len(card._incoming) <= 100
    # Whatever was, the host can begin anew.
    assert card.receive_block(encode(RESYNCH)) == encode(RESYNCH_RESPONSE)
    assert card.receive_block(encode(IBlock(0, inf=b"new"))) == CommandReady(b"new")
    assert card.send_response(b"\x90\x00") == encode(IBlock(0, inf=b"\x90\x00"))


def test_a_repr_does_not_hold_a_command() -> None:
    assert "31337" not in repr(CommandReady(b"31337"))
